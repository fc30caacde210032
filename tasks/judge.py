"""Tasks of the design and judge stages. The work is in `tasks._stages.design` and `.judge`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.design import STAGE as DESIGN_STAGE
from tasks._stages.judge import STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.steps import CallStep, Step
from tasks.types import CallPlan, StagePlan


@stage_task("design")
def design(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``design``: who judges what. No calls; safe to run again."""
    return run_stage(plan, DESIGN_STAGE, run_ids())


@shard_task("judge shard")
def judge_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the verdicts of one shard, two a cell. Finished calls are never bought again."""
    return run_shard(plan, calls, STAGE, index)


@stage_task("judge")
def judge(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``judgments`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, STAGE, run_ids())


DESIGN = Step(design, DESIGN_STAGE)
JUDGE = CallStep(judge_shard, judge, STAGE)
