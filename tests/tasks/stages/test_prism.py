"""PRISM from files to pairs: personas, filters with their counts, revisions with their calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._llm.types import CallReply, CallRequest
from tasks._stages import prism, prism_prompts, revise
from tasks._stages.calls import CallStage, Complete
from tasks._stages.near_duplicates import _jaccard, merged_into, normalized, shingles
from tasks._stages.stage import Stage
from tasks.errors import InputRejected
from tests.conftest import SHARED
from tests.tasks.stages.conftest import Bench, reply_to
from tests.tasks.stages.prism_rows import utterance_rows, write_prism

SAMPLE = SHARED / "data" / "prism"
INGEST: dict[str, Any] = {
    "seed": 0,
    "n_personas": None,
    "keep_merged": False,
    "fill_personas": 0,
    "fill_openings": 0,
    "profile_template": "profile_prism",
}
SIFT: dict[str, Any] = {
    "conversation_types": ["unguided", "values guided", "controversy guided"],
    "min_score_spread": None,
    "duplicate_similarity": 0.8,
}
RATE: dict[str, Any] = {
    "endpoint_name": "test",
    "judge_model": "simulated-judge",
    "template": "rate_controversy",
    "sampling": {},
    "min_rating": None,
}
REVISE: dict[str, Any] = {
    "endpoint_name": "test",
    "responder_model": "simulated-responder",
    "critique_template": "critique_prism",
    "rewrite_template": "rewrite_prism",
    "sampling": {},
    "seed": 0,
}


def table(rows: object) -> pa.Table:
    assert isinstance(rows, pa.Table)
    return rows


def run(bench: Bench, stage: Stage, places: dict[str, str] | None = None, **config: Any) -> None:
    """Builds a stage and commits all it writes, with the warehouse's own checks."""
    inputs = bench.inputs(stage, **config)
    if places:
        plan = inputs.plan.model_copy(update={"places": places})
        inputs = type(inputs)(inputs.warehouse, plan)
    for name, output in stage.build(inputs).items():
        bench.put(name, table(output.rows))


def rows(bench: Bench, name: str) -> list[dict[str, Any]]:
    return list(bench.warehouse.read(name, bench.versions[name]).to_pylist())


def ingest(bench: Bench, folder: Path, **config: Any) -> None:
    run(bench, prism.STAGE, {"prism": str(folder)}, **{**INGEST, **config})


def funnel(bench: Bench, **changes: Any) -> dict[str, tuple[int, int]]:
    """Runs the filters without ratings; filter to (left out, left)."""
    n_prompts = changes.pop("n_prompts", None)
    sift = {**SIFT, **changes}
    run(bench, prism_prompts.SIFT_STAGE, **sift)
    bench.put("prompt_ratings", [])
    run(bench, prism_prompts.CHOOSE_STAGE, **sift, seed=0, min_rating=None, n_prompts=n_prompts)
    found = {
        row["filter"]: (row["n_left_out"], row["n_left"]) for row in rows(bench, "prompt_funnel")
    }
    assert list(found.values())[-1][1] == len(rows(bench, "prompts"))
    return found


def test_personas_have_a_profile_and_their_system_text_and_no_traits(
    bench: Bench, tmp_path: Path
) -> None:
    ingest(bench, write_prism(tmp_path / "prism"))
    personas = {row["persona_id"]: row for row in rows(bench, "personas")}
    assert sorted(personas) == ["u1", "u2", "u3", "u4", "u5", "u6"]
    assert {row["persona_kind"] for row in personas.values()} == {"prism"}
    assert personas["u1"]["system_text"] == "Be brief."
    assert personas["u2"]["system_text"] is None
    assert all(row["trait_1"] is None for row in personas.values())
    assert all("777" not in row["profile_text"] for row in personas.values())
    assert "named u3" in personas["u3"]["profile_text"]


def test_the_sample_s_merged_participants_are_left_out_unless_kept(
    bench: Bench, tmp_path: Path
) -> None:
    if not SAMPLE.is_dir():
        pytest.skip("the sample of PRISM is not beside this checkout")
    ingest(bench, SAMPLE)
    assert len(rows(bench, "personas")) == 212
    assert len(rows(bench, "openings")) == 1072
    ingest(bench, SAMPLE, keep_merged=True)
    assert len(rows(bench, "personas")) == 218
    found = funnel(bench, conversation_types=["controversy guided", "values guided"])
    assert found["is in the data set"] == (0, 1072)
    assert found["has a response"][0] == 54
    # Nothing is scored in the sample, so that scores can leave nothing out.
    assert funnel(bench, min_score_spread=50)["its scores differ"][0] == 0


def test_a_sample_of_personas_is_drawn_by_seed_and_too_many_are_refused(
    bench: Bench, tmp_path: Path
) -> None:
    folder = write_prism(tmp_path / "prism")
    ingest(bench, folder, n_personas=3)
    assert len(rows(bench, "personas")) == 3
    with pytest.raises(InputRejected, match="6 participants have a profile"):
        ingest(bench, folder, n_personas=7)


