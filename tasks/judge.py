"""Tasks of design, judging and checks of the judge. The work is in `tasks._stages`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.calls import CallStage
from tasks._stages.check import PRISM_STAGE as PRISM_CHECK_STAGE
from tasks._stages.check import STAGE as CHECK_STAGE
from tasks._stages.design import STAGE as DESIGN_STAGE
from tasks._stages.judge import STAGE
from tasks._stages.judge_checks import STAGE as JUDGE_CHECKS_STAGE
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


@shard_task("check shard")
def check_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the answers of one shard of checks. Finished calls are never bought again."""
    return run_shard(plan, calls, _check_stage(plan), index)


@stage_task("check")
def check(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``check_judgments`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, _check_stage(plan), run_ids())


@stage_task("judge checks")
def judge_checks(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``judge_checks``: what the checks say. No calls; safe to run again."""
    return run_stage(plan, JUDGE_CHECKS_STAGE, run_ids())


def _check_stage(plan: StagePlan) -> CallStage:
    """PRISM's own choices are read where the plan has them."""
    return PRISM_CHECK_STAGE if "openings" in plan.parents else CHECK_STAGE


DESIGN = Step(design, DESIGN_STAGE)
JUDGE = CallStep(judge_shard, judge, STAGE)
CHECK = CallStep(check_shard, check, CHECK_STAGE)
JUDGE_CHECKS = Step(judge_checks, JUDGE_CHECKS_STAGE)
