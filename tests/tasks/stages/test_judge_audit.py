"""The judge's record by slices, against a plain loop over the same judgments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pref_model.agreement import audit_orders
from tasks._stages.judge_audit import LENGTH_GAPS, audit
from warehouse.tables import TABLES

PAIRS = [f"p{n}" for n in range(23)]
PERSONAS = [f"u{n}" for n in range(7)]
# From equal lengths to more than twice as long, A or B the longer one.
LENGTHS = {one: (100, 100 + 9 * n) if n % 2 else (100 + 9 * n, 100) for n, one in enumerate(PAIRS)}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    found = []
    for persona in PERSONAS:
        for pair in PAIRS:
            if rng.random() < 0.3:
                continue
            for order in ("ab", "ba"):
                for repeat in range(2):
                    lost = rng.random() < 0.2
                    verdict = None if lost else str(rng.choice(["first", "second"], p=[0.6, 0.4]))
                    value = None if lost else float((verdict == "first") == (order == "ab"))
                    found.append(
                        {
                            "persona_id": persona,
                            "pair_id": pair,
                            "presentation_order": order,
                            "repeat": repeat,
                            "request_key": f"{len(found)}",
                            "judge_model": "m1" if persona < "u4" else "m2",
                            "verdict": verdict,
                            "is_exact_form": not lost and bool(rng.random() < 0.9),
                            "unparsed_reason": ("refused" if rng.random() < 0.5 else "empty")
                            if lost
                            else None,
                            "prefers_a_prob": value,
                            "reply_text": "",
                        }
                    )
    rng.shuffle(found)  # type: ignore[arg-type]
    return found


def gap_of(pair: str) -> str:
    a, b = LENGTHS[pair]
    ratio = max(a, b) / min(a, b)
    return next(name for name, end in LENGTH_GAPS if ratio < end)


def obvious(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same record, one judgment after another."""
    told = [row for row in rows if row["verdict"] is not None]
    won = {
        (row["persona_id"], row["pair_id"], row["repeat"], row["presentation_order"]): row[
            "verdict"
        ]
        == "first"
        for row in told
    }
    complete = [key[:3] for key in won if key[3] == "ab" and (*key[:3], "ba") in won]
    orders = audit_orders(
        np.array([won[*key, "ab"] for key in complete], bool),
        np.array([won[*key, "ba"] for key in complete], bool),
    )
    unequal = [row for row in told if len(set(LENGTHS[row["pair_id"]])) == 2]
    longer = [
        row["prefers_a_prob"] == float(np.greater(*LENGTHS[row["pair_id"]])) for row in unequal
    ]
    return {
        "n_judgments": len(rows),
        "n_exact": sum(row["is_exact_form"] for row in told),
        "n_unparsed": len(rows) - len(told),
        "n_refused": sum(row["unparsed_reason"] == "refused" for row in rows),
        "n_complete": orders.n_complete,
        "n_consistent": orders.n_consistent,
        "first_share": orders.first_share.share,
        "first_share_high": orders.first_share.high,
        "position_bias_low_logit": orders.position_bias_logit.low,
        "longer_share": sum(longer) / len(longer) if longer else None,
    }


def test_every_slice_is_what_a_plain_loop_finds(rows: list[dict[str, Any]]) -> None:
    found = audit(pa.Table.from_pylist(rows, TABLES["judgments"].schema), LENGTHS).to_pylist()
    by = {
        "overall": lambda row: "all",
        "judge": lambda row: row["judge_model"],
        "persona": lambda row: row["persona_id"],
        "length_gap": lambda row: gap_of(row["pair_id"]),
    }
    seen = 0
    for kind, name_of in by.items():
        for name in {name_of(row) for row in rows}:
            one = next(r for r in found if (r["slice_kind"], r["slice_id"]) == (kind, name))
            expected = obvious([row for row in rows if name_of(row) == name])
            for column, value in expected.items():
                assert one[column] == (value if value is None else pytest.approx(value)), column
            seen += 1
    assert seen == len(found) == 1 + 2 + len(PERSONAS) + len(LENGTH_GAPS)


def test_slices_of_a_kind_add_up_to_the_whole(rows: list[dict[str, Any]]) -> None:
    found = audit(pa.Table.from_pylist(rows, TABLES["judgments"].schema), LENGTHS).to_pylist()
    for kind in ("judge", "persona", "length_gap"):
        parts = [row for row in found if row["slice_kind"] == kind]
        for column in ("n_judgments", "n_unparsed", "n_complete", "n_consistent"):
            assert sum(row[column] for row in parts) == found[0][column]


def test_no_judgments_are_a_record_of_nothing() -> None:
    (row,) = audit(TABLES["judgments"].schema.empty_table()).to_pylist()
    assert (row["n_judgments"], row["n_complete"]) == (0, 0)
    assert row["first_share"] is None
