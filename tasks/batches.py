"""Batch mode: the task that buys a stage's calls before its shards run.

The work is in `tasks._llm.batch`.
"""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks._runs import buy_ahead
from tasks._stages import judge, personalize, prism_prompts, respond, revise, win
from tasks.types import CallPlan, StagePlan

_STAGES = {
    stage.name: stage
    for stage in (
        respond.STAGE,
        prism_prompts.RATE_STAGE,
        revise.STAGE,
        judge.STAGE,
        personalize.POOL_STAGE,
        win.STAGE,
    )
}


@task(
    name="batches",
    task_run_name="{plan.stage} batches",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def buy_batches(plan: StagePlan, calls: CallPlan) -> int:
    """Sends a stage's calls as batches and waits for them; hours with a real provider.

    Not cached: replies are in the ledger, and batches that are out are remembered beside it.

    Returns:
        Replies bought.
    """
    return buy_ahead(plan, calls, _STAGES[plan.stage])
