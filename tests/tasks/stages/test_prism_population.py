"""The generated population: marked, reproducible, and in PRISM's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prompts.profiles import prism_profile
from tasks._stages import prism
from tasks._stages.configs import stage_configs, stage_places
from tasks._stages.near_duplicates import merged_into
from tasks._stages.prism_files import PrismData, read_prism
from tasks._stages.prism_population import filled, is_generated
from tasks.config import PrismConfig, PrismIngestConfig
from tasks.errors import InputRejected
from tests.conftest import SHARED
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.prism_rows import write_prism

EMPTY = PrismData([], [], [])
CODEBOOK = SHARED / "data" / "prism" / "codebook.json"


def ingest(bench: Bench, folder: Path | None, **more: Any) -> dict[str, list[dict[str, Any]]]:
    config = {
        "profile_template": "profile_prism",
        "keep_merged": False,
        "n_personas": None,
        "fill_personas": 9,
        "fill_openings": 8,
        "seed": 0,
        **more,
    }
    inputs = bench.inputs(prism.STAGE, **config)
    places = {"prism": str(folder)} if folder else {}
    plan = inputs.plan.model_copy(update={"places": places})
    found = prism.build(type(inputs)(inputs.warehouse, plan))
    for name, output in found.items():
        bench.put(name, output.rows)  # the warehouse checks types, keys and references
    return {name: output.rows.to_pylist() for name, output in found.items()}


def test_what_is_lacking_is_filled_and_every_made_up_row_says_so(
    bench: Bench, tmp_path: Path
) -> None:
    found = ingest(bench, write_prism(tmp_path / "prism"))
    kinds = [row["persona_kind"] for row in found["personas"]]
    assert (kinds.count("prism"), kinds.count("generated")) == (6, 3)
    marks = [row["is_generated"] for row in found["openings"]]
    assert (marks.count(False), marks.count(True)) == (6, 2)
    for row in found["opening_responses"]:
        assert row["is_generated"] == row["opening_id"].startswith("gen-")


def test_nothing_is_made_up_unless_it_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    found = ingest(bench, write_prism(tmp_path / "prism"), fill_personas=0, fill_openings=6)
    assert len(found["personas"]) == 6
    assert not any(row["is_generated"] for row in found["openings"])


def test_a_population_can_do_without_prism(bench: Bench) -> None:
    found = ingest(bench, None)
    assert len(found["personas"]) == 9
    assert len(found["openings"]) == 8
    assert len({row["profile_text"] for row in found["personas"]}) == 9


def test_asking_for_more_changes_no_row(tmp_path: Path) -> None:
    few, many = filled(EMPTY, 1, 20, 20), filled(EMPTY, 1, 50, 20)
    assert many.survey[:20] == few.survey
    real = read_prism(write_prism(tmp_path / "prism"))
    assert filled(real, 1, 20, 20).survey[6:] == few.survey[:14]
    assert filled(EMPTY, 2, 20, 20).survey != few.survey


def test_made_up_openings_differ_enough_to_be_prompts() -> None:
    found = filled(EMPTY, 0, 30, 300)
    assert len(merged_into({one.conversation_id: one.prompt for one in found.openings}, 0.8)) < 15
    assert {one.conversation_type for one in found.openings} == {
        "unguided",
        "values guided",
        "controversy guided",
    }


def test_made_up_answers_are_values_of_prisms_own_schema() -> None:
    if not CODEBOOK.is_file():
        pytest.skip("the codebook of PRISM is not beside this checkout")
    entries = {one["variable_name"]: one for one in json.loads(CODEBOOK.read_text())["survey"]}
    for row in filled(EMPTY, 0, 200, 0).survey:
        assert is_generated(row["user_id"])
        assert prism_profile(row)
        for name in ("lm_familiarity", "age", "education", "gender", "marital_status"):
            assert row[name] in entries[name]["values"], name
        sliders = {
            one["variable_name"] for one in entries["stated_prefs"]["values"]["nested_values"]
        }
        assert set(row["stated_prefs"]) - {"other", "other_text"} <= sliders


def test_without_data_and_without_leave_to_make_it_up_the_request_is_wrong() -> None:
    with pytest.raises(InputRejected, match="fill_personas"):
        stage_configs(PrismConfig(), {"encoder_id": "x"})
    config = PrismConfig(ingest=PrismIngestConfig(fill_personas=5, fill_openings=5))
    assert stage_places(config) == {}
    assert "survey_sha256" not in stage_configs(config, {"encoder_id": "x"})["prism"]
