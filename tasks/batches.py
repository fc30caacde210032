"""Batch mode: the task that buys a stage's calls before its shards run.

The work is in `tasks._llm.batch`.
"""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks._runs import buy_ahead
from tasks._stages import (
    check,
    check_win,
    interpret,
    judge,
    personalize,
    prism_prompts,
    respond,
    revise,
    win,
    write,
)
from tasks.types import CallPlan, StagePlan

STAGES = (
    respond.STAGE,
    prism_prompts.RATE_STAGE,
    revise.STAGE,
    judge.STAGE,
    check.STAGE,
    check.PRISM_STAGE,
    interpret.LABEL_STAGE,
    personalize.POOL_STAGE,
    write.SUMMARIZE_STAGE,
    write.STAGE,
    win.STAGE,
    check_win.STAGE,
)


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
    # Two flows may have a stage of one name that reads other datasets.
    parents = set(plan.parents)
    stage = next(one for one in STAGES if (one.name, set(one.reads)) == (plan.stage, parents))
    return buy_ahead(plan, calls, stage)
