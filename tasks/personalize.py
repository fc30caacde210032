"""Tasks that personalize responses. The work is in `tasks._stages.personalize` and `.write`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.personalize import POOL_STAGE, SELECT_STAGE
from tasks._stages.write import STAGE as WRITE_STAGE
from tasks._stages.write import SUMMARIZE_STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.steps import CallStep, Step
from tasks.types import CallPlan, StagePlan


@shard_task("pool shard")
def pool_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys base responses and their revisions. Finished calls are never bought again."""
    return run_shard(plan, calls, POOL_STAGE, index)


@stage_task("pool")
def pool(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``pool_responses`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, POOL_STAGE, run_ids())


@shard_task("summarize shard")
def summarize_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys summaries of users' answers. Finished calls are never bought again."""
    return run_shard(plan, calls, SUMMARIZE_STAGE, index)


@stage_task("summarize")
def summarize(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``taste_summaries`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, SUMMARIZE_STAGE, run_ids())


@shard_task("write shard")
def write_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys responses written for single users. Finished calls are never bought again."""
    return run_shard(plan, calls, WRITE_STAGE, index)


@stage_task("write")
def write(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``personal_responses`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, WRITE_STAGE, run_ids())


@stage_task("select")
def select(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``selections``: each user's best of the pool. No calls; safe to run again."""
    return run_stage(plan, SELECT_STAGE, run_ids())


POOL = CallStep(pool_shard, pool, POOL_STAGE)
SUMMARIZE = CallStep(summarize_shard, summarize, SUMMARIZE_STAGE)
WRITE = CallStep(write_shard, write, WRITE_STAGE)
SELECT = Step(select, SELECT_STAGE)
