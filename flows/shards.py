"""The flow under every stage that makes calls: its shards, a few at a time."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows._runners import THREADS, runner_of
from tasks.batches import buy_batches
from tasks.evaluate import check_win_shard, win_shard
from tasks.interpret import label_shard
from tasks.judge import check_shard, judge_shard
from tasks.personalize import pool_shard, summarize_shard, write_shard
from tasks.prism import rate_shard, revise_shard
from tasks.publish import follow
from tasks.respond import respond_shard
from tasks.types import CallCount, CallPlan, StagePlan, per_worker

SHARDS = {
    "respond": respond_shard,
    "rate": rate_shard,
    "revise": revise_shard,
    "judge": judge_shard,
    "label": label_shard,
    "check": check_shard,
    "pool": pool_shard,
    "summarize": summarize_shard,
    "write": write_shard,
    "win": win_shard,
    "check_win": check_win_shard,
}


def run_shards(plan: StagePlan, calls: CallPlan, n_shards: int) -> CallCount:
    """Makes a stage's calls, on the task runner that the settings ask for; see `shards`."""
    on_runner = shards.with_options(task_runner=runner_of(calls.settings))
    # The flow around this one tells that we live; a flow that does so takes a second to end.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return on_runner(plan, per_worker(calls), n_shards)


@flow(
    name="calls",
    flow_run_name="{plan.stage}: {n_shards} shards",
    task_runner=THREADS,
    persist_result=False,
    validate_parameters=False,
)
def shards(plan: StagePlan, calls: CallPlan, n_shards: int) -> CallCount:
    """Makes a stage's calls. A finished shard is found in staging, a finished call in the ledger.

    Args:
        plan: The stage and its version.
        calls: Endpoint, ledger, concurrency and caps.
        n_shards: Shards of about ``calls.settings.shard_size`` calls.

    Returns:
        Calls, tokens and money of this run.
    """
    if calls.settings.mode == "batch":
        buy_batches(plan, calls)
    shard = SHARDS[plan.stage]
    futures: list[PrefectFuture[dict[str, Any]]] = [
        shard.submit(plan, calls, index) for index in range(n_shards)
    ]
    follow(plan.stage, futures)
    total = CallCount()
    for future in futures:
        total = total + CallCount.model_validate(future.result())
    return total
