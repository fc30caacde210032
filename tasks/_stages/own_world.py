"""Real users' answers as the arrays that `pref_model` works on, kept as columns. No fitting.

`worlds.World` holds a matrix (U, M); here most users have pairs of their own, and a matrix would
be nearly all holes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pref_model.types import Preferences, make_preferences
from tasks._convert import index_of, rows_of, vectors
from tasks._stages.own import cells_of
from tasks._stages.stage import Inputs
from tasks._stages.worlds import in_part, seen_first


class OwnWorld(NamedTuple):
    """Answered cells with their split.

    Attributes:
        personas: U ids; seen users first, each group sorted.
        pairs: M ids; seen pairs first, each group sorted.
        response_a_ids: M ids of the first responses.
        response_b_ids: M ids of the second responses.
        cells: N answered cells, by persona and pair.
        answered_at_s: (N,) seconds since 1970 of a cell's first answer, nan where not known.
        differences: (M, D) float64, vector of A minus vector of B (`response_vectors`).
        n_seen_users: Users to train on.
        n_seen_pairs: Pairs to train on.
    """

    personas: list[str]
    pairs: list[str]
    response_a_ids: list[str]
    response_b_ids: list[str]
    cells: Preferences
    answered_at_s: NDArray[np.float64]
    differences: NDArray[np.float64]
    n_seen_users: int
    n_seen_pairs: int

    def where(self, part: str) -> NDArray[np.bool_]:
        """(N,) which cells belong to a part, see `worlds.in_part`."""
        return in_part(self.cells, part, self.n_seen_users, self.n_seen_pairs)

    def part(self, name: str) -> Preferences:
        """Cells of one part, indexed as in this world."""
        return self.taken(np.flatnonzero(self.where(name)))

    def taken(self, rows: NDArray[np.int64]) -> Preferences:
        """Some of the cells, by row."""
        user, pair, label, weight = self.cells
        return Preferences(user[rows], pair[rows], label[rows], weight[rows])


def response_vectors(inputs: Inputs) -> tuple[list[str], NDArray[np.float64]]:
    """Ids of the responses and their vectors (R, D): embedding, then features of form if wanted.

    Reads ``embeddings`` and ``text_features``; the configuration's ``text_columns`` is 0 where
    form is not to be looked at.
    """
    embedded = inputs.read("embeddings")
    ids = embedded["response_id"].to_pylist()
    found = vectors(embedded["embedding"])
    if inputs.config["text_columns"] == 0:
        return ids, found
    features = inputs.read("text_features")
    order = rows_of(embedded["response_id"], features["response_id"].to_pylist())
    return ids, np.hstack([found, vectors(features["text_features"])[order]])


def load_own_world(inputs: Inputs) -> OwnWorld:
    """Reads ``answers``, ``splits``, ``pairs`` and the vectors of a plan."""
    personas, n_seen_users = seen_first(inputs, "persona")
    pairs, n_seen_pairs = seen_first(inputs, "pair")
    first = inputs.lookup("pairs", "pair_id", "response_a_id")
    second = inputs.lookup("pairs", "pair_id", "response_b_id")
    ids, embeddings = response_vectors(inputs)
    place = index_of(ids)
    cells = cells_of(inputs.read("answers"))
    times = cells["answered_at"].to_pylist()
    return OwnWorld(
        personas=personas,
        pairs=pairs,
        response_a_ids=[first[one] for one in pairs],
        response_b_ids=[second[one] for one in pairs],
        cells=make_preferences(
            rows_of(cells["persona_id"], personas),
            rows_of(cells["pair_id"], pairs),
            cells["preference_prob"].to_numpy(),
            cells["weight"].to_numpy(),
            n_users=len(personas),
            n_pairs=len(pairs),
        ),
        answered_at_s=np.array([np.nan if one is None else one.timestamp() for one in times]),
        differences=(
            embeddings[[place[first[one]] for one in pairs]]
            - embeddings[[place[second[one]] for one in pairs]]
        ),
        n_seen_users=n_seen_users,
        n_seen_pairs=n_seen_pairs,
    )
