"""The preference matrix of a warehouse as arrays, and seeded splits of it. It measures nothing."""

from __future__ import annotations

import numpy as np

from pref_model.comparators.interface import Corpus
from pref_model.protocol import Matrix, Split
from tasks._convert import index_of, label_matrix, vectors
from tasks._seeds import stable_shuffle
from tasks._stages.split import held_out
from tasks._stages.stage import Inputs
from tasks._stages.worlds import MIN_VALID_ORDERS
from tasks.errors import InputRejected

# Five seeds in a row make every user new exactly once.
FOLDS = 5
NEW_PAIRS = 0.2


def read_matrix(inputs: Inputs) -> Matrix:
    """Reads ``preferences``, ``pairs`` and ``embeddings``: every user, every pair.

    Raises:
        InputRejected: A pair has a response without an embedding, or the matrix is too small.
    """
    preferences, embedded = inputs.read("preferences"), inputs.read("embeddings")
    place = index_of(embedded["response_id"].to_pylist())
    rows = sorted(inputs.read("pairs").to_pylist(), key=lambda row: row["pair_id"])
    if any(row[f"response_{side}_id"] not in place for row in rows for side in "ab"):
        raise InputRejected(
            "benchmark: the warehouse's current embeddings are of other responses than its pairs;"
            " expected those of one run; run `pref run` to its end once more"
        )
    users = sorted(set(preferences["persona_id"].to_pylist()))
    if len(users) < FOLDS or len(rows) < FOLDS:
        raise InputRejected(
            f"benchmark: {len(users)} users and {len(rows)} pairs; expected at least {FOLDS} of"
            " each, to hold out a fifth; regenerate a larger matrix"
        )
    both = vectors(embedded["embedding"])
    first, second = ([place[row[f"response_{one}_id"]] for row in rows] for one in "ab")
    pairs = [row["pair_id"] for row in rows]
    prompts = index_of(sorted({row["prompt_id"] for row in rows}))
    return Matrix(
        users,
        pairs,
        np.array([prompts[row["prompt_id"]] for row in rows], np.int64),
        label_matrix(preferences, users, pairs, MIN_VALID_ORDERS),
        Corpus(both[first], both[second]),
    )


def split(matrix: Matrix, seed: int) -> Split:
    """80/20 over users and over prompts; a pair goes where its prompt goes (METHOD section 2)."""
    turn, fold = divmod(seed, FOLDS)
    fresh = stable_shuffle(turn, "benchmark users", matrix.users)[fold::FOLDS]
    first = {int(prompt): pair for prompt, pair in zip(
        matrix.prompt_of_pair[::-1], matrix.pairs[::-1], strict=True
    )}  # fmt: skip
    # A prompt is named by the first of its pairs.
    new = held_out(seed, "benchmark pairs", sorted(first.values()), NEW_PAIRS)
    is_fresh = np.isin(matrix.users, fresh)
    is_new = np.array([first[int(prompt)] in new for prompt in matrix.prompt_of_pair])
    parts = (~is_fresh, is_fresh, ~is_new, is_new)
    return Split(*(np.flatnonzero(part).astype(np.int64) for part in parts))
