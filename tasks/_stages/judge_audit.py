"""The judge's record by slices of the judgments. It reads replies' verdicts, never their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from warehouse.tables import TABLES

# What of the judgments is looked at here and in `tasks._stages.assemble`.
JUDGED = (
    "persona_id", "pair_id", "presentation_order", "repeat", "judge_model", "verdict",
    "is_exact_form", "unparsed_reason", "prefers_a_prob",
)  # fmt: skip
REFUSALS = ("content_filter", "refused")
# How many times as long the longer response is: name of the slice, and where it ends.
LENGTH_GAPS: tuple[tuple[str, float], ...] = (
    ("under 1.1 times", 1.1),
    ("1.1 to 1.5 times", 1.5),
    ("1.5 to 2 times", 2.0),
    ("over 2 times", np.inf),
)

Codes = NDArray[np.int64]
Lengths = Mapping[str, tuple[int, int]]


class _Judged(NamedTuple):
    """Judgments as arrays, one entry a judgment; codes number what they stand for from 0."""

    persona: Codes
    personas: list[str]
    judge: Codes
    judges: list[str]
    cell: Codes
    is_ab: NDArray[np.bool_]
    is_parsed: NDArray[np.bool_]
    first_won: NDArray[np.bool_]
    is_exact: NDArray[np.bool_]
    is_refused: NDArray[np.bool_]
    gap: Codes
    a_is_longer: NDArray[np.float64]


def audit(judgments: pa.Table, lengths: Lengths | None = None) -> pa.Table:
    """Rates of unusable replies, consistency under swap, and position bias, by slice.

    Slices: all judgments, each judge model, each persona, and how much longer one response is.

    Args:
        judgments: Rows of ``judgments``, the columns `JUDGED` at least.
        lengths: Characters of the responses A and B of each pair; without them there are no
            slices by length.

    Returns:
        Rows of ``judge_audit``.
    """
    found = _judged(judgments, lengths or {})
    everything = np.zeros(len(found.cell), np.int64)
    tables = [_slices("overall", ["all"], everything, found)]
    tables.append(_slices("judge", found.judges, found.judge, found))
    tables.append(_slices("persona", found.personas, found.persona, found))
    if lengths:
        tables.append(_slices("length_gap", [name for name, _ in LENGTH_GAPS], found.gap, found))
    return pa.concat_tables(tables)


def gap_of_lengths(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `LENGTH_GAPS` pairs with responses of these lengths fall into."""
    ratio = np.maximum(a, b) / np.maximum(np.minimum(a, b), 1)
    return np.digitize(ratio, [end for _, end in LENGTH_GAPS[:-1]])


def _judged(judgments: pa.Table, lengths: Lengths) -> _Judged:
    persona, personas = _codes(judgments["persona_id"])
    pair, pairs = _codes(judgments["pair_id"])
    judge, judges = _codes(judgments["judge_model"])
    repeat = judgments["repeat"].to_numpy()
    n_repeats = int(repeat.max()) + 1 if len(repeat) else 1
    verdict = judgments["verdict"]
    a, b = np.array([lengths.get(one, (0, 0)) for one in pairs]).reshape(-1, 2).T
    longer = np.where(a == b, np.nan, (a > b).astype(np.float64))
    return _Judged(
        persona=persona,
        personas=personas,
        judge=judge,
        judges=judges,
        cell=(persona * max(len(pairs), 1) + pair) * n_repeats + repeat,
        is_ab=_flags(pc.equal(judgments["presentation_order"], "ab")),
        is_parsed=_flags(pc.is_valid(verdict)),
        first_won=_flags(pc.equal(verdict, "first")),
        is_exact=_flags(judgments["is_exact_form"]),
        is_refused=_flags(pc.is_in(judgments["unparsed_reason"], pa.array(REFUSALS))),
        gap=gap_of_lengths(a, b)[pair],
        a_is_longer=longer[pair],
    )


def _slices(kind: str, names: list[str], code: Codes, found: _Judged) -> pa.Table:
    """One row for each slice that holds a judgment."""
    from pref_model.agreement import audit_counts

    size = len(names)

    def count(mask: NDArray[np.bool_]) -> Codes:
        return np.bincount(code[mask], minlength=size)

    total = np.bincount(code, minlength=size)
    n_parsed, n_exact = count(found.is_parsed), count(found.is_parsed & found.is_exact)
    # Cells with a verdict in both orders: the two are matched by the cell's number.
    ab = np.flatnonzero(found.is_parsed & found.is_ab)
    ba = np.flatnonzero(found.is_parsed & ~found.is_ab)
    _, at_ab, at_ba = np.intersect1d(
        found.cell[ab], found.cell[ba], assume_unique=True, return_indices=True
    )
    one, other = ab[at_ab], ba[at_ba]
    of_cell = code[one]
    both_first = found.first_won[one] & found.first_won[other]
    both_second = ~found.first_won[one] & ~found.first_won[other]
    orders = audit_counts(
        np.bincount(of_cell, minlength=size),
        np.bincount(of_cell[both_first], minlength=size),
        np.bincount(of_cell[both_second], minlength=size),
    )
    told = found.is_parsed & ~np.isnan(found.a_is_longer)
    # The verdict decides, also where a soft one gives a probability between 0 and 1.
    longer_won = told & ((found.first_won == found.is_ab) == (found.a_is_longer == 1.0))
    columns: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {
        "n_judgments": total,
        "n_exact": n_exact,
        "n_tolerated": n_parsed - n_exact,
        "n_unparsed": total - n_parsed,
        "unparsed_share": _ratio(total - n_parsed, total),
        "n_refused": count(found.is_refused),
        "n_complete": orders.n_complete,
        "n_consistent": orders.n_consistent,
        "consistent_share": _ratio(orders.n_consistent, orders.n_complete),
        "first_share": orders.first_share.share,
        "first_share_low": orders.first_share.low,
        "first_share_high": orders.first_share.high,
        "position_bias_logit": orders.position_bias_logit.share,
        "position_bias_low_logit": orders.position_bias_logit.low,
        "position_bias_high_logit": orders.position_bias_logit.high,
        "longer_share": _ratio(count(longer_won), count(told)),
    }
    schema = TABLES["judge_audit"].schema
    arrays = {"slice_kind": pa.array([kind] * size, pa.string()), "slice_id": pa.array(names)}
    for name, values in columns.items():
        # Nothing counted and bounds without end are both unknown.
        arrays[name] = pa.array(values, schema.field(name).type, mask=~np.isfinite(values))
    order = np.argsort(np.array(names), kind="stable") if kind != "length_gap" else np.arange(size)
    keep = order[total[order] > 0]
    table = pa.table([arrays[name] for name in schema.names], schema=schema)
    return table if size == 1 and not total[0] else table.take(keep)


def _codes(column: pa.ChunkedArray) -> tuple[Codes, list[str]]:
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    return np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy(), dtype=np.bool_)


def _ratio(count: Codes, total: Codes) -> NDArray[np.float64]:
    return np.where(total > 0, count / np.maximum(total, 1), np.nan)
