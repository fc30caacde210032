"""How our tasks are cached and retried by Prefect. It decides no dataset version itself.

Prefect's built-in policies are not used: ``INPUTS`` leaves out the task's name, ``TASK_SOURCE``
does not see helpers, and the default contains the run id, so nothing would be shared by two runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.context import TaskRunContext, get_run_context
from prefect.runtime import flow_run

from tasks._runs import RunIds

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class ByVersion(CachePolicy):
    """The task's name and the dataset version of its plan, and nothing else."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """A key that two runs, servers and machines agree on."""
        return f"{task_ctx.task.name}-{inputs['plan'].version_sha256}"


def stage_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorates a task that commits a stage's datasets: cached by version, JSON results."""
    return task(
        name=name,
        task_run_name=name,
        cache_policy=ByVersion(),
        persist_result=True,
        result_serializer="json",
    )


def shard_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorates a task that does one shard of calls.

    Not cached by Prefect: finished calls are in the ledger and finished shards in staging. One
    more try covers a worker that was lost; calls themselves are retried by the engine alone.
    """
    return task(
        name=name,
        task_run_name=name + " {index}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=1,
        retry_condition_fn=_is_unclassified,
    )


def run_ids() -> RunIds:
    """Prefect's names for the task run that asks."""
    context = get_run_context()
    found = getattr(context, "task_run", None)
    return RunIds(str(flow_run.id), str(found.id) if found else None)


def _is_unclassified(task: Any, run: Any, state: Any) -> bool:
    """Whether a failure is none of our own: those already say what has to be done."""
    found = state.result(raise_on_failure=False)
    return not hasattr(found, "exit_code")
