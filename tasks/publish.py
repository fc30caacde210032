"""What a stage leaves in the Prefect UI: an artifact for each dataset, under a stable key.

Written by an uncached task, since a cached one says nothing of the run that produced its data.
"""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks import _cards as cards
from tasks._runs import warehouse_at
from tasks.types import StagePlan


@task(name="publish", task_run_name="publish {plan.stage}", cache_policy=NO_CACHE)
def publish(plan: StagePlan, refs: list[dict[str, Any]], is_reused: bool) -> None:
    """Leaves each dataset's card, and the tables and picture that go with it. Safe to repeat."""
    warehouse = warehouse_at(plan.warehouse)
    for ref in refs:
        manifest = warehouse.manifest(ref["dataset"], ref["version"])
        create_markdown_artifact(
            cards.dataset_card(manifest, is_reused=is_reused),
            key=cards.key(ref["dataset"]),
            description=cards.grain(ref["dataset"]),
        )
        rows = cards.table_of(warehouse, manifest)
        if rows:
            create_table_artifact(
                rows,
                key=cards.key(ref["dataset"], "table"),
                description=cards.grain(ref["dataset"]),
            )
    picture = cards.picture_of(warehouse, plan)
    if picture:
        create_markdown_artifact(picture, key=cards.key(plan.stage, "picture"))
