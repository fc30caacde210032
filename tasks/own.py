"""Tasks of the own-data flow. The work is in `tasks._stages.own*`."""

from __future__ import annotations

from typing import Any

from tasks._runs import run_stage
from tasks._stages.own import ASSEMBLE_STAGE, INGEST_STAGE
from tasks._stages.own_accuracy import STAGE as ACCURACY_STAGE
from tasks._stages.own_adapt import STAGE as ADAPT_STAGE
from tasks._stages.own_fit import STAGE as FIT_STAGE
from tasks._stages.own_form import STAGE as FORM_STAGE
from tasks._stages.own_report import STAGE as REPORT_STAGE
from tasks._stages.own_split import STAGE as SPLIT_STAGE
from tasks.caching import run_ids, stage_task
from tasks.steps import Step
from tasks.types import StagePlan


@stage_task("ingest own")
def ingest_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes texts, users, pairs and ``answers``. No calls; safe to run again."""
    return run_stage(plan, INGEST_STAGE, run_ids())


@stage_task("assemble own")
def assemble_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``preferences``. No calls; safe to run again."""
    return run_stage(plan, ASSEMBLE_STAGE, run_ids())


@stage_task("split own")
def split_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``splits`` and ``split_facts``. No calls; safe to run again."""
    return run_stage(plan, SPLIT_STAGE, run_ids())


@stage_task("form")
def form(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``text_features``. No calls; safe to run again."""
    return run_stage(plan, FORM_STAGE, run_ids())


@stage_task("fit own")
def fit_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``models``, ``base_rewards`` and ``user_weights``. No calls; safe to run again."""
    return run_stage(plan, FIT_STAGE, run_ids())


@stage_task("adapt own")
def adapt_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``adapted_weights`` and ``questions``. No calls; safe to run again."""
    return run_stage(plan, ADAPT_STAGE, run_ids())


@stage_task("accuracy")
def accuracy(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``pair_accuracy`` and ``accuracy_means``. No calls; safe to run again."""
    return run_stage(plan, ACCURACY_STAGE, run_ids())


@stage_task("report own")
def report_own(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``report`` with ``report.html``. No calls; safe to run again."""
    return run_stage(plan, REPORT_STAGE, run_ids())


INGEST_OWN = Step(ingest_own, INGEST_STAGE)
ASSEMBLE_OWN = Step(assemble_own, ASSEMBLE_STAGE)
SPLIT_OWN = Step(split_own, SPLIT_STAGE)
FORM = Step(form, FORM_STAGE)
FIT_OWN = Step(fit_own, FIT_STAGE)
ADAPT_OWN = Step(adapt_own, ADAPT_STAGE)
ACCURACY = Step(accuracy, ACCURACY_STAGE)
REPORT_OWN = Step(report_own, REPORT_STAGE)
