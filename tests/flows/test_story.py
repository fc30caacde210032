"""The flow's order, its profiles, and requests that are refused before anything starts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from flows import cli
from flows.profiles import build_config, profile_names, settings
from tasks._stages.calls import CallStage
from tasks._stages.stage import Stage
from tasks.config import AttributesConfig, PrismConfig
from tasks.errors import InputRejected
from tasks.planning import OWN_STAGES, PRISM_STAGES, STAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("flow", "stages"), [("attributes", STAGES), ("prism", PRISM_STAGES)])
def test_plans_go_through_the_stages_in_the_order_of_the_flow(
    flow: str, stages: tuple[Stage | CallStage, ...]
) -> None:
    source = (ROOT / "flows" / f"{flow}.py").read_text("utf-8")
    told = [one.lower() for one in re.findall(r"chain\.(?:step|calls)\((\w+)\)", source)]
    assert told[: len(stages)] == [stage.name for stage in stages]
    assert told[len(stages) :] == ["win_rates", "report"]


def test_the_own_flow_goes_through_its_stages_and_makes_no_call() -> None:
    source = (ROOT / "flows" / "own.py").read_text("utf-8")
    told = [one.lower() for one in re.findall(r"chain\.step\((\w+)\)", source)]
    assert told == [*(stage.name for stage in OWN_STAGES), "report_own"]
    assert "chain.calls" not in source
    assert not any(isinstance(stage, CallStage) for stage in OWN_STAGES)


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name: str) -> None:
    model = PrismConfig if name.endswith("-prism") else AttributesConfig
    assert isinstance(build_config(model, name, {}, []), model)


def test_every_profile_in_the_tree_is_shipped() -> None:
    found = sorted(path.stem for path in (ROOT / "flows").rglob("profiles/*.toml"))
    assert found == profile_names()


def test_the_paper_s_profile_has_the_paper_s_settings() -> None:
    config = build_config(AttributesConfig, "paper-attributes", {}, [])
    assert (config.llm.judge_model, config.llm.responder_model) == ("gpt-4o", "gpt-4o")
    assert config.ingest.n_prompts == 100
    assert config.ingest.n_personas is None
    assert config.design.personas_per_pair is None
    assert config.encoder.name == "Qwen/Qwen2.5-0.5B"
    assert config.fit.d == 8
    assert config.backbone.is_trained
    assert (config.backbone.steps, config.backbone.batch_size) == (500, 32)
    assert config.judge.sampling["temperature"] == 0


def test_the_paper_s_prism_profile_has_the_paper_s_settings() -> None:
    config = build_config(PrismConfig, "paper-prism", {}, [])
    assert config.llm.judge_model == "gpt-4o"
    assert config.llm.responder_model.startswith("Qwen/Qwen2.5-7B")
    assert config.choose.n_prompts == 2262
    assert config.ingest.n_personas is None
    assert config.design.personas_per_pair == 50
    assert config.encoder.name == "Qwen/Qwen2.5-0.5B"
    assert config.fit.d == 6
    assert config.backbone.is_trained
    assert (config.backbone.steps, config.backbone.batch_size) == (1000, 64)
    assert (config.split.new_user_share, config.split.new_pair_share) == (0.2, 0.2)
    assert config.judge.template == "judge_prism"


def test_one_setting_of_a_section_leaves_the_section_s_own_defaults() -> None:
    config = build_config(PrismConfig, "quickstart-prism", {}, ["judge.repeats=2"])
    assert (config.judge.repeats, config.judge.template) == (2, "judge_prism")
    assert PrismConfig.model_validate({"design": {}}).design.personas_per_pair == 50


def test_options_win_over_profiles_and_set_wins_over_options() -> None:
    config = build_config(
        AttributesConfig,
        "paper-attributes",
        {"llm.judge_model": "b", "warehouse": None},
        ["llm.judge_model=c", "seed=7"],
    )
    assert (config.llm.judge_model, config.seed, config.warehouse) == ("c", 7, "pref-data")


def test_setting_one_value_of_a_mapping_leaves_the_others() -> None:
    config = build_config(AttributesConfig, "quickstart", {}, ["judge.sampling.max_tokens=16"])
    assert config.judge.sampling == {"temperature": 0.0, "max_tokens": 16}


def test_every_setting_that_is_listed_can_be_set_to_its_default() -> None:
    overrides = [f"{name}={default}" for name, default, _ in settings()]
    assert build_config(
        AttributesConfig, "quickstart", {}, overrides
    ) == AttributesConfig.model_validate({"ingest": tomllib.loads("n_prompts = 100")})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("fit.dd=3", "did you mean fit.d"),
        ("ingest.n_prompts=0", "greater than or equal to 2"),
        ("ingest.n_prompts=many", "valid integer"),
        ("nonsense", "has no '='"),
        ("seed.a=1", "which is a value"),
        ("adapt.rule=guess", "'random', 'variance'"),
    ],
)
def test_a_wrong_setting_is_one_helpful_line(override: str, says: str) -> None:
    with pytest.raises(InputRejected) as caught:
        build_config(AttributesConfig, "quickstart", {}, [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "attributes", "--prompts", "nowhere.csv"],
        ["run", "attributes", "--profile", "nowhere"],
        ["run", "attributes", "--set", "judge.template=nowhere"],
        ["run", "attributes", "--set", "encoder.name=/nowhere"],
        ["run", "attributes", "--warehouse", "/proc/nowhere"],
        ["run", "attributes", "--no-such-option"],
        ["run", "prism"],
        ["run", "prism", "--prism", "nowhere"],
        ["plan", "prism", "--prism", "nowhere"],
        ["ingest", "nowhere"],
        ["run", "own"],
        ["run", "own", "--data", "nowhere"],
        ["run", "own", "--set", "judge.repeats=2"],
        ["plan", "own"],
        ["settings", "nothing"],
        ["run", "nothing"],
        ["datasets", "--warehouse", "nowhere"],
        ["sql", "select 1", "--warehouse", "nowhere"],
        ["lineage", "nothing", "--warehouse", "nowhere"],
        ["simulate", "--set", "nothing=1"],
    ],
    ids=" ".join,
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pref", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pref: ")]
    assert stopped.value.code == 2
    assert len(told) == 1
    assert not list(tmp_path.glob("*/*/version=*"))


def test_every_stage_that_makes_calls_can_make_them_in_batches() -> None:
    from flows.shards import SHARDS
    from tasks.batches import STAGES as in_batches

    assert {stage.name for stage in in_batches} == set(SHARDS)
    for stage in (*STAGES, *PRISM_STAGES):
        assert not isinstance(stage, CallStage) or stage in in_batches
