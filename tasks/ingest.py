"""Task of the ingest stage. The work is in `tasks._stages.ingest`."""

from __future__ import annotations

from typing import Any

from tasks._runs import run_stage
from tasks._stages.ingest import STAGE
from tasks.caching import run_ids, stage_task
from tasks.steps import Step
from tasks.types import StagePlan


@stage_task("ingest")
def ingest(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``prompts`` and ``personas``. No calls; safe to run again."""
    return run_stage(plan, STAGE, run_ids())


INGEST = Step(ingest, STAGE)
