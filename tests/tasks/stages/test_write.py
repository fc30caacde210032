"""Ways to personalize: what each is told, what it writes, what it costs, and one way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pref_model.bestofn import best_of_n_bound
from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.traits import style_text
from tasks._llm.simulator.judge import utility
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallRequest
from tasks._stages import check_win, personalize, win, win_rates, write
from tasks._stages.calls import CallStage, Complete
from tests.tasks.stages.conftest import Bench

Simulated = Callable[..., Complete]
PEOPLE = [
    one for one in attribute_personas() if set(one.traits) <= {"concise", "polite", "humorous"}
]
USERS = [one.persona_id for one in PEOPLE]
SEEN, NEW = [f"s{n}" for n in range(6)], [f"n{n}" for n in range(3)]
RESPONDER: dict[str, Any] = {
    "endpoint_name": "simulator",
    "responder_model": "simulated-responder",
    "sampling": {"temperature": 0.7},
}
TOLD: dict[str, Any] = {"also": ["in_context", "summary", "system_prompt"], "n_answers": 4}
WRITE: dict[str, Any] = {
    **RESPONDER,
    **TOLD,
    "wishes_template": "respond_wishes",
    "in_context_template": "respond_in_context",
    "n_prompts": None,
    "seed": 0,
}
POOL: dict[str, Any] = {
    **RESPONDER,
    "pool_size": 3,
    "n_samples": 5,
    "base_template": "respond_base",
    "revise_template": "revise_attributes",
    "n_prompts": None,
    "seed": 0,
}
JUDGE: dict[str, Any] = {
    "endpoint_name": "simulator",
    "judge_model": "simulated-judge",
    "template": "judge_attributes",
    "sampling": {"temperature": 0.0},
    "repeats": 1,
    "is_soft": False,
}


def call(bench: Bench, stage: CallStage, complete: Complete, **config: Any) -> pa.Table:
    inputs = bench.inputs(stage, **config)
    found = stage.run_cells(inputs, 0, stage.n_cells(inputs), complete)
    bench.put(stage.writes[0], found)
    return found


@pytest.fixture
def filled(bench: Bench, simulated: Simulated) -> Bench:
    """Users who answered six questions by their traits, and three prompts to answer for them."""
    bench.put(
        "personas",
        [
            {
                "persona_id": one.persona_id,
                "persona_kind": "attributes",
                "profile_text": one.profile,
                # One user wrote no system prompt.
                "system_text": None if row == 0 else f"Be {' and '.join(one.traits)}.",
            }
            for row, one in enumerate(PEOPLE)
        ],
    )
    bench.put(
        "prompts",
        [
            {"prompt_id": p, "prompt_text": f"How do I grow plant {p}?", "prompt_source": "t"}
            for p in (*SEEN, *NEW)
        ],
    )
    responses = []
    for p in SEEN:
        for side, traits in (("a", ("concise", "polite")), ("b", ("verbose", "rude"))):
            messages = load_template("respond_attributes").render(
                prompt=f"How do I grow plant {p}?", style=style_text(traits)
            )
            responses.append(
                {
                    "response_id": f"{p}/{side}",
                    "prompt_id": p,
                    "response_role": f"pair_{side}",
                    "response_text": respond(messages, SimulatorSettings()),
                    "request_key": f"{p}{side}",
                    "response_model": "m",
                }
            )
    bench.put("responses", responses)
    bench.put(
        "pairs",
        [
            {
                "pair_id": p,
                "prompt_id": p,
                "response_a_id": f"{p}/a",
                "response_b_id": f"{p}/b",
            }
            for p in (*SEEN, *NEW)
        ],
    )
    sides = [("pair", p, "seen" if p in SEEN else "new") for p in (*SEEN, *NEW)]
    sides += [("persona", user, "new") for user in USERS]
    bench.put(
        "splits",
        [{"entity_kind": kind, "entity_id": one, "side": side} for kind, one, side in sides],
    )
    bench.put(
        "questions",
        [
            {
                "persona_id": user,
                "step": step,
                "pair_id": p,
                "rule": "random",
                "rule_score": None,
                # The third answer is a tie, and the fifth lies past those that are known.
                "answer_prob": 0.5 if step == 3 else 1.0,
            }
            for user in USERS
            for step, p in enumerate(SEEN, start=1)
        ],
    )
    call(bench, personalize.POOL_STAGE, simulated(), **POOL)
    return bench


def asked_by(
    stage: CallStage, bench: Bench, complete: Complete, **config: Any
) -> list[CallRequest]:
    asked: list[CallRequest] = []

    def listening(requests: Any) -> Any:
        asked.extend(requests)
        return complete(requests)

    call(bench, stage, listening, **config)
    return asked


def summarized(bench: Bench, complete: Complete) -> None:
    call(
        bench,
        write.SUMMARIZE_STAGE,
        complete,
        **RESPONDER,
        **TOLD,
        summary_template="summarize_answers",
    )


def test_a_writer_is_told_the_user_s_own_answers_and_no_profile(
    filled: Bench, simulated: Simulated
) -> None:
    complete = simulated()
    summarized(filled, complete)
    asked = asked_by(write.STAGE, filled, complete, **WRITE)
    assert len(asked) == (len(USERS) * 2 + len(USERS) - 1) * len(NEW)
    text = {row["response_id"]: row["response_text"] for row in filled.rows("responses")}
    profiles = [row["profile_text"] for row in filled.rows("personas")]
    in_context = [one for one in asked if "<examples>" in one.messages[0]["content"]]
    assert len(in_context) == len(USERS) * len(NEW)
    for one in in_context:
        shown = one.messages[0]["content"]
        # Answers 1, 2 and 4: the third is a tie, the others are not known yet.
        assert [f"How do I grow plant {p}?" in shown for p in SEEN] == [
            True, True, False, True, False, False,
        ]  # fmt: skip
        first = text["s0/a"].splitlines()[0]
        assert shown.index("Chosen answer:\n> " + first) > 0
    assert not any(profile in str(one.messages) for one in asked for profile in profiles)


def test_who_is_not_known_is_left_out_and_the_base_stands_beside_every_text(
    filled: Bench, simulated: Simulated
) -> None:
    summarized(filled, simulated())
    rows = call(filled, write.STAGE, simulated(), **WRITE).to_pylist()
    assert {row["method"] for row in rows} == set(write.WRITERS)
    own_words = {row["toward_persona_id"] for row in rows if row["method"] == "system_prompt"}
    assert own_words == set(USERS[1:])
    for row in rows:
        assert row["parent_response_id"] == f"{row['prompt_id']}/base"
        assert (row["prompt_tokens"], row["cost_usd"]) == (10, 0.001)


def test_nothing_is_asked_for_by_default(filled: Bench) -> None:
    none = {**TOLD, "also": []}
    inputs = filled.inputs(
        write.SUMMARIZE_STAGE, **RESPONDER, **none, summary_template="summarize_answers"
    )
    assert write.SUMMARIZE_STAGE.n_cells(inputs) == 0
    filled.put("taste_summaries", [])
    assert write.STAGE.n_cells(filled.inputs(write.STAGE, **{**WRITE, "also": []})) == 0


def test_samples_are_further_draws_of_the_base_s_own_request(
    filled: Bench, simulated: Simulated
) -> None:
    asked = asked_by(personalize.POOL_STAGE, filled, simulated(), **POOL)
    rows = filled.rows("pool_responses")
    assert [sum(row["response_role"] == role for row in rows) for role in ("base", "sample")] == [
        len(NEW),
        5 * len(NEW),
    ]
    plain = [one for one in asked if "<draft>" not in str(one.messages)]
    for p in NEW:
        mine = [one for one in plain if f"plant {p}?" in str(one.messages)]
        assert len({str(one.messages) for one in mine}) == 1
        assert [one.repeat for one in mine] == [0, 1, 2, 3, 4, 5]
        assert len({one.key for one in mine}) == 6


def test_every_way_ends_in_the_same_table_with_its_calls_and_a_bound_where_one_holds(
    filled: Bench, simulated: Simulated
) -> None:
    complete = simulated(noise_scale=0.05, position_bias_logit=0.0, off_menu_rate=0.0)
    summarized(filled, complete)
    call(filled, write.STAGE, complete, **WRITE)
    samples = [row for row in filled.rows("pool_responses") if row["response_role"] == "sample"]
    written = filled.rows("personal_responses")
    chosen = [
        ("pref_samples", user, row["prompt_id"], row["response_id"])
        for user in USERS
        for row in samples
        if row["response_id"].endswith("sample-001")
    ]
    chosen += [
        (row["method"], row["toward_persona_id"], row["prompt_id"], row["response_id"])
        for row in written
    ]
    filled.put(
        "selections",
        [
            {
                "persona_id": persona,
                "method": method,
                "n_answers": 4,
                "prompt_id": prompt,
                "response_id": response,
                "base_response_id": f"{prompt}/base",
            }
            for method, persona, prompt, response in chosen
        ],
    )
    call(filled, win.STAGE, complete, **JUDGE)
    none = {"n_identical": 0, "second_judge_model": None, "sample": 0, "seed": 0}
    call(filled, check_win.STAGE, complete, **JUDGE, **none)
    filled.run(win_rates.STAGE, draws=1000, level=0.95, seed=0)
    rates = {row["method"]: row for row in filled.rows("win_rates")}
    assert set(rates) == {"pref_samples", *write.WRITERS}
    assert rates["pref_samples"]["win_rate_bound"] == pytest.approx(5 / 6)
    assert all(rates[one]["win_rate_bound"] is None for one in write.WRITERS)
    n_users, n_new = len(USERS), len(NEW)
    assert rates["pref_samples"]["n_calls"] == 5 * n_new
    assert rates["in_context"]["n_calls"] == n_users * n_new
    assert rates["summary"]["n_calls"] == n_users * n_new + n_users
    assert rates["summary"]["cost_usd"] == pytest.approx(0.001 * (n_users * n_new + n_users))
    assert rates["system_prompt"]["n_users"] == n_users - 1
    # Users who asked for it by name get it, and their judges notice.
    assert rates["system_prompt"]["win_rate_mean"] > 0.6


def test_the_best_sample_wins_no_more_often_than_its_bound(
    filled: Bench, simulated: Simulated
) -> None:
    """The choice is the judge's own best of N, which no learned reward can beat."""
    told, n = SimulatorSettings(), 4
    messages = [
        {"role": "system", "content": "You answer."},
        {"role": "user", "content": "<prompt>How do I grow figs?</prompt>"},
    ]
    wins = []
    for profile in (one.profile for one in PEOPLE):
        for trial in range(60):
            texts = [
                respond(messages, told, request_seed=1000 * trial + one) for one in range(n + 1)
            ]
            values = [utility(text, profile, told) for text in texts]
            gap = max(values[1:]) - values[0]
            wins.append(0.5 * (1 + np.sign(gap)))
    slack = 3 * 0.5 / np.sqrt(len(wins))
    assert best_of_n_bound(n) - 0.15 < np.mean(wins) <= best_of_n_bound(n) + slack
