"""Win rates from choices and verdicts, and the questions that check their judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prompts.personas import attribute_personas
from prompts.traits import style_text
from tasks._llm.types import CallReply, CallRequest
from tasks._stages import check_win, win, win_rates
from tasks._stages.calls import Complete
from tests.tasks.stages.conftest import Bench, reply_to

Simulated = Callable[..., Complete]
USERS = [one.persona_id for one in attribute_personas()[:20]]
PROMPTS = [f"p{n:02d}" for n in range(8)]
JUDGE: dict[str, Any] = {
    "endpoint_name": "simulator",
    "judge_model": "simulated-judge",
    "template": "judge_attributes",
    "template_sha256": "x",
    "sampling": {"temperature": 0.0},
    "repeats": 1,
    "is_soft": False,
}
CHECK: dict[str, Any] = {
    **JUDGE, "n_identical": 160, "second_judge_model": None, "sample": 80, "seed": 0,
}  # fmt: skip
RATES: dict[str, Any] = {"draws": 1000, "level": 0.95, "seed": 0}
TONES = (
    "Thank you so much, please, kindly, of course.",
    "Certainly, without doubt, this is definitely so, and there is more to say of it.",
)


def fill(bench: Bench) -> None:
    """Users, prompts, a base response each and two revisions; two methods that choose."""
    people = {one.persona_id: one for one in attribute_personas()}
    bench.put(
        "personas",
        [
            {
                "persona_id": one,
                "persona_kind": "attributes",
                "trait_1": people[one].traits[0],
                "trait_2": people[one].traits[1],
                "profile_text": people[one].profile,
                "system_text": style_text(people[one].traits),
            }
            for one in USERS
        ],
    )
    bench.put(
        "prompts",
        [{"prompt_id": p, "prompt_text": f"On {p}?", "prompt_source": "t"} for p in PROMPTS],
    )
    texts = {"base": "The matter has several parts.", "r0": TONES[0], "r1": TONES[1]}
    bench.put(
        "pool_responses",
        [
            {
                "response_id": f"{p}/{name}",
                "prompt_id": p,
                "response_role": "base" if name == "base" else "revision",
                "parent_response_id": None if name == "base" else f"{p}/base",
                "response_text": f"{text} {p}",
                "request_key": f"{p}{name}",
                "response_model": "m",
            }
            for p in PROMPTS
            for name, text in texts.items()
        ],
        ("prompts",),
    )
    bench.put("taste_summaries", [])
    bench.put("personal_responses", [])
    bench.put(
        "selections",
        [
            {
                "persona_id": user,
                "method": method,
                "n_answers": 5,
                "prompt_id": p,
                "response_id": f"{p}/r{(row + column) % 2 if method == 'pref' else 0}",
                "base_response_id": f"{p}/base",
            }
            for row, user in enumerate(USERS)
            for method in ("classic", "pref")
            for column, p in enumerate(PROMPTS)
        ],
        ("prompts", "personas", "pool_responses"),
    )


def judge(bench: Bench, complete: Complete, **config: Any) -> None:
    inputs = bench.inputs(win.STAGE, **JUDGE)
    found = win.run_cells(inputs, 0, win.STAGE.n_cells(inputs), complete)
    bench.put("win_judgments", found, ("prompts", "personas", "pool_responses", "selections"))
    inputs = bench.inputs(check_win.STAGE, **(CHECK | config))
    found = check_win.run_cells(inputs, 0, check_win.STAGE.n_cells(inputs), complete)
    bench.put("win_check_judgments", found, ("prompts", "personas", "pool_responses"))
    bench.run(win_rates.STAGE, **RATES)


def by_key(bench: Bench, dataset: str, column: str) -> dict[str, dict[str, Any]]:
    return {row[column]: row for row in bench.rows(dataset)}


def always(option: Callable[[CallRequest], str]) -> Complete:
    def complete(requests: Any) -> list[CallReply]:
        return [reply_to(call, option(call)) for call in requests]

    return complete


def first_shown(call: CallRequest) -> str:
    return call.messages[1]["content"].split("<response_1>")[1].split("</response_1>")[0]


def test_the_base_against_itself_comes_out_near_half_however_the_judge_leans(
    bench: Bench, simulated: Simulated
) -> None:
    fill(bench)
    judge(bench, simulated(position_bias_logit=1.0))
    check = by_key(bench, "win_checks", "check_kind")["identical"]
    assert check["n_judgments"] == 320
    assert check["win_rate_low"] <= 0.5 <= check["win_rate_high"]
    assert abs(check["win_rate_mean"] - 0.5) < 0.06
    # The lean is there to be seen, and takes no side.
    assert check["first_share_low"] > 0.6
    assert check["agreement_share"] is None
    assert check["difference_mean"] is None


def test_a_judge_that_always_names_the_first_ties_everything(bench: Bench) -> None:
    fill(bench)
    judge(bench, always(lambda _call: "VERDICT: 1"))
    for row in bench.rows("win_rates"):
        assert row["win_rate_mean"] == row["win_rate_low"] == row["win_rate_high"] == 0.5
        assert row["n_ties"] == row["n_comparisons"] == len(USERS) * len(PROMPTS)
        assert row["n_unparsed"] == 0
        assert row["n_users_needed"] is None
        # Classic RLHF chose one revision for everybody: with one gap, length cannot be told apart.
        expected = None if row["method"] == "classic" else pytest.approx(0.5)
        assert row["controlled_rate_mean"] == expected


def test_other_numbers_of_answers_stand_beside_and_change_nothing_of_the_first(
    bench: Bench, simulated: Simulated
) -> None:
    fill(bench)
    judge(bench, simulated(), n_identical=0)
    alone = bench.rows("win_rates"), bench.rows("win_differences")
    asked = bench.rows("win_judgments")
    # After 20 answers PReF chooses as classic RLHF does, so nothing is left to be asked.
    chosen = bench.rows("selections")
    later = [
        {**row, "n_answers": 20, "response_id": f"{row['prompt_id']}/r0"}
        for row in chosen
        if row["method"] == "pref"
    ]
    rows = sorted(chosen + later, key=lambda row: (row["persona_id"], row["method"]))
    bench.put("selections", rows, ("prompts", "personas", "pool_responses"))
    judge(bench, simulated(), n_identical=0)
    assert bench.rows("win_judgments") == asked
    rates = bench.rows("win_rates")
    assert [row for row in rates if row["n_answers"] == 5] == alone[0]
    assert bench.rows("win_differences") == alone[1]
    (after,) = [row for row in rates if row["n_answers"] == 20]
    (classic,) = [row for row in rates if row["method"] == "classic"]
    assert after["method"] == "pref"
    assert after["win_rate_mean"] == classic["win_rate_mean"]


def test_an_unusable_order_is_counted_and_is_no_tie(bench: Bench) -> None:
    fill(bench)

    def reply(call: CallRequest) -> str:
        shown = first_shown(call)
        if "p03" in call.messages[1]["content"] and "several parts" in shown:
            return "Both are good."
        return "VERDICT: 2" if "several parts" in shown else "VERDICT: 1"

    judge(bench, always(reply))
    for row in bench.rows("win_rates"):
        assert row["n_unparsed"] == len(USERS)
        assert row["n_comparisons"] == len(USERS) * (len(PROMPTS) - 1)
        assert row["n_ties"] == 0
        assert row["win_rate_mean"] == 1.0


def test_differences_are_on_the_same_comparisons(bench: Bench, simulated: Simulated) -> None:
    fill(bench)
    judge(bench, simulated())
    (difference,) = bench.rows("win_differences")
    rates = by_key(bench, "win_rates", "method")
    assert (difference["method"], difference["other_method"]) == ("pref", "classic")
    assert difference["n_users"] == len(USERS)
    values = win_rates.win_values(
        bench.warehouse.read("selections", bench.versions["selections"]),
        bench.warehouse.read("win_judgments", bench.versions["win_judgments"]),
    ).to_pylist()
    win_of = {(row["method"], row["persona_id"], row["prompt_id"]): row["win"] for row in values}
    by_user = []
    for user in USERS:
        pairs = [(win_of["pref", user, p], win_of["classic", user, p]) for p in PROMPTS]
        by_user.append(np.mean([a - b for a, b in pairs if a is not None and b is not None]))
    assert difference["difference_mean"] == pytest.approx(np.mean(by_user))
    assert difference["n_comparisons"] <= min(one["n_comparisons"] for one in rates.values())


def test_a_second_judge_of_the_same_tastes_agrees_and_a_contrary_one_does_not(
    bench: Bench, simulated: Simulated
) -> None:
    fill(bench)
    clear = simulated(noise_scale=0.02, position_bias_logit=0.0)
    judge(bench, clear, second_judge_model="simulated-judge-b")
    second = by_key(bench, "win_checks", "check_kind")["second_judge"]
    assert second["judge_model"] == "simulated-judge-b"
    assert second["n_judgments"] == 2 * 40
    assert second["agreement_low"] > 0.7
    assert second["difference_low"] <= second["difference_mean"] <= second["difference_high"]

    def contrary(requests: Any) -> list[CallReply]:
        swap = {"VERDICT: 1": "VERDICT: 2", "VERDICT: 2": "VERDICT: 1"}
        renamed = [replace(one, model="simulated-judge") for one in requests]
        replies = clear(renamed)
        return [
            reply._replace(text=swap.get(reply.text or "", reply.text))
            if call.model == "simulated-judge-b"
            else reply
            for call, reply in zip(requests, replies, strict=True)
        ]

    judge(bench, contrary, second_judge_model="simulated-judge-b")
    second = by_key(bench, "win_checks", "check_kind")["second_judge"]
    assert second["agreement_high"] < 0.15


def test_checks_are_drawn_by_hash_so_that_fewer_users_draw_the_same(bench: Bench) -> None:
    fill(bench)
    config = {**CHECK, "n_identical": 10, "second_judge_model": "simulated-judge-b"}
    before = check_win.win_checks(bench.inputs(check_win.STAGE, **config))
    more = check_win.win_checks(bench.inputs(check_win.STAGE, **config | {"n_identical": 30}))
    assert [one for one in before if one.kind == "identical"] == more[:10]
    assert {str(one) for one in before} <= {str(one) for one in more}
    none = {**CHECK, "n_identical": 0}
    assert check_win.win_checks(bench.inputs(check_win.STAGE, **none)) == []


def test_a_run_without_checks_has_rates_all_the_same(bench: Bench, simulated: Simulated) -> None:
    fill(bench)
    judge(bench, simulated(), n_identical=0)
    assert bench.rows("win_checks") == []
    assert len(bench.rows("win_rates")) == 2
