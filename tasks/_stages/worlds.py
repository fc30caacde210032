"""Datasets as the arrays that `pref_model` works on: users, pairs, labels, features. No fitting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pref_model.types import Preferences
from tasks._convert import CELL_COLUMNS, differences_of, index_of, known_cells
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
        """Cells of one part (see `in_part`), indexed as in this world."""
        kept = in_part(self.cells, name, self.n_seen_users, self.n_seen_pairs)
        user, pair, label, weight = self.cells
        return Preferences(user[kept], pair[kept], label[kept], weight[kept])

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
    columns = ("pair_id", "prompt_id", "response_a_id", "response_b_id")
    rows = {row["pair_id"]: row for row in inputs.read("pairs", columns).to_pylist()}
    prompts = index_of(sorted({row["prompt_id"] for row in rows.values()}))
    cells = known_cells(inputs.read("preferences", CELL_COLUMNS), personas, pairs, MIN_VALID_ORDERS)
    is_weighted = inputs.config.get("weights") == "verdicts"
    weights = cells.weight / MIN_VALID_ORDERS if is_weighted else np.ones(len(cells.weight))
    differences = np.zeros((len(pairs), 0))
    if "embeddings" in inputs.plan.parents:
        embedded = inputs.read("embeddings")
        place = index_of(embedded["response_id"].to_pylist())
        first = [place[rows[pair]["response_a_id"]] for pair in pairs]
        second = [place[rows[pair]["response_b_id"]] for pair in pairs]
        differences = differences_of(embedded["embedding"], first, second)
    return World(
        personas=personas,
        pairs=pairs,
        prompt_of_pair=np.array([prompts[rows[one]["prompt_id"]] for one in pairs], np.int64),
        cells=cells._replace(weight=weights),
        differences=differences,
        n_seen_users=n_seen_users,
        n_seen_pairs=n_seen_pairs,
    )


def in_part(
    cells: Preferences, name: str, n_seen_users: int, n_seen_pairs: int
) -> NDArray[np.bool_]:
    """(N,) which cells belong to a part (METHOD section 2).

    train: seen users, seen pairs; validation: seen users, new pairs; calibration: new users,
    seen pairs; test: new users, new pairs.
    """
    wants_seen_user = name in ("train", "validation")
    wants_seen_pair = name in ("train", "calibration")
    kept: NDArray[np.bool_] = ((cells.user < n_seen_users) == wants_seen_user) & (
        (cells.pair < n_seen_pairs) == wants_seen_pair
    )
    return kept


def seen_first(inputs: Inputs, kind: str) -> tuple[list[str], int]:
    """Ids of one kind, the seen before the new and each group sorted; how many are seen."""
    ids = {where: [] for where in ("seen", "new")}  # type: dict[str, list[str]]
    for row in inputs.read("splits").to_pylist():
        if row["entity_kind"] == kind:
            ids[row["side"]].append(row["entity_id"])
    return sorted(ids["seen"]) + sorted(ids["new"]), len(ids["seen"])
