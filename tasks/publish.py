"""What a stage leaves in the Prefect UI: an artifact for each dataset, under a stable key.

Written by an uncached task, since a cached one says nothing of the run that produced its data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks import _cards as cards
from tasks._runs import warehouse_at
from tasks.types import StagePlan
from warehouse.manifest import Manifest

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
            cards.dataset_card(manifest, is_reused=is_reused, artifacts=artifacts),
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
            _emit(manifest, warehouse.root)
    picture = cards.picture_of(warehouse, plan)
    if picture:
        create_markdown_artifact(picture, key=cards.key(plan.stage, "picture"))
    return made


def asset_key(warehouse: Path, dataset: str) -> str:
    """The name of a warehouse's dataset in Prefect's asset events."""
    return f"pref://{warehouse}/{dataset}"


def _emit(manifest: Manifest, root: Path) -> None:
    """Tells Prefect of a new version, in the words of its own materialized assets.

    Prefect's decorator would tell it of a cached task's data too, or not at all.
    """
    emit_event(
        event=MADE,
        resource={
            "prefect.resource.id": asset_key(root, manifest.dataset),
            "prefect.resource.name": manifest.dataset,
            "pref.version": manifest.version,
        },
        related=[
            {"prefect.resource.id": asset_key(root, parent), "prefect.resource.role": "asset"}
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
def publish_lineage(warehouse: str, datasets: dict[str, str], artifacts: dict[str, str]) -> None:
    """Leaves the graph of all datasets of a run, every node a link to its card. Safe to repeat."""
    store = warehouse_at(warehouse)
    manifests = [store.manifest(name, version) for name, version in datasets.items()]
    create_markdown_artifact(
        cards.lineage_graph(manifests, artifacts),
        key=cards.LINEAGE,
        description="What every dataset of the run was made from.",
    )
