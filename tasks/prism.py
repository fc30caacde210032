"""Tasks of PRISM's ingest, filters and pairs. The work is in `_stages.prism*` and `.revise`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.check import PRISM_STAGE as CHECK_STAGE
from tasks._stages.prism import STAGE as PRISM_STAGE
from tasks._stages.prism_prompts import CHOOSE_STAGE, RATE_STAGE, SIFT_STAGE
from tasks._stages.report import PRISM_STAGE as REPORT_STAGE
from tasks._stages.revise import STAGE as REVISE_STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.evaluate import report
from tasks.judge import check, check_shard
from tasks.steps import CallStep, Step
from tasks.types import CallPlan, StagePlan


@stage_task("prism")
def prism(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``personas``, ``openings``, ``opening_responses``. No calls; safe to run again."""
    return run_stage(plan, PRISM_STAGE, run_ids())


@stage_task("sift")
def sift(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``candidates``: openings past the free filters. No calls; safe to run again."""
    return run_stage(plan, SIFT_STAGE, run_ids())


@shard_task("rate shard")
def rate_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the ratings of one shard, one a candidate. Finished calls are never bought again."""
    return run_shard(plan, calls, RATE_STAGE, index)


@stage_task("rate")
def rate(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``prompt_ratings`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, RATE_STAGE, run_ids())


@stage_task("choose")
def choose(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``prompts`` and ``prompt_funnel``. No calls; safe to run again."""
    return run_stage(plan, CHOOSE_STAGE, run_ids())


@shard_task("revise shard")
def revise_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the revisions of one shard, two calls each. Finished calls are never bought again."""
    return run_shard(plan, calls, REVISE_STAGE, index)


@stage_task("revise")
def revise(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``responses`` and ``pairs`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, REVISE_STAGE, run_ids())


PRISM = Step(prism, PRISM_STAGE)
SIFT = Step(sift, SIFT_STAGE)
RATE = CallStep(rate_shard, rate, RATE_STAGE)
CHOOSE = Step(choose, CHOOSE_STAGE)
REVISE = CallStep(revise_shard, revise, REVISE_STAGE)
# The same tasks as in the other flow, with PRISM's datasets among what they read.
CHECK = CallStep(check_shard, check, CHECK_STAGE)
REPORT = Step(report, REPORT_STAGE)
