"""Tasks of the respond stage. The work is in `tasks._stages.respond`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard
from tasks._stages.respond import STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.steps import CallStep
from tasks.types import CallPlan, StagePlan


@shard_task("respond shard")
def respond_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the responses of one shard, two a prompt. Finished calls are never bought again."""
    return run_shard(plan, calls, STAGE, index)


@stage_task("respond")
def respond(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``responses`` and ``pairs`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, STAGE, run_ids())


RESPOND = CallStep(respond_shard, respond, STAGE)
