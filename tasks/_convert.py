"""Warehouse rows ↔ prompt variables ↔ arrays: the one place that knows what "A" and "1" mean.

A pair has a response A and a response B. A presentation order says which is shown first: ``ab``
shows A first. The judge's menu counts positions: option "1" is the first response shown. A
preference is P(A preferred).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pref_model.types import Preferences
from prompts.verdict import Unparsed, Verdict
from tasks._llm.replies import SoftVerdict

Order = Literal["ab", "ba"]
ORDERS: tuple[Order, Order] = ("ab", "ba")
POSITION = {"1": "first", "2": "second"}


class Reading(NamedTuple):
    """A judge's reply, read: which position won, and what that says of A.

    ``prob_origin`` says where the probability comes from: the verdict itself (1 or 0), the log
    probabilities of its token, or a range of them (``a_low_prob`` to ``a_high_prob``), of which
    it is the middle; the range is null where there is none.
    """

    verdict: str | None
    is_exact_form: bool
    unparsed_reason: str | None
    prefers_a_prob: float | None
    prob_origin: str | None
    a_low_prob: float | None
    a_high_prob: float | None


def presented(text_a: str, text_b: str, order: Order) -> dict[str, str]:
    """The two response slots of a judge template, in presentation order."""
    first, second = (text_a, text_b) if order == "ab" else (text_b, text_a)
    return {"response_1": first, "response_2": second}


def read_verdict(
    parsed: Verdict | Unparsed, order: Order, soft: SoftVerdict | None = None
) -> Reading:
    """What a parsed verdict says of A, given what was shown first.

    Args:
        parsed: The verdict in the reply's text.
        order: What was shown first.
        soft: How likely the first option was, where the reply tells and it was asked for.
    """
    if isinstance(parsed, Unparsed):
        return unparsed(parsed.reason)
    position = POSITION[parsed.option]
    a_is_first = order == "ab"
    if soft is None:
        prefers_a = 1.0 if (position == "first") == a_is_first else 0.0
        return Reading(position, parsed.is_exact, None, prefers_a, "verdict", None, None)
    low, high = soft.low_prob, soft.high_prob
    if not a_is_first:
        low, high = 1.0 - high, 1.0 - low
    is_exact = soft.origin == "logprobs"
    bounds = (None, None) if is_exact else (low, high)
    return Reading(position, parsed.is_exact, None, (low + high) / 2, soft.origin, *bounds)


def unparsed(reason: str) -> Reading:
    """A reply without a verdict."""
    return Reading(None, False, reason, None, None, None, None)


def index_of(ids: Sequence[str]) -> dict[str, int]:
    """Row numbers by id."""
    return {one: row for row, one in enumerate(ids)}


def rows_of(column: pa.ChunkedArray, ids: Sequence[str]) -> NDArray[np.int64]:
    """Index into ``ids`` of each value of an id column; -1 where it is not among them."""
    found = pc.index_in(column, value_set=pa.array(ids, column.type))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def vectors(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A list column of equal lengths as a matrix (rows, length)."""
    return _matrix(column).astype(np.float64)


def differences_of(
    column: pa.ChunkedArray, first: Sequence[int], second: Sequence[int]
) -> NDArray[np.float64]:
    """Rows ``first`` less rows ``second`` of a list column of equal lengths: (M, length).

    The column itself stays as narrow as it was stored, and nothing of it is copied whole.
    """
    rows = _matrix(column)
    found = rows[list(first)].astype(np.float64)
    found -= rows[list(second)]
    return found


def _matrix(column: pa.ChunkedArray) -> NDArray[np.floating]:
    flat = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(flat.flatten().to_numpy(zero_copy_only=False)).reshape(len(flat), -1)


def vector_column(matrix: NDArray[np.floating], kind: pa.DataType) -> pa.Array:
    """A matrix (rows, length) as a list column of ``kind``."""
    width = matrix.shape[1]
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1), kind)
    offsets = np.arange(0, matrix.size + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def label_matrix(
    preferences: pa.Table,
    personas: Sequence[str],
    pairs: Sequence[str],
    min_valid: int,
) -> NDArray[np.float64]:
    """Preferences as a matrix (U, M) of P(A preferred), nan where none is known.

    Args:
        preferences: Rows of the ``preferences`` table.
        personas: Row ids, U of them.
        pairs: Column ids, M of them.
        min_valid: Valid verdicts a cell needs; with 2 every label rests on both orders.
    """
    matrix = np.full((len(personas), len(pairs)), np.nan)
    cells = known_cells(preferences, personas, pairs, min_valid)
    matrix[cells.user, cells.pair] = cells.label
    return matrix


# What `known_cells` looks at.
CELL_COLUMNS = ("persona_id", "pair_id", "preference_prob", "n_valid")


def known_cells(
    preferences: pa.Table, personas: Sequence[str], pairs: Sequence[str], min_valid: int
) -> Preferences:
    """Cells with a label, by user and then by pair; each weighs as many as its valid verdicts.

    Args:
        preferences: Rows of the ``preferences`` table, with `CELL_COLUMNS`.
        personas: Ids that users are rows of.
        pairs: Ids that pairs are rows of.
        min_valid: Valid verdicts a cell needs.
    """
    users = rows_of(preferences["persona_id"], personas)
    items = rows_of(preferences["pair_id"], pairs)
    labels = preferences["preference_prob"].to_numpy(zero_copy_only=False)
    n_valid = preferences["n_valid"].to_numpy()
    known = (users >= 0) & (items >= 0) & (n_valid >= min_valid) & ~np.isnan(labels)
    order = np.flatnonzero(known)[np.lexsort((items[known], users[known]))]
    return Preferences(users[order], items[order], labels[order], n_valid[order].astype(float))
