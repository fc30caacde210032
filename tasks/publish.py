"""What a stage leaves in the Prefect UI: an artifact for each dataset, under a stable key.

Written by an uncached task, since a cached one says nothing of the run that produced its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Event, Thread
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.events import emit_event
from prefect.futures import PrefectFuture, as_completed, wait

from tasks import _cards as cards
from tasks._runs import warehouse_at
from tasks.types import StagePlan
from warehouse.manifest import Manifest
from warehouse.tables import TABLES

# The event of a dataset version that a run made, as opposed to found.
MADE = "prefect.asset.materialization.succeeded"


@task(name="publish", task_run_name="publish {plan.stage}", cache_policy=NO_CACHE)
def publish(
    plan: StagePlan, refs: list[dict[str, Any]], is_reused: bool, artifacts: dict[str, str]
) -> dict[str, str]:
    """Leaves each dataset's card, and the tables and picture that go with it. Safe to repeat.

    Args:
        plan: The stage.
        refs: Its datasets.
        is_reused: Whether they were found rather than made.
        artifacts: Artifact ids of the datasets before it, for links to the parents.

    Returns:
        Artifact id of each of its datasets.
    """
    warehouse = warehouse_at(plan.warehouse)
    made = {}
    for ref in refs:
        manifest = warehouse.manifest(ref["dataset"], ref["version"])
        found = create_markdown_artifact(
            cards.dataset_card(
                manifest,
                is_reused=is_reused,
                artifacts=artifacts,
                ancestors=_ancestors(plan.warehouse, manifest),
                readers=readers(ref["dataset"]),
            ),
            key=cards.key(ref["dataset"]),
            description=cards.grain(ref["dataset"]),
        )
        made[ref["dataset"]] = str(found)
        rows = cards.table_of(warehouse, manifest)
        if rows:
            create_table_artifact(
                rows,
                key=cards.key(ref["dataset"], "table"),
                description=cards.grain(ref["dataset"]),
            )
        if not is_reused:
            _emit(manifest, warehouse.location)
    picture = cards.picture_of(warehouse, plan)
    if picture:
        create_markdown_artifact(picture, key=cards.key(plan.stage, "picture"))
    return made


def _ancestors(root: str, manifest: Manifest) -> list[Manifest]:
    """Everything a version was made from, one version a dataset: the nearest."""
    found: dict[str, Manifest] = {}
    waiting = sorted(manifest.parents.items())
    while waiting:
        name, version = waiting.pop(0)
        if name not in found and name != manifest.dataset:
            found[name] = _manifest(root, name, version)
            waiting += sorted(found[name].parents.items())
    return [found[name] for name in TABLES if name in found]


# A version is immutable, and each card of a run draws most of the cards before it.
@cache
def _manifest(root: str, dataset: str, version: str) -> Manifest:
    return warehouse_at(root).manifest(dataset, version)


def follow(stage: str, futures: list[PrefectFuture[Any]]) -> None:
    """Waits for a stage's shards, and keeps a progress artifact for a stage of more than one."""
    if len(futures) < 2:
        wait(futures)
        return
    tell = progress(stage, "shards", len(futures))
    for n_done, _ in enumerate(as_completed(futures), 1):
        tell(n_done)


def progress(stage: str, parts: str, total: int) -> Callable[[int], None]:
    """Makes a progress artifact; what it returns is told how many parts are done."""
    title = f"{stage}: {parts} done, of {total}"
    bar = create_progress_artifact(0.0, key=cards.key(stage, "progress"), description=title)
    shown = 0

    def tell(n_done: int) -> None:
        nonlocal shown
        percent = 100 * n_done // total
        # Each update is a request to the server, so there are at most twenty.
        if percent >= shown + 5 or n_done == total:
            shown = percent
            update_progress_artifact(_only(bar), float(percent))

    return tell


@contextmanager
def watched(
    stage: str, parts: str, total: int, done: Callable[[], int], every_s: float = 5.0
) -> Iterator[None]:
    """Keeps a progress artifact of work that tells nothing itself, by looking how far it is."""
    tell = progress(stage, parts, total)
    over = Event()

    def look() -> None:
        try:
            while not over.wait(every_s):
                tell(done())
        except Exception as error:  # The work is worth more than its bar.
            get_run_logger().warning("%s: progress is told no more (%s)", stage, error)

    thread = Thread(target=copy_context().run, args=(look,), name=f"progress of {stage}")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    tell(total)


def _only(made: Any) -> UUID:
    """Prefect's functions of both colors, called where there is no event loop."""
    if not isinstance(made, UUID):
        raise TypeError("publish: an artifact was made in an event loop, expected none")
    return made


@cache
def readers(dataset: str) -> tuple[str, ...]:
    """Datasets that a stage of some flow makes from this one, in the order of the flows."""
    from tasks.planning import OWN_STAGES, PRISM_STAGES, STAGES

    found = [
        name
        for stage in (*STAGES, *PRISM_STAGES, *OWN_STAGES)
        if dataset in stage.reads
        for name in stage.writes
    ]
    return tuple(dict.fromkeys(found))


def asset_key(warehouse: str, dataset: str) -> str:
    """The name of a warehouse's dataset in Prefect's asset events."""
    return f"pref://{warehouse}/{dataset}"


def _emit(manifest: Manifest, location: str) -> None:
    """Tells Prefect of a new version, in the words of its own materialized assets.

    Prefect's decorator would tell it of a cached task's data too, or not at all.
    """
    emit_event(
        event=MADE,
        resource={
            "prefect.resource.id": asset_key(location, manifest.dataset),
            "prefect.resource.name": manifest.dataset,
            "pref.version": manifest.version,
        },
        related=[
            {"prefect.resource.id": asset_key(location, parent), "prefect.resource.role": "asset"}
            for parent in sorted(manifest.parents)
        ],
        payload={
            "version": manifest.version,
            "rows": manifest.n_rows,
            "content_sha256": manifest.content_sha256,
            "parents": dict(manifest.parents),
        },
    )


@task(name="publish lineage", task_run_name="publish lineage", cache_policy=NO_CACHE)
def publish_lineage(
    warehouse: str, datasets: dict[str, str], artifacts: dict[str, str], reused: list[str]
) -> None:
    """Leaves the graph of all datasets of a run, every node a link to its card. Safe to repeat.

    Cards are written again with links to the cards of what was made from them, which came later.

    Args:
        warehouse: Folder of the warehouse.
        datasets: Versions of the run.
        artifacts: Artifact ids of their cards.
        reused: Datasets that the run found.
    """
    store = warehouse_at(warehouse)
    manifests = [store.manifest(name, version) for name, version in datasets.items()]
    with get_client(sync_client=True) as client:
        # What a run took over from an earlier one has its card from there.
        for one in (manifest for manifest in manifests if manifest.dataset in artifacts):
            text = cards.dataset_card(
                one,
                is_reused=one.dataset in reused,
                artifacts=artifacts,
                ancestors=_ancestors(warehouse, one),
                readers=[name for name in readers(one.dataset) if name in datasets],
            )
            client.update_artifact(UUID(artifacts[one.dataset]), ArtifactUpdate(data=text))
    create_markdown_artifact(
        cards.lineage_graph(manifests, artifacts),
        key=cards.LINEAGE,
        description="What every dataset of the run was made from.",
    )
