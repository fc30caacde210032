from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.traits import attribute_of, opposite
from tasks._llm.simulator.judge import judge_truth
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallReply, CallRequest
from tasks._stages import judge, respond
from tasks._stages.assemble import audit
from tasks._stages.calls import Complete
from tests.tasks.stages.conftest import Bench, reply_to

ENDPOINT = {"endpoint_name": "test"}
RESPOND = {
    **ENDPOINT,
    "template": "respond_attributes",
    "responder_model": "simulated-responder",
    "sampling": {},
    "seed": 0,
}
JUDGE = {
    **ENDPOINT,
    "template": "judge_attributes",
    "judge_model": "simulated-judge",
    "sampling": {},
    "repeats": 1,
    "is_soft": False,
}
PROMPTS = [
    {"prompt_id": f"q{n:02d}", "prompt_text": f"How do I grow {what}?", "prompt_source": "test"}
    for n, what in enumerate(["mint", "roses", "beans", "figs", "kale", "hops", "leeks", "peas"])
]


@pytest.mark.parametrize("seed", range(3))
def test_the_two_styles_of_a_prompt_contrast(seed: int) -> None:
    for number in range(200):
        a, b = respond.draw_styles(seed, f"p{number}")
        assert not set(a) & set(b)
        assert {opposite(one) for one in a} & set(b)


def test_every_trait_is_drawn_about_equally_often_on_both_sides() -> None:
    drawn = [respond.draw_styles(0, f"p{number}") for number in range(3000)]
    for side in (0, 1):
        counts: dict[str, int] = {}
        for styles in drawn:
            for trait in styles[side]:
                counts[trait] = counts.get(trait, 0) + 1
        # 6000 traits over 14 kinds: 429 each, standard deviation about 20.
        assert len(counts) == 14
        assert max(abs(count - 6000 / 14) for count in counts.values()) < 110


def test_responses_do_not_depend_on_how_the_work_is_sharded(
    bench: Bench, simulated: Callable[..., Complete]
) -> None:
    bench.put("prompts", PROMPTS)
    inputs = bench.inputs(respond.STAGE, **RESPOND)
    whole = respond.run_cells(inputs, 0, len(PROMPTS), simulated())
    parts = [respond.run_cells(inputs, n, n + 1, simulated()) for n in range(len(PROMPTS))]
    assert pa.concat_tables(parts) == whole


def test_a_prompt_whose_model_wrote_nothing_has_a_response_row_but_no_pair(bench: Bench) -> None:
    bench.put("prompts", PROMPTS[:2])
    inputs = bench.inputs(respond.STAGE, **RESPOND)

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        texts = ["a text", None, "a text", "another"]
        return [reply_to(call, text) for call, text in zip(requests, texts, strict=True)]

    rows = respond.run_cells(inputs, 0, 2, complete)
    pairs = respond.make_pairs(inputs, rows)["pairs"].rows
    assert isinstance(pairs, pa.Table)
    assert rows.num_rows == 4
    assert pairs["prompt_id"].to_pylist() == ["q01"]


@pytest.fixture
def judged(bench: Bench, simulated: Callable[..., Complete]) -> Callable[..., tuple[Any, Any]]:
    """Judges all prompts by some personas with the simulator; gives judgments and requests."""

    def run(n_personas: int, **settings: Any) -> tuple[pa.Table, list[CallRequest]]:
        complete = simulated(**settings)
        bench.put("prompts", PROMPTS)
        personas = attribute_personas()[:n_personas]
        bench.put(
            "personas",
            [
                {
                    "persona_id": one.persona_id,
                    "persona_kind": "attributes",
                    "trait_1": one.traits[0],
                    "trait_2": one.traits[1],
                    "profile_text": one.profile,
                }
                for one in sorted(personas)
            ],
        )
        inputs = bench.inputs(respond.STAGE, **RESPOND)
        responses = respond.run_cells(inputs, 0, len(PROMPTS), complete)
        bench.put("responses", responses)
        pairs = respond.make_pairs(inputs, responses)["pairs"].rows
        assert isinstance(pairs, pa.Table)
        bench.put("pairs", pairs)
        cells = sorted(
            (one.persona_id, pair) for one in personas for pair in pairs["pair_id"].to_pylist()
        )
        bench.put("design", [{"persona_id": one, "pair_id": pair} for one, pair in cells])
        asked: list[CallRequest] = []

        def watching(requests: Sequence[CallRequest]) -> list[CallReply]:
            asked.extend(requests)
            return complete(requests)

        inputs = bench.inputs(judge.STAGE, **JUDGE)
        return judge.run_cells(inputs, 0, len(cells), watching), asked

    return run


def test_both_orders_of_a_cell_show_the_same_texts_swapped(
    judged: Callable[..., tuple[pa.Table, list[CallRequest]]],
) -> None:
    rows, asked = judged(2)
    assert rows["presentation_order"].to_pylist() == ["ab", "ba"] * (rows.num_rows // 2)
    text = load_template("judge_attributes").user_text
    assert "response_1" in text
    for first, second in zip(asked[::2], asked[1::2], strict=True):
        shown, swapped = (str(call.messages[-1]["content"]) for call in (first, second))
        one, two = (shown.split(f"<response_{n}>")[1].split("</response")[0] for n in (1, 2))
        assert one in swapped.split("<response_2>")[1]
        assert two in swapped.split("<response_1>")[1].split("</response")[0]


def test_the_audit_recovers_what_the_simulator_is_known_to_do(
    judged: Callable[..., tuple[pa.Table, list[CallRequest]]],
) -> None:
    settings = {"position_bias_logit": 0.6, "sloppy_rate": 0.1, "off_menu_rate": 0.05, "seed": 3}
    rows, asked = judged(84, **settings)
    told = SimulatorSettings(**settings)  # type: ignore[arg-type]
    forms = [judge_truth(list(call.messages), told).form for call in asked]
    overall = audit(rows).to_pylist()[0]
    # Forms are counted exactly; the bias lies within its interval.
    assert overall["n_unparsed"] == forms.count("off_menu")
    assert overall["n_tolerated"] == forms.count("sloppy")
    assert overall["n_exact"] == forms.count("exact")
    assert overall["position_bias_low_logit"] < 0.6 < overall["position_bias_high_logit"]
    assert overall["first_share_low"] > 0.5


def test_a_verdict_is_traced_to_its_request_and_keeps_its_raw_reply(
    judged: Callable[..., tuple[pa.Table, list[CallRequest]]],
) -> None:
    rows, asked = judged(2)
    assert rows["request_key"].to_pylist() == [call.key for call in asked]
    told = SimulatorSettings()
    truths = [judge_truth(list(call.messages), told).reply for call in asked]
    assert [text or "" for text in rows["reply_text"].to_pylist()] == truths


def test_a_filtered_reply_says_so(bench: Bench) -> None:
    inputs = bench.inputs(judge.STAGE.__class__(**{**judge.STAGE.__dict__, "reads": ()}), **JUDGE)
    call = CallRequest("test", "m", [{"role": "user", "content": "x"}])
    reading = judge.read_reply(inputs, reply_to(call, None, "content_filter"), "ab")
    assert reading.unparsed_reason == "content_filter"
    cut = judge.read_reply(inputs, reply_to(call, "I think", "length"), "ab")
    assert cut.unparsed_reason == "truncated"


def test_traits_of_a_style_never_share_an_attribute() -> None:
    for persona in attribute_personas():
        assert len({attribute_of(one).name for one in persona.traits}) == 2
