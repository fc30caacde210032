"""Only what changed is asked again: plans say what it is, and runs make just those calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from prompts import catalog
from tasks import planning
from tasks._engines import close_engines
from tasks._runs import RunIds, gather, manifests_of, plan_stage, run_shard, run_stage, warehouse_at
from tasks._stages import configs
from tasks._stages.calls import CallStage, n_shards
from tasks._stages.stage import Inputs
from tasks.chain import call_plan
from tasks.changes import StageChange
from tasks.config import PrismConfig
from tests.tasks.stages.prism_rows import write_prism
from warehouse.diff import diff

N_USERS, N_PROMPTS, PER_PAIR = 10, 8, 5
SUBJECTS = (
    "bees on a balcony", "cars in old towns", "homework for children", "a name for a boat",
    "eating meat", "the price of bread", "singing in tune", "sleep in summer", "flags at sea",
)  # fmt: skip
# The stages up to the verdicts; what comes after makes no matrix.
CHAIN = planning.PRISM_STAGES[: [one.name for one in planning.PRISM_STAGES].index("judge") + 1]


def prism(folder: Path, n_prompts: int = N_PROMPTS, *, edited: bool = False) -> Path:
    """PRISM's files with a few users; one tells another age if ``edited``."""
    survey = [
        {"user_id": f"u{n}", "age": "65+" if edited and n == 3 else "25-34", "education": f"E{n}"}
        for n in range(N_USERS)
    ]
    conversations = [
        {
            "conversation_id": f"c{n}",
            "user_id": f"u{n % N_USERS}",
            "conversation_type": "unguided",
            "opening_prompt": f"What do you say about {SUBJECTS[n]}?",
        }
        for n in range(n_prompts)
    ]
    utterances = [
        {
            "utterance_id": f"t{n}{place}",
            "conversation_id": f"c{n}",
            "turn": 0,
            "user_prompt": "",
            "model_response": f"Answer {place}. Much is said about {SUBJECTS[n]} these days.",
        }
        for n in range(n_prompts)
        for place in range(2)
    ]
    return write_prism(folder, survey=survey, conversations=conversations, utterances=utterances)


def config_of(tmp_path: Path, folder: Path, **changes: Any) -> PrismConfig:
    raw: dict[str, Any] = {
        "warehouse": str(tmp_path / "data"),
        "ingest": {"prism": str(folder)},
        "design": {"personas_per_pair": PER_PAIR},
        "fit": {"d": 2},
        "calls": {"shard_size": 20},
        **changes,
    }
    return PrismConfig.model_validate(raw)


@pytest.fixture(autouse=True)
def engines() -> Iterator[None]:
    yield
    close_engines()


def run(config: PrismConfig) -> dict[str, Any]:
    """Runs the chain up to the verdicts as tasks do; the count of every stage's calls."""
    stage_configs = configs.stage_configs(config, {"encoder_id": "none"})
    calls, versions = call_plan(config), dict[str, str]()
    counts: dict[str, Any] = {}
    for stage in CHAIN:
        plan = plan_stage(
            stage, config.warehouse, stage_configs[stage.name], versions,
            configs.stage_places(config),
        )  # fmt: skip
        if isinstance(stage, CallStage):
            if not manifests_of(plan, stage):
                inputs = Inputs(warehouse_at(config.warehouse), plan)
                for index in range(n_shards(stage, inputs, config.calls.shard_size)):
                    run_shard(plan, calls, stage, index)
            gather(plan, calls, stage, RunIds("test", None))
            counts[stage.name] = manifests_of(plan, stage)[0].calls
        else:
            run_stage(plan, stage, RunIds("test", None))
        versions |= dict.fromkeys(stage.writes, plan.version)
    counts["versions"] = versions
    return counts


def planned(config: PrismConfig) -> tuple[dict[str, Any], dict[str, StageChange]]:
    """What a plan says: costs and changes by stage."""
    found = planning.plan_run(config)
    return {one.stage: one for one in found.costs}, {one.stage: one for one in found.changes}


def test_nothing_changed_is_nothing_to_ask(tmp_path: Path) -> None:
    config = config_of(tmp_path, prism(tmp_path / "p"))
    first = run(config)
    assert first["judge"].made == 2 * PER_PAIR * N_PROMPTS
    costs, changes = planned(config)
    assert [costs[name].calls for name in ("rate", "revise", "judge")] == [0, 0, 0]
    assert all(changes[stage.name].is_same for stage in CHAIN)