def test_every_filter_is_counted(bench: Bench, tmp_path: Path) -> None:
    utterances = [row for row in utterance_rows() if row["conversation_id"] != "c5"]
    ingest(bench, write_prism(tmp_path / "prism", utterances=utterances))
    assert funnel(bench) == {
        "is in the data set": (0, 6),
        "has a response": (1, 5),
        "is of a wanted type": (0, 5),
        "its scores differ": (0, 5),
        # The first two prompts differ in case and punctuation alone.
        "is no near-duplicate": (1, 4),
        "has a usable rating": (0, 4),
        "is rated controversial": (0, 4),
        "is in the sample": (0, 4),
    }
    merged = {row["opening_id"]: row["merged_into_id"] for row in rows(bench, "candidates")}
    assert {one: other for one, other in merged.items() if other} == {"c1": "c0"}
    assert funnel(bench, conversation_types=["values guided"])["is of a wanted type"] == (3, 2)
    # Spreads are 70, 60, 50, 40, 30 and, without a response, none.
    assert funnel(bench, min_score_spread=45)["its scores differ"] == (2, 3)
    assert funnel(bench, n_prompts=2)["is in the sample"] == (2, 2)


def test_prompts_without_scores_pass_the_score_filter(bench: Bench, tmp_path: Path) -> None:
    unscored = [{**row, "score": None} for row in utterance_rows()]
    ingest(bench, write_prism(tmp_path / "prism", utterances=unscored))
    assert funnel(bench, min_score_spread=99)["its scores differ"] == (0, 6)


def test_filters_that_leave_too_little_are_refused_in_one_line(
    bench: Bench, tmp_path: Path
) -> None:
    ingest(bench, write_prism(tmp_path / "prism"))
    with pytest.raises(InputRejected, match="5 prompts pass the filters; expected at least 9"):
        funnel(bench, n_prompts=9)


def test_ratings_leave_out_the_tame_and_the_unusable(bench: Bench, tmp_path: Path) -> None:
    ingest(bench, write_prism(tmp_path / "prism"))
    run(bench, prism_prompts.SIFT_STAGE, **SIFT)
    config = {**RATE, "min_rating": 3}
    replies = ["RATING: 5", "rating: **2**", "I cannot say.", "RATING: 3", "RATING: 6"]

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        assert all("<prompt>" in str(call.messages[-1]["content"]) for call in requests)
        return [reply_to(call, text) for call, text in zip(requests, replies, strict=True)]

    inputs = bench.inputs(prism_prompts.RATE_STAGE, **config)
    assert prism_prompts.RATE_STAGE.n_cells(inputs) == 5
    bench.put("prompt_ratings", prism_prompts.rate_cells(inputs, 0, 5, complete))
    told = [(row["rating"], row["unparsed_reason"]) for row in rows(bench, "prompt_ratings")]
    assert told == [("5", None), ("2", None), (None, "no_verdict"), ("3", None), (None, "off_menu")]
    run(bench, prism_prompts.CHOOSE_STAGE, **SIFT, seed=0, min_rating=3, n_prompts=None)
    assert [row["prompt_id"] for row in rows(bench, "prompts")] == ["c0", "c4"]
    counts = {row["filter"]: row["n_left_out"] for row in rows(bench, "prompt_funnel")}
    assert (counts["has a usable rating"], counts["is rated controversial"]) == (2, 1)


def test_without_a_least_rating_nobody_is_asked(bench: Bench, tmp_path: Path) -> None:
    ingest(bench, write_prism(tmp_path / "prism"))
    run(bench, prism_prompts.SIFT_STAGE, **SIFT)
    inputs = bench.inputs(prism_prompts.RATE_STAGE, **RATE)
    assert prism_prompts.RATE_STAGE.n_cells(inputs) == 0


@pytest.fixture
def ready(bench: Bench, tmp_path: Path) -> Bench:
    """Personas and five prompts."""
    ingest(bench, write_prism(tmp_path / "prism"))
    funnel(bench)
    return bench


