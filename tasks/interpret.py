"""Tasks of the interpret and label stages. The work is in `tasks._stages.interpret`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.interpret import LABEL_STAGE
from tasks._stages.interpret import STAGE as INTERPRET_STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.steps import CallStep, Step
from tasks.types import CallPlan, StagePlan


@stage_task("interpret")
def interpret(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes what base rewards explain, rank and go with. No calls; safe to run again."""
    return run_stage(plan, INTERPRET_STAGE, run_ids())


@shard_task("label shard")
def label_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys a label for each base reward, one call each. Finished calls are never bought again."""
    return run_shard(plan, calls, LABEL_STAGE, index)


@stage_task("label")
def label(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``base_reward_labels`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, LABEL_STAGE, run_ids())


INTERPRET = Step(interpret, INTERPRET_STAGE)
LABEL = CallStep(label_shard, label, LABEL_STAGE)
