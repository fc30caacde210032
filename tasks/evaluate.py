"""Tasks of the evaluation: AUC, judged win rate, report. The work is in `tasks._stages`."""

from __future__ import annotations

from typing import Any

from tasks._runs import gather, run_shard, run_stage
from tasks._stages.check_win import STAGE as CHECK_WIN_STAGE
from tasks._stages.evaluate import AUC_STAGE
from tasks._stages.report import STAGE as REPORT_STAGE
from tasks._stages.win import STAGE as WIN_STAGE
from tasks._stages.win_rates import STAGE as WIN_RATES_STAGE
from tasks.caching import run_ids, shard_task, stage_task
from tasks.steps import CallStep, Step
from tasks.types import CallPlan, StagePlan


@stage_task("auc")
def auc(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``auc`` and ``auc_means``. No calls; safe to run again."""
    return run_stage(plan, AUC_STAGE, run_ids())


@shard_task("win shard")
def win_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys the verdicts of one shard of comparisons. Finished calls are never bought again."""
    return run_shard(plan, calls, WIN_STAGE, index)


@stage_task("win")
def win(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``win_judgments`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, WIN_STAGE, run_ids())


@shard_task("check win shard")
def check_win_shard(plan: StagePlan, calls: CallPlan, index: int) -> dict[str, Any]:
    """Buys answers that check the win rates' judge. Finished calls are never bought again."""
    return run_shard(plan, calls, CHECK_WIN_STAGE, index)


@stage_task("check_win")
def check_win(plan: StagePlan, calls: CallPlan) -> list[dict[str, Any]]:
    """Writes ``win_check_judgments`` from finished shards. No calls; safe to run again."""
    return gather(plan, calls, CHECK_WIN_STAGE, run_ids())


@stage_task("win rates")
def win_rates(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``win_rates``, their differences and checks. No calls; safe to run again."""
    return run_stage(plan, WIN_RATES_STAGE, run_ids())


@stage_task("report")
def report(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``report`` with ``report.html``. No calls; safe to run again."""
    return run_stage(plan, REPORT_STAGE, run_ids())


AUC = Step(auc, AUC_STAGE)
WIN = CallStep(win_shard, win, WIN_STAGE)
CHECK_WIN = CallStep(check_win_shard, check_win, CHECK_WIN_STAGE)
WIN_RATES = Step(win_rates, WIN_RATES_STAGE)
REPORT = Step(report, REPORT_STAGE)
