from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks._stages import assemble, judge_audit, split
from tasks.errors import InputRejected
from tests.tasks.stages.conftest import Bench
from warehouse.tables import TABLES


def judgment(
    order: str, prefers_a: float | None, *, pair: str = "p", repeat: int = 0
) -> dict[str, Any]:
    first = None
    if prefers_a is not None:
        first = "first" if (prefers_a == 1.0) == (order == "ab") else "second"
    return {
        "persona_id": "u",
        "pair_id": pair,
        "presentation_order": order,
        "repeat": repeat,
        "request_key": f"{pair}{order}{repeat}",
        "judge_model": "m",
        "verdict": first,
        "is_exact_form": first is not None,
        "unparsed_reason": None if first else "no_verdict",
        "prefers_a_prob": prefers_a,
        "prob_origin": "verdict" if first else None,
        "a_low_prob": None,
        "a_high_prob": None,
        "reply_text": "",
    }


def assembled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = assemble.assemble(pa.Table.from_pylist(rows, TABLES["judgments"].schema))
    assert table.num_rows == 1
    return dict(table.to_pylist()[0])


def test_two_orders_that_agree_are_a_clear_preference() -> None:
    for value in (0.0, 1.0):
        row = assembled([judgment("ab", value), judgment("ba", value)])
        assert (row["preference_prob"], row["n_valid"], row["is_tie"]) == (value, 2, False)


def test_two_orders_that_disagree_are_a_tie() -> None:
    row = assembled([judgment("ab", 1.0), judgment("ba", 0.0)])
    assert (row["preference_prob"], row["n_valid"], row["is_tie"]) == (0.5, 2, True)


def test_an_unusable_verdict_is_not_half_a_tie() -> None:
    row = assembled([judgment("ab", 1.0), judgment("ba", None)])
    assert (row["preference_prob"], row["n_valid"], row["n_asked"]) == (1.0, 1, 2)


def test_a_cell_without_any_verdict_is_kept_and_null() -> None:
    row = assembled([judgment("ab", None), judgment("ba", None)])
    assert (row["preference_prob"], row["n_valid"], row["is_tie"]) == (None, 0, False)


def test_orders_weigh_the_same_whatever_their_repeats() -> None:
    rows = [judgment("ab", 1.0, repeat=n) for n in range(3)] + [judgment("ba", 0.0)]
    assert assembled(rows)["preference_prob"] == 0.5


def test_swapping_a_and_b_negates_the_preference() -> None:
    swapped = {"ab": "ba", "ba": "ab"}
    for values in itertools.product((0.0, 1.0, None), repeat=2):
        rows = [judgment("ab", values[0]), judgment("ba", values[1])]
        mirrored = [
            judgment(swapped[row["presentation_order"]], None if v is None else 1.0 - v)
            for row, v in zip(rows, values, strict=True)
        ]
        a, b = assembled(rows)["preference_prob"], assembled(mirrored)["preference_prob"]
        assert (a is None and b is None) or a == 1.0 - b


def test_a_judge_that_always_says_first_is_found_out() -> None:
    rows = [
        judgment(order, 1.0 if order == "ab" else 0.0, pair=f"p{n:03d}")
        for n in range(50)
        for order in ("ab", "ba")
    ]
    table = judge_audit.audit(pa.Table.from_pylist(rows, TABLES["judgments"].schema))
    overall = table.to_pylist()[0]
    assert (overall["first_share"], overall["n_consistent"]) == (1.0, 0)
    # The bias has no finite estimate; its lower bound does.
    assert overall["position_bias_logit"] is None
    assert overall["position_bias_low_logit"] > 1.0


@pytest.fixture
def divided(bench: Bench) -> list[dict[str, Any]]:
    personas = [
        {
            "persona_id": f"u{n}", "persona_kind": "attributes", "trait_1": "a", "trait_2": "b",
            "profile_text": "x",
        }
        for n in range(20)
    ]  # fmt: skip
    bench.put("personas", personas)
    # Two pairs a prompt: a split of pairs alone would put a prompt on both sides.
    pairs = [
        {
            "pair_id": f"{n:02d}/{k}",
            "prompt_id": f"{n:02d}",
            "response_a_id": "a",
            "response_b_id": "b",
        }
        for n in range(30)
        for k in range(2)
    ]
    bench.put("pairs", pairs)
    config = {"new_user_share": 0.2, "new_pair_share": 0.2, "seed": 0}
    rows = split.build(bench.inputs(split.STAGE, **config))["splits"].rows
    assert isinstance(rows, pa.Table)
    return [dict(row) for row in rows.to_pylist()]


def test_no_prompt_is_on_both_sides(divided: list[dict[str, Any]]) -> None:
    sides: dict[str, set[str]] = {}
    for row in divided:
        if row["entity_kind"] == "pair":
            sides.setdefault(row["entity_id"].split("/")[0], set()).add(row["side"])
    assert all(len(side) == 1 for side in sides.values())


def test_the_shares_are_as_asked(divided: list[dict[str, Any]]) -> None:
    for kind, total in (("persona", 20), ("pair", 60)):
        new = sum(row["side"] == "new" for row in divided if row["entity_kind"] == kind)
        assert new == round(0.2 * total)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_both_sides_always_have_somebody(share: float) -> None:
    held = split.held_out(0, "users", ["a", "b", "c"], share)
    assert 1 <= len(held) <= 2


def test_one_user_cannot_be_split() -> None:
    with pytest.raises(InputRejected, match="expected at least 2"):
        split.held_out(0, "users", ["a"], 0.5)


def test_audit_shares_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (40, 2)).astype(float)
    rows = [
        judgment(order, values[n, k], pair=f"p{n:03d}")
        for n in range(40)
        for k, order in enumerate(("ab", "ba"))
    ]
    overall = judge_audit.audit(pa.Table.from_pylist(rows, TABLES["judgments"].schema)).to_pylist()[
        0
    ]
    assert overall["n_consistent"] == int((values[:, 0] == values[:, 1]).sum())
    first = np.concatenate([values[:, 0] == 1.0, values[:, 1] == 0.0])
    assert overall["first_share"] == pytest.approx(first.mean())