def test_an_appended_prompt_costs_that_prompt_s_calls(tmp_path: Path) -> None:
    first = run(config_of(tmp_path, prism(tmp_path / "p")))
    config = config_of(tmp_path, prism(tmp_path / "more", N_PROMPTS + 1))
    costs, changes = planned(config)
    assert (costs["revise"].calls, costs["revise"].held) == (2, 2 * N_PROMPTS)
    assert changes["revise"].n_cells == 1
    assert changes["revise"].cells == ["c8"]
    # Its own cells, and those few that evening out the loads gives to somebody else.
    moved = costs["judge"].calls - 2 * PER_PAIR
    assert 0 <= moved <= 2 * PER_PAIR
    assert costs["judge"].calls == 2 * changes["judge"].n_cells
    assert not costs["judge"].is_exact
    done = run(config)
    assert done["revise"].made == costs["revise"].calls
    assert done["judge"].made == costs["judge"].calls
    assert done["judge"].reused == 2 * PER_PAIR * (N_PROMPTS + 1) - costs["judge"].calls
    found = diff(
        warehouse_at(config.warehouse),
        "judgments",
        first["versions"]["judgments"],
        done["versions"]["judgments"],
    )
    assert found.n_changed == 0
    assert found.n_added == 2 * PER_PAIR + found.n_removed


def test_without_evening_out_an_appended_prompt_costs_nothing_else(tmp_path: Path) -> None:
    design = {"personas_per_pair": PER_PAIR, "is_balanced": False}
    run(config_of(tmp_path, prism(tmp_path / "p"), design=design))
    config = config_of(tmp_path, prism(tmp_path / "more", N_PROMPTS + 1), design=design)
    costs, changes = planned(config)
    assert (costs["revise"].calls, costs["judge"].calls) == (2, 2 * PER_PAIR)
    assert all(one.endswith("/c8") for one in changes["judge"].cells)
    assert run(config)["judge"].made == 2 * PER_PAIR


def test_an_edited_persona_is_asked_again_and_nobody_else(tmp_path: Path) -> None:
    before = run(config_of(tmp_path, prism(tmp_path / "p")))
    config = config_of(tmp_path, prism(tmp_path / "edited", edited=True))
    costs, changes = planned(config)
    store = warehouse_at(config.warehouse)
    responses = store.read("responses", before["versions"]["responses"]).to_pylist()
    toward = {row["prompt_id"] for row in responses if row["toward_persona_id"] == "u3"}
    assert costs["revise"].calls == 2 * len(toward)
    cells = store.read("design", before["versions"]["design"]).to_pylist()
    asked = [one for one in cells if one["persona_id"] == "u3" or one["pair_id"] in toward]
    assert costs["judge"].calls == 2 * len(asked)
    assert changes["prism"].causes[0][0] == "config survey_sha256"
    done = run(config)
    assert (done["revise"].made, done["judge"].made) == (
        costs["revise"].calls,
        costs["judge"].calls,
    )


def test_another_judge_is_asked_everything_and_nothing_is_written_again(tmp_path: Path) -> None:
    run(config_of(tmp_path, prism(tmp_path / "p")))
    llm = {"judge_model": "simulated-judge-b"}
    config = config_of(tmp_path, tmp_path / "p", llm=llm)
    costs, changes = planned(config)
    assert costs["revise"].calls == 0
    assert (costs["judge"].calls, costs["judge"].held) == (2 * PER_PAIR * N_PROMPTS, 0)
    assert costs["judge"].is_exact
    # The model also rates prompts, so stages after the rating get new names, and the same rows.
    assert changes["revise"].n_cells == 0
    told = ("config judge_model", "simulated-judge", "simulated-judge-b")
    assert told in changes["judge"].causes
    assert run(config)["judge"].made == costs["judge"].calls


def test_an_edited_template_shows_its_text_and_asks_what_it_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(config_of(tmp_path, prism(tmp_path / "p")))
    edited = tmp_path / "judge_prism"
    edited.mkdir()
    for name in catalog.FILE_NAMES:
        text = (Path(catalog.__file__).parent / "templates" / "judge_prism" / name).read_text()
        if name == "system.txt":
            text = text.replace("You must choose", "You have to choose")
        (edited / name).write_text(text)
    shipped = catalog.load_template

    @cache
    def load(name: str) -> catalog.Template:
        return catalog.load_template_folder(edited) if name == "judge_prism" else shipped(name)

    for name in ("tasks._stages.configs", "tasks._stages.judge", "tasks._runs", "tasks.changes"):
        monkeypatch.setattr(f"{name}.load_template", load)
    config = config_of(tmp_path, tmp_path / "p")
    costs, changes = planned(config)
    assert costs["revise"].calls == 0
    assert costs["judge"].calls == 2 * PER_PAIR * N_PROMPTS
    assert [name for name, *_ in changes["judge"].causes] == ["config template_sha256"]
    told = changes["judge"].templates
    assert sum(one.startswith("-") and "You must choose" in one for one in told) == 1
    assert sum(one.startswith("+") and "You have to choose" in one for one in told) == 1
    done = run(config)
    assert done["judge"].made == costs["judge"].calls
    found = diff(
        warehouse_at(config.warehouse),
        "judgments",
        before["versions"]["judgments"],
        done["versions"]["judgments"],
    )
    assert found.templates == told
    assert found.n_changed == 2 * PER_PAIR * N_PROMPTS
    assert json.dumps(found._asdict())


def test_an_empty_warehouse_has_no_current_version_to_change(tmp_path: Path) -> None:
    _, changes = planned(config_of(tmp_path, prism(tmp_path / "p")))
    assert all(one.current is None and not one.causes for one in changes.values())
