"""Tasks of the benchmark. The work is in `tasks._stages.benchmark`."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks._runs import inputs_of, run_stage
from tasks._stages.benchmark import STAGE, clear_staged, run_arm
from tasks.caching import run_ids, stage_task
from tasks.config import BenchmarkConfig
from tasks.steps import PartStep
from tasks.types import StagePlan


@task(name="arm", task_run_name="{part}", cache_policy=NO_CACHE, persist_result=False)
def arm(plan: StagePlan, config: BenchmarkConfig, part: str) -> int:
    """Stages the cells of one arm that are not there yet. No calls; finished cells are kept."""
    return run_arm(inputs_of(plan), config, part)


@stage_task("benchmark")
def benchmark(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``benchmark_cells`` and ``benchmark_means``. No calls; safe to run again."""
    refs = run_stage(plan, STAGE, run_ids())
    clear_staged(inputs_of(plan))
    return refs


BENCHMARK = PartStep(arm, benchmark, STAGE)
