"""Datasets as the arrays that `pref_model` works on: users, pairs, labels, features. No fitting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pref_model.types import Preferences
from tasks._convert import index_of, rows_of, vectors
from tasks._stages.stage import Inputs

# A preference rests on both orders, or it is not used: one order alone carries the position bias.
MIN_VALID_ORDERS = 2


class World(NamedTuple):
    """One preference matrix with its split.

    Attributes:
        personas: U ids; seen users first, each group sorted.
        pairs: M ids; seen pairs first, each group sorted.
        prompt_of_pair: (M,) int64, equal numbers share a prompt.
        cells: Known cells, by user and then by pair: P(A preferred), and a weight of 1 where it
            rests on one verdict in each order.
        differences: (M, D) float64, embedding of A minus embedding of B.
        n_seen_users: Users to train on.
        n_seen_pairs: Pairs to train on.
    """

    personas: list[str]
    pairs: list[str]
    prompt_of_pair: NDArray[np.int64]
    cells: Preferences
    differences: NDArray[np.float64]
    n_seen_users: int
    n_seen_pairs: int

    @property
    def new_users(self) -> list[str]:
        """Ids of the held-out users, in row order."""
        return self.personas[self.n_seen_users :]

    def part(self, name: str) -> Preferences:
        """Cells of one part, indexed as in this world (METHOD section 2).

        train: seen users, seen pairs; validation: seen users, new pairs; calibration: new users,
        seen pairs; test: new users, new pairs.
        """
        is_seen_user = self.cells.user < self.n_seen_users
        is_seen_pair = self.cells.pair < self.n_seen_pairs
        kept = (is_seen_user == (name in ("train", "validation"))) & (
            is_seen_pair == (name in ("train", "calibration"))
        )
        return Preferences(*(column[kept] for column in self.cells))

    def labels(self, users: slice, pairs: slice) -> NDArray[np.float64]:
        """A block of the preference matrix (users, pairs): P(A preferred), nan where unknown."""
        rows, columns = range(len(self.personas))[users], range(len(self.pairs))[pairs]
        block = np.full((len(rows), len(columns)), np.nan)
        user, pair = self.cells.user - rows.start, self.cells.pair - columns.start
        kept = (user >= 0) & (user < len(rows)) & (pair >= 0) & (pair < len(columns))
        block[user[kept], pair[kept]] = self.cells.label[kept]
        return block


def load_world(inputs: Inputs) -> World:
    """Reads ``preferences``, ``splits``, ``pairs`` and ``embeddings`` of a plan.

    A stage that reads no embeddings gets differences of width 0. With ``weights = "verdicts"`` in
    its configuration a label weighs as many as its verdicts, two being one; else all weigh 1.
    """
    personas, n_seen_users = seen_first(inputs, "persona")
    pairs, n_seen_pairs = seen_first(inputs, "pair")
    rows = {row["pair_id"]: row for row in inputs.read("pairs").to_pylist()}
    prompts = index_of(sorted({row["prompt_id"] for row in rows.values()}))
    is_weighted = inputs.config.get("weights") == "verdicts"
    differences = np.zeros((len(pairs), 0))
    if "embeddings" in inputs.plan.parents:
        embedded = inputs.read("embeddings")
        place = index_of(embedded["response_id"].to_pylist())
        embeddings = vectors(embedded["embedding"])
        first = [place[rows[pair]["response_a_id"]] for pair in pairs]
        second = [place[rows[pair]["response_b_id"]] for pair in pairs]
        differences = embeddings[first] - embeddings[second]
    return World(
        personas=personas,
        pairs=pairs,
        prompt_of_pair=np.array([prompts[rows[one]["prompt_id"]] for one in pairs], np.int64),
        cells=_known_cells(inputs.read("preferences"), personas, pairs, is_weighted),
        differences=differences,
        n_seen_users=n_seen_users,
        n_seen_pairs=n_seen_pairs,
    )


def _known_cells(
    preferences: pa.Table, personas: list[str], pairs: list[str], is_weighted: bool
) -> Preferences:
    users = rows_of(preferences["persona_id"], personas)
    items = rows_of(preferences["pair_id"], pairs)
    labels = preferences["preference_prob"].to_numpy(zero_copy_only=False)
    n_valid = preferences["n_valid"].to_numpy()
    known = (users >= 0) & (items >= 0) & (n_valid >= MIN_VALID_ORDERS) & ~np.isnan(labels)
    order = np.flatnonzero(known)[np.lexsort((items[known], users[known]))]
    weights = n_valid[order] / MIN_VALID_ORDERS if is_weighted else np.ones(len(order))
    return Preferences(users[order], items[order], labels[order], weights)


def seen_first(inputs: Inputs, kind: str) -> tuple[list[str], int]:
    """Ids of one kind, the seen before the new and each group sorted; how many are seen."""
    ids = {where: [] for where in ("seen", "new")}  # type: dict[str, list[str]]
    for row in inputs.read("splits").to_pylist():
        if row["entity_kind"] == kind:
            ids[row["side"]].append(row["entity_id"])
    return sorted(ids["seen"]) + sorted(ids["new"]), len(ids["seen"])
