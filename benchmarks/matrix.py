"""The preference matrix of a warehouse as arrays, and seeded splits of it. It measures nothing."""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pref_model.comparators.interface import Corpus, Study
from pref_model.types import Floats, Ints, Preferences, make_preferences
from tasks._convert import index_of, label_matrix, vectors
from tasks._seeds import stable_shuffle
from tasks._stages.split import held_out
from tasks._stages.worlds import MIN_VALID_ORDERS
from warehouse.store import open_warehouse

FOLDS = 5
NEW_PAIRS = 0.2


class Matrix(NamedTuple):
    """Every user's label of every pair, and the embeddings of the pairs.

    Attributes:
        users: U ids, sorted.
        pairs: M ids, sorted; each has a prompt of its own.
        labels: (U, M) mean of both orders' verdicts, nan where an order has none.
        corpus: Embeddings (M, D) of both responses.
        versions: Dataset -> version of what was read.
    """

    users: list[str]
    pairs: list[str]
    labels: Floats
    corpus: Corpus
    versions: dict[str, str]


class Split(NamedTuple):
    """Rows of the users and pairs to learn from, and of those to test on, sorted."""

    known: Ints
    fresh: Ints
    seen: Ints
    new: Ints

    def study(self, matrix: Matrix) -> Study:
        """What a method may learn from; users are rows of `known`, pairs those of the matrix."""
        own = matrix.labels[self.known]
        return Study(matrix.corpus, cells(own, self.seen), cells(own, self.new), len(self.known))


def read_matrix(folder: str | Path) -> Matrix:
    """Read what the newest run wrote into a warehouse folder (`pref run attributes`)."""
    warehouse = open_warehouse(folder, create=False)
    names = ("preferences", "pairs", "embeddings")
    versions = {name: warehouse.current()[name] for name in names}
    preferences, pairs, embedded = (warehouse.read(name, versions[name]) for name in names)
    rows = sorted(pairs.to_pylist(), key=lambda row: row["pair_id"])
    if len({row["prompt_id"] for row in rows}) < len(rows):
        raise SystemExit("matrix: found several pairs of one prompt, expected one a prompt")
    users, ids = sorted(set(preferences["persona_id"].to_pylist())), [r["pair_id"] for r in rows]
    place = index_of(embedded["response_id"].to_pylist())
    both = vectors(embedded["embedding"])
    first, second = ([place[row[f"response_{one}_id"]] for row in rows] for one in "ab")
    labels = label_matrix(preferences, users, ids, MIN_VALID_ORDERS)
    return Matrix(users, ids, labels, Corpus(both[first], both[second]), versions)


def split(matrix: Matrix, seed: int) -> Split:
    """80/20 over users and over pairs; five seeds in a row make every user new exactly once."""
    turn, fold = divmod(seed, FOLDS)
    fresh = stable_shuffle(turn, "benchmark users", matrix.users)[fold::FOLDS]
    new = held_out(seed, "benchmark pairs", matrix.pairs, NEW_PAIRS)
    is_fresh, is_new = np.isin(matrix.users, fresh), np.isin(matrix.pairs, sorted(new))
    parts = (~is_fresh, is_fresh, ~is_new, is_new)
    return Split(*(np.flatnonzero(part).astype(np.int64) for part in parts))


def cells(labels: Floats, pairs: Ints) -> Preferences:
    """The observed cells of some pairs."""
    user, place = np.nonzero(~np.isnan(labels[:, pairs]))
    return make_preferences(user, pairs[place], labels[user, pairs[place]])


def by_user(matrix: Matrix, splits: list[Split], values: list[Floats]) -> Floats:
    """Mean over the seeds in which a user was new: (U, ...), nan for one who never was.

    Args:
        matrix: Where the users are from.
        splits: One a seed.
        values: One (V, ...) a seed, in the order of its new users.
    """
    total = np.zeros((len(matrix.users), *values[0].shape[1:]))
    count = np.zeros_like(total)
    for one, value in zip(splits, values, strict=True):
        np.add.at(total, one.fresh, np.nan_to_num(value))
        np.add.at(count, one.fresh, ~np.isnan(value))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def facts(matrix: Matrix, arguments: argparse.Namespace) -> dict[str, object]:
    """What a results file says of where its figures are from; no path of this machine."""
    given = {k: v for k, v in vars(arguments).items() if k not in ("warehouse", "json")}
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, CPU only",
        "is_simulated": True,
        "matrix": {
            "users": len(matrix.users),
            "pairs": len(matrix.pairs),
            "labels": int(np.sum(~np.isnan(matrix.labels))),
            "embedding_width": int(matrix.corpus.first.shape[1]),
            "versions": matrix.versions,
        },
        "arguments": given,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "torch")},
    }