def test_a_pair_is_a_response_of_the_data_set_and_its_revision_by_two_calls(
    ready: Bench, simulated: Callable[..., Complete]
) -> None:
    asked: list[CallRequest] = []

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        asked.extend(requests)
        return simulated()(requests)

    inputs = ready.inputs(revise.STAGE, **REVISE)
    found = revise.run_cells(inputs, 0, 5, complete)
    by_id = {row["response_id"]: row for row in found.to_pylist()}
    source = {row["response_id"]: row for row in rows(ready, "opening_responses")}
    assert Counter(row["response_role"] for row in by_id.values()) == {
        "base": 5,
        "critique": 5,
        "revision": 5,
    }
    keys = {call.key: call for call in asked}
    for prompt_id in inputs.read("prompts")["prompt_id"].to_pylist():
        base, critique, revision = (
            by_id[f"{prompt_id}/{role}"] for role in ("base", "critique", "revision")
        )
        assert source[base["parent_response_id"]]["opening_id"] == prompt_id
        assert source[base["parent_response_id"]]["response_text"] == base["response_text"]
        assert (base["request_key"], base["response_model"]) == (None, "m1")
        assert critique["parent_response_id"] == base["response_id"]
        assert revision["parent_response_id"] == critique["response_id"]
        user = critique["toward_persona_id"]
        assert revision["toward_persona_id"] == user
        for row, seen in ((critique, base), (revision, critique)):
            text = "".join(str(one["content"]) for one in keys[row["request_key"]].messages)
            assert f"named {user} " in text
            assert seen["response_text"] in text
    pairs = table(revise.make_pairs(inputs, found)["pairs"].rows)
    assert pairs.num_rows == 5
    for pair in pairs.to_pylist():
        sides = {pair["response_a_id"].split("/")[1], pair["response_b_id"].split("/")[1]}
        assert sides == {"base", "revision"}


def test_revisions_do_not_depend_on_how_the_work_is_sharded(
    ready: Bench, simulated: Callable[..., Complete]
) -> None:
    inputs = ready.inputs(revise.STAGE, **REVISE)
    whole = revise.run_cells(inputs, 0, 5, simulated())
    parts = [revise.run_cells(inputs, n, n + 1, simulated()) for n in range(5)]
    assert pa.concat_tables(parts) == whole


def test_no_critique_no_rewrite_and_no_change_no_pair(ready: Bench) -> None:
    inputs = ready.inputs(revise.STAGE, **REVISE)
    base = {row["prompt_id"]: row["response_text"] for row in revise.base_rows(inputs, ["c2"])}

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        if "<critique>" in str(requests[0].messages[-1]["content"]):
            texts: list[str | None] = [base["c2"], "another", None, "one more"]
        else:
            texts = [None, "a point", "a point", "a point", "a point"]
        return [reply_to(call, text) for call, text in zip(requests, texts, strict=True)]

    found = revise.run_cells(inputs, 0, 5, complete)
    assert found.num_rows == 5 + 5 + 4
    pairs = table(revise.make_pairs(inputs, found)["pairs"].rows)
    assert pairs["pair_id"].to_pylist() == ["c3", "c5"]


def test_users_and_sides_are_drawn_evenly_and_one_user_more_takes_only_a_share() -> None:
    users, prompts = [f"u{n}" for n in range(10)], [f"c{n}" for n in range(2000)]
    drawn = revise.draw_users(0, users, prompts)
    counts = Counter(drawn.values())
    # 200 each, standard deviation 13.
    assert max(abs(counts[one] - 200) for one in users) < 60
    more = revise.draw_users(0, [*users, "new"], prompts)
    assert {more[one] for one in prompts if more[one] != drawn[one]} == {"new"}


def test_which_side_is_a_is_a_fair_coin(ready: Bench) -> None:
    inputs = ready.inputs(revise.STAGE, **REVISE)
    texts = [
        {"prompt_id": f"c{number:04d}", "response_role": role, "response_text": role}
        for number in range(2000)
        for role in ("base", "revision")
    ]
    pairs = table(revise.make_pairs(inputs, pa.Table.from_pylist(texts))["pairs"].rows)
    first = sum(one.endswith("base") for one in pairs["response_a_id"].to_pylist())
    # 1000 expected, standard deviation 22.
    assert abs(first - 1000) < 100


TEXTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.text("ab c?", max_size=10), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_merging_equals_the_obvious_comparison_of_all_with_all(
    texts: dict[str, str], threshold: float
) -> None:
    sets = {one: shingles(normalized(texts[one])) for one in sorted(texts)}
    kept: list[str] = []
    expected = {}
    for one in sets:
        near = [other for other in kept if _jaccard(sets[one], sets[other]) >= threshold]
        if near:
            expected[one] = near[0]
        else:
            kept.append(one)
    assert merged_into(texts, threshold) == expected


def test_case_punctuation_width_and_spacing_are_no_difference() -> None:
    texts = {"a": "What is  LIFE?", "b": "what is life", "c": "Ｗｈａｔ is life!", "d": "Why?"}
    assert merged_into(texts, 0.9) == {"b": "a", "c": "a"}
    assert merged_into({"a": "?", "b": "!"}, 0.9) == {}


def test_call_stages_declare_what_they_are(ready: Bench) -> None:
    stage: CallStage = revise.STAGE
    inputs = ready.inputs(stage, **REVISE)
    assert stage.calls_per_cell(inputs) == 2
    assert stage.templates(inputs) == ("critique_prism", "rewrite_prism")
