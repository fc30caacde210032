"""Ready deployments: the matrix weekly, training nightly and after it, measuring after training.

All three are the same flow, run to a later stage; what is done already is found and not done
again, so a night without new preferences costs seconds and no call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from prefect import Flow, serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from flows.attributes import attributes
from flows.prism import prism
from tasks.config import AttributesConfig, FlowConfig, PrismConfig, Until, as_json
from tasks.publish import MADE, asset_key
from tasks.server import worker_environment
from warehouse.paths import is_url

POOL_TYPE = "process"
WAIT_S = 6 * 3600.0


class Schedules(NamedTuple):
    """Cron expressions, UTC; an empty one leaves a deployment without a schedule."""

    regenerate: str = "0 3 * * 1"
    retrain: str = "0 5 * * *"


def deployments(
    config: FlowConfig, schedules: Schedules, work_pool: str | None = None, label: str = ""
) -> list[RunnerDeployment]:
    """Regenerate, retrain and evaluate, for one configuration and one warehouse.

    Retraining and measuring buy no verdicts: a matrix that is not there yet fails them, in one
    line, instead of being bought by night. Retraining starts when a run made a new version of
    ``preferences``, measuring when one made new ``models``; Prefect's automations see to it.

    Args:
        config: The flow's configuration. Paths in it are made absolute.
        schedules: When.
        work_pool: Whose workers run them; None for `serve`.
        label: Put before each name, where one server has deployments of several warehouses.
    """
    config = _waiting(_anchored(config))
    location = config.warehouse
    free = config.model_copy(update={"calls": config.calls.model_copy(update={"max_calls": 0})})
    flow: Flow[..., Any] = prism if isinstance(config, PrismConfig) else attributes
    env = worker_environment(config.warehouse)

    def one(
        name: str, told: FlowConfig, until: Until, cron: str, after: str | None, description: str
    ) -> RunnerDeployment:
        parameters = {"config": as_json(told), "until": until}
        triggers = [_when_made(location, after, name)] if after else []
        made = flow.to_deployment(
            name=f"{label}-{name}" if label else name,
            parameters=parameters,
            cron=cron or None,
            triggers=list(triggers),
            concurrency_limit=1,
            tags=["pref", Path(location).name],
            description=description,
            work_pool_name=work_pool,
            job_variables={"env": env} if work_pool else None,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        # Outside an event loop Prefect's call has its result at once.
        return cast(RunnerDeployment, made)

    return [
        one(
            "regenerate",
            config,
            "split",
            schedules.regenerate,
            None,
            "Regenerates the preference matrix; buys the replies that are missing.",
        ),
        one(
            "retrain",
            free,
            "auc",
            schedules.retrain,
            "preferences",
            "Trains base rewards if preferences changed; buys no reply.",
        ),
        one(
            "evaluate",
            config,
            "report",
            "",
            "models",
            "Measures a new model and writes the report; buys what its win rate needs.",
        ),
    ]


def serve_here(found: list[RunnerDeployment]) -> None:
    """Registers the deployments and runs them in this process's children until interrupted.

    One at a time: two runs of one warehouse would turn each other away.
    """
    serve(*found, limit=1)


def register(found: list[RunnerDeployment], work_pool: str) -> list[str]:
    """Registers the deployments for the workers of a process pool, which is made where missing.

    Returns:
        Name of each deployment, as ``prefect deployment run`` takes it.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(work_pool)
            client.update_work_pool(work_pool, WorkPoolUpdate(concurrency_limit=1))
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(name=work_pool, type=POOL_TYPE, concurrency_limit=1)
            )
    for one in found:
        one.apply(work_pool_name=work_pool)
    return [f"{one.flow_name}/{one.name}" for one in found]


def _when_made(location: str, dataset: str, name: str) -> DeploymentEventTrigger:
    return DeploymentEventTrigger(
        name=f"{name}: new {dataset} in {Path(location).name}",
        description=f"A run made a new version of {dataset} in {location}",
        expect={MADE},
        match={"prefect.resource.id": asset_key(location, dataset)},
    )


def _waiting(config: FlowConfig) -> FlowConfig:
    """A run that nobody watches waits for one at work on the warehouse, instead of giving up."""
    calls = config.calls.model_copy(update={"wait_for_warehouse_s": WAIT_S})
    return config.model_copy(update={"calls": calls})


def _anchored(config: FlowConfig) -> FlowConfig:
    """Paths that mean the same wherever a worker starts."""
    changed: dict[str, Any] = {}
    if not is_url(config.warehouse):
        changed["warehouse"] = str(Path(config.warehouse).absolute())
    if isinstance(config, AttributesConfig) and config.ingest.prompts:
        prompts = str(Path(config.ingest.prompts).absolute())
        changed["ingest"] = config.ingest.model_copy(update={"prompts": prompts})
    if isinstance(config, PrismConfig) and config.ingest.prism:
        folder = Path(config.ingest.prism)
        if folder.exists():
            prism_folder = str(folder.absolute())
            changed["ingest"] = config.ingest.model_copy(update={"prism": prism_folder})
    if config.calls.prices:
        prices = str(Path(config.calls.prices).absolute())
        changed["calls"] = config.calls.model_copy(update={"prices": prices})
    return config.model_copy(update=changed)
