"""Where the shards of a stage run: threads of this process, or workers of Dask or Ray.

It starts no cluster: Prefect's task runners do, or join the one at an address.
"""

from __future__ import annotations

from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.config import CallSettings
from tasks.errors import InputRejected

Runner = TaskRunner[PrefectFuture[Any]]

# Enough shards at once to keep the engine's calls in flight while finished ones are written.
THREADS = cast(Runner, ThreadPoolTaskRunner(max_workers=4))


def runner_of(settings: CallSettings) -> Runner:
    """The task runner that the settings ask for.

    Raises:
        InputRejected: Its package is not installed.
    """
    if settings.runner == "threads" or settings.mode == "batch":
        # In batch mode one process buys everything, and shards only read the ledger.
        return THREADS
    try:
        return _dask(settings) if settings.runner == "dask" else _ray(settings)
    except ImportError as error:
        raise InputRejected(
            f"calls.runner: {settings.runner} needs a package that is not installed"
            f" ({error.name}), expected the extra `{settings.runner}`;"
            f" pip install 'pref-pipeline[{settings.runner}]'"
        ) from None


def _dask(settings: CallSettings) -> Runner:
    from prefect_dask.task_runners import DaskTaskRunner

    if settings.runner_address:
        return cast(Runner, DaskTaskRunner(address=settings.runner_address))
    # One thread a worker: a worker's engine has its calls in flight whatever the shards are.
    kwargs = {
        "n_workers": settings.workers,
        "threads_per_worker": 2,
        "processes": True,
        "dashboard_address": None,
    }
    return cast(
        Runner, DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=kwargs)
    )


def _ray(settings: CallSettings) -> Runner:
    from prefect_ray.task_runners import RayTaskRunner

    if settings.runner_address:
        return cast(Runner, RayTaskRunner(address=settings.runner_address))
    kwargs = {
        "num_cpus": settings.workers,
        "include_dashboard": False,
        "configure_logging": False,
        "log_to_driver": False,
    }
    return cast(Runner, RayTaskRunner(init_kwargs=kwargs))
