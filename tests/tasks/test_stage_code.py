"""A stage's version must change when code that shapes its rows does, and with nothing else."""

from __future__ import annotations

import pytest

from tasks import planning
from tasks._stages import (
    adapt,
    assemble,
    check,
    check_win,
    design,
    encode,
    evaluate,
    fit,
    ingest,
    judge,
    judge_checks,
    own,
    own_accuracy,
    own_adapt,
    own_fit,
    own_form,
    own_report,
    own_split,
    personalize,
    prism,
    prism_prompts,
    report,
    respond,
    revise,
    split,
    win,
    win_rates,
    write,
)
from tasks._stages import code as stage_code
from tasks._stages.calls import CallStage
from tasks._stages.code import code_modules, code_sha256
from tasks._stages.stage import Stage

STAGES: list[Stage | CallStage] = [
    ingest.STAGE, respond.STAGE, design.STAGE, judge.STAGE, assemble.STAGE, split.STAGE,
    encode.STAGE, encode.POOL_STAGE, fit.STAGE, adapt.STAGE, personalize.POOL_STAGE,
    personalize.SELECT_STAGE, win.STAGE, evaluate.AUC_STAGE, win_rates.STAGE,
    report.STAGE, prism.STAGE, prism_prompts.SIFT_STAGE, prism_prompts.RATE_STAGE,
    prism_prompts.CHOOSE_STAGE, revise.STAGE, own.INGEST_STAGE, own.ASSEMBLE_STAGE,
    own_split.STAGE, own_form.STAGE, own_fit.STAGE, own_adapt.STAGE, own_accuracy.STAGE,
    own_report.STAGE,
    check.STAGE, judge_checks.STAGE, check_win.STAGE, write.SUMMARIZE_STAGE, write.STAGE,
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        (judge.STAGE, "prompts.verdict"),
        (judge.STAGE, "prompts.neutral"),
        (prism.STAGE, "prompts.profiles"),
        (prism.STAGE, "tasks._stages.prism_files"),
        (prism_prompts.SIFT_STAGE, "tasks._stages.near_duplicates"),
        (prism_prompts.RATE_STAGE, "prompts.verdict"),
        (revise.STAGE, "tasks._stages.priorities"),
        (design.STAGE, "tasks._stages.balanced"),
        (judge.STAGE, "tasks._convert"),
        (judge.STAGE, "tasks._llm.types"),
        (respond.STAGE, "tasks._seeds"),
        (assemble.STAGE, "pref_model.agreement"),
        (encode.STAGE, "pref_model.encoder"),
        (fit.STAGE, "pref_model.svd"),
        (fit.STAGE, "pref_model.likelihood"),
        (adapt.STAGE, "pref_model.questions"),
        (evaluate.AUC_STAGE, "pref_model.metrics"),
        (report.STAGE, "tasks._stages.figures"),
        (own.INGEST_STAGE, "tasks._stages.rows"),
        (own_fit.STAGE, "pref_model.unshared"),
        (own_form.STAGE, "pref_model.text_features"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_stage_reaches_the_code_that_shapes_its_rows(
    stage: Stage | CallStage, module: str
) -> None:
    assert module in code_modules(stage.module)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_neither_prefect_nor_the_engine_nor_the_simulator_is_a_stage_s_code(
    stage: Stage | CallStage,
) -> None:
    found = code_modules(stage.module)
    assert not {"tasks._llm.engine", "tasks._engines", "tasks.caching", "tasks.publish"} & set(
        found
    )
    assert not any(name.startswith(("tasks._llm.simulator", "warehouse.")) for name in found)


def test_an_edit_of_a_distant_helper_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_sha256(judge.STAGE.module)
    original = stage_code._source

    def edited(module: str) -> bytes:
        return original(module) + (b"\n# edited" if module == "prompts._lookalikes" else b"")

    monkeypatch.setattr(stage_code, "_source", edited)
    code_sha256.cache_clear()
    try:
        assert code_sha256(judge.STAGE.module) != before
    finally:
        code_sha256.cache_clear()


def test_stage_names_and_datasets_are_unique() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    # Flows begin differently and go on alike: in each, every dataset is written once.
    for flow in (planning.STAGES, planning.PRISM_STAGES, planning.OWN_STAGES):
        written = [dataset for stage in flow for dataset in stage.writes]
        assert len(set(written)) == len(written)
