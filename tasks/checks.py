"""Tasks that check a run's datasets. The work is in `tasks._stages.data_checks`."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks._runs import run_stage, warehouse_at
from tasks._stages.data_checks import STAGE, told
from tasks.caching import run_ids, stage_task
from tasks.errors import StageFailed
from tasks.steps import Step
from tasks.types import StagePlan


@stage_task("data checks")
def data_checks(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``data_checks``: what every dataset so far declares, covers, and how it drifted."""
    return run_stage(plan, STAGE, run_ids())


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE)
def gate(warehouse: str, version: str) -> list[str]:
    """Stops the run where a check failed; a check that was found stops it again.

    Returns:
        What was warned of, line by line.

    Raises:
        StageFailed: What failed, and in which rows.
    """
    rows = warehouse_at(warehouse).read("data_checks", version).to_pylist()
    failed = [told(row) for row in rows if row["outcome"] == "failed"]
    if failed:
        raise StageFailed(
            f"checks: {'; '.join(failed)}; expected none to fail; look with `pref sql` into"
            " data_checks, mend the cause, or give the tolerance under checks. with --set"
        )
    return [told(row) for row in rows if row["outcome"] == "warned"]


DATA_CHECKS = Step(data_checks, STAGE)
