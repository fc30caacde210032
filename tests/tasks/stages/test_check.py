"""Questions that check the judge: which are asked, and what their answers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prompts.profiles import prism_profile
from tasks._llm.types import CallReply, CallRequest
from tasks._stages import assemble, check, design, judge, judge_checks
from tasks._stages.calls import Complete
from tasks._stages.check_cells import CONTROLS, HUMAN, SECOND_JUDGE, check_cells
from tests.tasks.stages.conftest import Bench

Simulated = Callable[..., Complete]
PERSONAS = [f"u{n:02d}" for n in range(24)]
PROMPTS = [f"p{n:02d}" for n in range(20)]
TONES = (
    "Thank you so much, please, kindly, of course.",
    "Whatever. Figure it out, dude.",
    "Certainly, without doubt, this is definitely so.",
    "Perhaps, maybe, I could be wrong about that.",
    "This is amazing! What a wonderful thing! Wow!",
)
JUDGE = {
    "endpoint_name": "simulator",
    "judge_model": "simulated-judge",
    "template": "judge_prism",
    "template_sha256": "x",
    "sampling": {"temperature": 0.0},
    "repeats": 1,
    "is_soft": False,
}
CHECK = {
    **JUDGE,
    "control_share": 0.0,
    "second_judge_model": None,
    "sample": 200,
    "human_sample": 0,
    "human_template": "judge_prism_certain",
    "seed": 0,
}
FIT = {"d": 2, "head_l2": [1.0], "steps": 40}


def fill(bench: Bench, prompts: list[str] = PROMPTS) -> None:
    """Everything that a check reads, as a run would have left it."""
    profiles = [prism_profile({"age": f"{n} years", "gender": "x"}) for n in range(len(PERSONAS))]
    bench.put(
        "personas",
        [
            {"persona_id": one, "persona_kind": "prism", "profile_text": profile}
            for one, profile in zip(PERSONAS, profiles, strict=True)
        ],
    )
    bench.put(
        "prompts",
        [{"prompt_id": one, "prompt_text": f"On {one}?", "prompt_source": "t"} for one in prompts],
    )
    texts = {}
    for one in prompts:
        number = int(one[1:])
        texts[f"{one}/a"] = f"On {one}. {TONES[number % 5]}"
        texts[f"{one}/b"] = f"On {one}. {TONES[(number // 5 + number + 1) % 5]}" + " So." * number
    bench.put(
        "responses",
        [
            {
                "response_id": one,
                "prompt_id": one.split("/")[0],
                "response_role": f"pair_{one[-1]}",
                "response_text": text,
            }
            for one, text in texts.items()
        ],
    )
    bench.put(
        "pairs",
        [
            {
                "pair_id": one,
                "prompt_id": one,
                "response_a_id": f"{one}/a",
                "response_b_id": f"{one}/b",
            }
            for one in prompts
        ],
    )
    config = {"personas_per_pair": 12, "is_balanced": True, "seed": 0}
    bench.put("design", design.build(bench.inputs(design.STAGE, **config))["design"].rows)


@pytest.fixture
def ready(bench: Bench) -> Bench:
    fill(bench)
    return bench


def judged(bench: Bench, complete: Complete) -> None:
    inputs = bench.inputs(judge.STAGE, **JUDGE)
    bench.put("judgments", judge.run_cells(inputs, 0, judge.STAGE.n_cells(inputs), complete))


def checked(bench: Bench, complete: Complete, **config: Any) -> dict[tuple[str, str], Any]:
    inputs = bench.inputs(check.STAGE, **{**CHECK, **config})
    rows = check.run_cells(inputs, 0, check.STAGE.n_cells(inputs), complete)
    bench.put("check_judgments", rows)
    rng = np.random.default_rng(0)
    ids = [f"{one}/{side}" for one in PROMPTS for side in "ab"]
    bench.put(
        "embeddings",
        [{"response_id": one, "embedding": rng.normal(size=6).tolist()} for one in ids],
    )
    told = judge_checks.build(bench.inputs(judge_checks.STAGE, fit=FIT, seed=0))
    found = told["judge_checks"].rows.to_pylist()
    return {(row["check_kind"], row["slice_id"]): row for row in found}


def test_nothing_is_asked_unless_it_is_wanted(ready: Bench, simulated: Simulated) -> None:
    judged(ready, simulated())
    assert check.STAGE.n_cells(ready.inputs(check.STAGE, **CHECK)) == 0
    assert checked(ready, simulated()) == {}


def test_the_share_of_controls_is_the_share_asked_for_and_kinds_are_even(ready: Bench) -> None:
    n_cells = ready.inputs(check.STAGE, **CHECK).read("design").num_rows
    cells = check_cells(ready.inputs(check.STAGE, **{**CHECK, "control_share": 0.5}))
    assert 0.4 < len(cells) / n_cells < 0.6
    for kind in CONTROLS:
        assert 0.15 < sum(one.kind == kind for one in cells) / len(cells) < 0.35
    everything = check_cells(ready.inputs(check.STAGE, **{**CHECK, "control_share": 1.0}))
    assert len(everything) == n_cells
    assert set(cells) <= set(everything)


def test_an_appended_prompt_moves_hardly_any_control(bench: Bench, ready: Bench) -> None:
    before = set(check_cells(ready.inputs(check.STAGE, **{**CHECK, "control_share": 0.5})))
    fill(bench, [*PROMPTS, "p20"])
    after = set(check_cells(bench.inputs(check.STAGE, **{**CHECK, "control_share": 0.5})))
    moved = {one for one in before ^ after if one.item_id != "p20"}
    # Evening out the loads moves a few cells of the design, and their controls with them.
    assert len(moved) < 0.1 * len(before)


def test_controls_ask_what_they_are_named_for(ready: Bench) -> None:
    asked: list[CallRequest] = []

    def complete(requests: Any) -> list[CallReply]:
        asked.extend(requests)
        raise StopIteration

    inputs = ready.inputs(check.STAGE, **{**CHECK, "control_share": 1.0})
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    cells = check_cells(inputs)
    for kind in CONTROLS:
        number = next(n for n, one in enumerate(cells) if one.kind == kind)
        asked.clear()
        with pytest.raises(StopIteration):
            check.run_cells(inputs, number, number + 1, complete)
        text = "".join(str(one.messages) for one in asked)
        persona = cells[number].persona_id
        is_shown = repr(profile[persona])[1:-1] in text
        assert is_shown == (kind in ("repeat", "identical"))
        assert (check.NOBODY in text) == (kind == "null_persona")
        assert len(asked) == (1 if kind == "identical" else 2)
        assert {one.repeat for one in asked} == {1 if kind == "repeat" else 0}


def test_checks_recover_what_the_simulated_judge_is(ready: Bench, simulated: Simulated) -> None:
    complete = simulated(noise_scale=0.15, position_bias_logit=0.5)
    judged(ready, complete)
    found = checked(ready, complete, control_share=1.0)
    # The persona matters: the judge agrees with itself far more than with what others would say.
    again, swapped = found["repeat", "all"], found["swapped_persona", "all"]
    assert again["agreement_low"] > swapped["agreement_high"]
    assert again["agreement_share"] > found["null_persona", "all"]["agreement_share"]
    # Two equal texts: the position alone decides, by the bias that was set.
    equal = found["identical", "all"]
    assert equal["first_share_low"] < 1 / (1 + np.exp(-0.5)) < equal["first_share_high"]
    assert equal["n_compared"] == 0
    assert equal["agreement_share"] is None


def test_controls_change_neither_design_nor_preferences(ready: Bench, simulated: Simulated) -> None:
    judged(ready, simulated())
    plain = ready.inputs(assemble.STAGE).plan
    preferences = assemble.build(ready.inputs(assemble.STAGE))["preferences"].rows
    checked(ready, simulated(), control_share=1.0, second_judge_model="simulated-judge-b")
    assert "check_judgments" not in assemble.STAGE.reads
    assert ready.inputs(assemble.STAGE).plan.version == plain.version
    assert assemble.build(ready.inputs(assemble.STAGE))["preferences"].rows.equals(preferences)


def test_a_second_judge_answers_a_sample_of_every_gap_of_length(
    ready: Bench, simulated: Simulated
) -> None:
    judged(ready, simulated())
    found = checked(ready, simulated(), second_judge_model="simulated-judge-b", sample=160)
    row = found[SECOND_JUDGE, "all"]
    rows = ready.warehouse.read("check_judgments", ready.versions["check_judgments"]).to_pylist()
    assert {one["judge_model"] for one in rows} == {"simulated-judge-b"}
    assert row["n_judgments"] == 2 * len(
        check_cells(
            ready.inputs(
                check.STAGE,
                **{**CHECK, "second_judge_model": "simulated-judge-b", "sample": 160},
            )
        )
    )
    assert 0.5 < row["agreement_low"] < row["agreement_share"] < 1.0
    assert 0.0 < row["kappa"] < 1.0
    # With few missing and even margins, alpha is close to kappa.
    assert row["alpha"] == pytest.approx(row["kappa"], abs=0.05)
    assert -1.0 <= row["margin_correlation"] <= 1.0
    assert 0.0 <= row["subspace_cosine"] <= 1.0


def test_the_same_model_as_second_judge_agrees_wholly(ready: Bench, simulated: Simulated) -> None:
    judged(ready, simulated())
    found = checked(ready, simulated(), second_judge_model="simulated-judge", sample=100)
    row = found[SECOND_JUDGE, "all"]
    assert (row["agreement_share"], row["kappa"], row["alpha"]) == (1.0, 1.0, 1.0)
    assert row["margin_correlation"] == pytest.approx(1.0)


def test_human_choices_are_judged_with_certainty_and_come_by_its_bands(
    ready: Bench, simulated: Simulated
) -> None:
    bench = ready
    openings = [
        {
            "opening_id": f"c{n}",
            "author_id": PERSONAS[n % len(PERSONAS)],
            "conversation_type": "unguided",
            "prompt_text": f"What of {n}?",
            "is_generated": False,
        }
        for n in range(40)
    ]
    bench.put("openings", openings)
    bench.put(
        "opening_responses",
        [
            {
                "response_id": f"c{n}-{place}",
                "opening_id": f"c{n}",
                "response_text": TONES[(n + place) % 5],
                "is_chosen": place == 0,
                "is_generated": False,
            }
            for n in range(40)
            for place in range(2)
        ],
    )
    config = {**CHECK, "human_sample": 30}
    inputs = bench.inputs(check.PRISM_STAGE, **config)
    cells = check_cells(inputs)
    assert len(cells) == 30
    assert {one.kind for one in cells} == {HUMAN}
    judged(bench, simulated())
    bench.put("check_judgments", check.run_cells(inputs, 0, 30, simulated()))
    bench.put("embeddings", [{"response_id": "p00/a", "embedding": [1.0]}])
    told = judge_checks.build(bench.inputs(judge_checks.STAGE, fit=FIT, seed=0))
    rows = {row["slice_id"]: row for row in told["judge_checks"].rows.to_pylist()}
    bands = [row for name, row in rows.items() if name != "all"]
    assert len(bands) >= 2
    assert sum(row["n_judgments"] for row in bands) == rows["all"]["n_judgments"] == 60
    # Without PRISM's files there are no human choices to ask about.
    assert check_cells(bench.inputs(check.STAGE, **config)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CERTAINTY: 80\nVERDICT: 1", 80.0),
        ("certainty: 5.\nVERDICT: 2", 5.0),
        ("CERTAINTY: 101\nVERDICT: 2", None),
        ("VERDICT: 2", None),
        (None, None),
    ],
)
def test_certainty_is_read_where_it_is_a_whole_number_in_range(
    text: str | None, said: float | None
) -> None:
    assert check.read_certainty(text) == said


def test_shards_do_not_change_what_is_asked(ready: Bench, simulated: Simulated) -> None:
    inputs = ready.inputs(check.STAGE, **{**CHECK, "control_share": 0.3})
    n_cells = check.STAGE.n_cells(inputs)
    whole = check.run_cells(inputs, 0, n_cells, simulated()).to_pylist()
    parts = [
        row
        for start in range(0, n_cells, 7)
        for row in check.run_cells(inputs, start, min(start + 7, n_cells), simulated()).to_pylist()
    ]
    assert parts == whole
