"""Tasks of the assemble and split stages. The work is in `tasks._stages.assemble` and `.split`."""

from __future__ import annotations

from typing import Any

from tasks._runs import run_stage
from tasks._stages.assemble import STAGE as ASSEMBLE_STAGE
from tasks._stages.split import STAGE as SPLIT_STAGE
from tasks.caching import run_ids, stage_task
from tasks.steps import Step
from tasks.types import StagePlan


@stage_task("assemble")
def assemble(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``preferences`` and ``judge_audit``. No calls; safe to run again."""
    return run_stage(plan, ASSEMBLE_STAGE, run_ids())


@stage_task("split")
def split(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``splits``: seen and new users, seen and new pairs. No calls; safe to run again."""
    return run_stage(plan, SPLIT_STAGE, run_ids())


ASSEMBLE = Step(assemble, ASSEMBLE_STAGE)
SPLIT = Step(split, SPLIT_STAGE)
