"""From a plan to committed datasets: what every stage task calls. It never imports Prefect."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from prompts.catalog import load_template
from tasks._engines import batch_buyer, engine_for, ledger_at
from tasks._llm.types import CallRequest
from tasks._stages import calls as call_stages
from tasks._stages.calls import CallStage
from tasks._stages.code import code_sha256
from tasks._stages.preview import preview_shards
from tasks._stages.stage import Inputs, Output, Stage, forget_tables
from tasks.types import CallCount, CallPlan, DatasetRef, StagePlan
from warehouse.diff import template_file
from warehouse.manifest import (
    VERSION_DIGITS,
    CallCounts,
    Manifest,
    Provenance,
    TemplateUse,
    dataset_version,
)
from warehouse.store import Warehouse, open_warehouse
from warehouse.tables import TABLES

LIBRARIES = (
    "prefect", "openai", "torch", "transformers", "accelerate", "numpy", "pandas", "pyarrow",
)  # fmt: skip


class RunIds(NamedTuple):
    """Prefect's names for the run that writes a dataset."""

    flow_run_id: str
    task_run_id: str | None


def plan_stage(
    stage: Stage | CallStage,
    warehouse: str,
    config: dict[str, Any],
    datasets: dict[str, str],
    places: dict[str, str] | None = None,
    how: dict[str, Any] | None = None,
) -> StagePlan:
    """Names a stage's work from what it depends on; costs no call and reads no rows.

    Args:
        stage: The stage.
        warehouse: Folder of the warehouse.
        config: What can change its output, as JSON.
        datasets: Version of every dataset known so far; the stage's parents are taken from it.
        places: Where outside inputs lie; not part of the version.
        how: How a stage that trains is run; not part of the version.
    """
    code = code_sha256(stage.module)
    parents = {name: datasets[name] for name in stage.reads}
    if isinstance(stage, Stage):
        parents |= {name: datasets[name] for name in stage.may_read if name in datasets}
    if isinstance(stage, Stage) and stage.settle:
        config, parents = stage.settle(warehouse_at(warehouse), config, parents, code)
    version = dataset_version(stage.name, code, config, parents)
    return StagePlan(
        stage=stage.name,
        warehouse=warehouse,
        version=version[:VERSION_DIGITS],
        version_sha256=version,
        code_sha256=code,
        config=config,
        parents=parents,
        places=places or {},
        how=how or {},
    )


@cache
def warehouse_at(root: str) -> Warehouse:
    """The warehouse in a folder, opened once a process."""
    return open_warehouse(root)


def inputs_of(plan: StagePlan) -> Inputs:
    """A stage's view of its warehouse."""
    return Inputs(warehouse_at(plan.warehouse), plan)


def manifests_of(plan: StagePlan, stage: Stage | CallStage) -> list[Manifest]:
    """The stage's committed manifests, verified against their bytes; empty when any is missing.

    Raises:
        DatasetCorrupt: A committed file was changed.
    """
    warehouse = warehouse_at(plan.warehouse)
    if not all(warehouse.has(name, plan.version) for name in stage.writes):
        return []
    manifests = [warehouse.manifest(name, plan.version) for name in stage.writes]
    for manifest in manifests:
        warehouse.verify(manifest)
    return manifests


def run_stage(plan: StagePlan, stage: Stage, runs: RunIds) -> list[dict[str, Any]]:
    """Builds and commits a stage that makes no calls; returns `DatasetRef`s as JSON.

    Safe to repeat: a committed version is found, not built again.
    """
    started = datetime.now(UTC)
    if not manifests_of(plan, stage):
        provenance = _provenance(plan, runs, started)
        _commit(plan, stage.build(inputs_of(plan)), provenance)
        warehouse_at(plan.warehouse).clear_staging(plan.stage, plan.version)
    return _refs(plan, stage)


def run_shard(plan: StagePlan, call_plan: CallPlan, stage: CallStage, index: int) -> dict[str, Any]:
    """Does one shard of a stage's calls; returns its `CallCount` as JSON."""
    count = call_stages.run_shard(
        stage, inputs_of(plan), index, call_plan.settings.shard_size, engine_for(call_plan)
    )
    return count.model_dump(mode="json")


def buy_ahead(plan: StagePlan, call_plan: CallPlan, stage: CallStage) -> int:
    """Buys all the calls of a stage in batches, so that its shards find them in the ledger.

    A stage whose later prompts need earlier replies is gone through once for each such step.

    Returns:
        Replies bought. Safe to repeat: open batches are collected and nothing is sent twice.
    """
    buyer = batch_buyer(call_plan)
    ledger = ledger_at(call_plan.ledger)
    made = buyer.tally().made
    is_unknown = True
    while is_unknown:
        is_unknown = False

        def missing() -> Iterator[CallRequest]:
            nonlocal is_unknown
            size = call_plan.settings.shard_size
            for shard in preview_shards(stage, inputs_of(plan), ledger, size):
                is_unknown |= shard.rows is None and shard.n_unknown > 0
                yield from shard.missing

        buyer.buy(missing)
    return buyer.tally().made - made


def gather(
    plan: StagePlan, call_plan: CallPlan, stage: CallStage, runs: RunIds
) -> list[dict[str, Any]]:
    """Commits the rows of a stage's finished shards; returns `DatasetRef`s as JSON.

    Safe to repeat: a committed version is found, not gathered again.
    """
    started = datetime.now(UTC)
    if not manifests_of(plan, stage):
        inputs = inputs_of(plan)
        rows, count = call_stages.gather(stage, inputs, call_plan.settings.shard_size)
        used = [load_template(one) for one in stage.templates(inputs)]
        templates = tuple(TemplateUse(one.name, str(one.version), one.sha256) for one in used)
        # Hashes say that a template changed; its text says how.
        texts = {template_file(one.name): one.as_text().encode() for one in used}
        provenance = _provenance(plan, runs, started, count, templates, stage.models(inputs))
        outputs = {stage.writes[0]: Output(rows, texts), **stage.finish(inputs, rows)}
        del rows  # what is committed is given back
        _commit(plan, outputs, provenance)
        inputs.warehouse.clear_staging(
            stage.name, call_stages.staging_version(plan, call_plan.settings.shard_size)
        )
    return _refs(plan, stage)


def _commit(plan: StagePlan, outputs: dict[str, Output], provenance: Provenance) -> None:
    warehouse = warehouse_at(plan.warehouse)
    for name, output in outputs.items():
        warehouse.commit(TABLES[name], provenance, output.rows, files=output.files)
    outputs.clear()
    _give_back_memory()


def _give_back_memory() -> None:
    """Returns to the system what the last stage needed, so that stages do not pile up."""
    forget_tables()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        # The C library keeps freed memory for later; later is another stage with other sizes.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _refs(plan: StagePlan, stage: Stage | CallStage) -> list[dict[str, Any]]:
    warehouse = warehouse_at(plan.warehouse)
    refs = []
    for name in stage.writes:
        found = warehouse.manifest(name, plan.version)
        ref = DatasetRef(
            dataset=name,
            version=found.version,
            n_rows=found.n_rows,
            content_sha256=found.content_sha256,
        )
        refs.append(ref.model_dump(mode="json"))
    return refs


def _provenance(
    plan: StagePlan,
    runs: RunIds,
    started: datetime,
    count: CallCount = CallCount(),  # noqa: B008 - frozen
    templates: tuple[TemplateUse, ...] = (),
    models: tuple[str, ...] = (),
) -> Provenance:
    commit, is_dirty = _code_commit()
    return Provenance(
        stage=plan.stage,
        code_sha256=plan.code_sha256,
        config=plan.config,
        parents=plan.parents,
        flow_run_id=runs.flow_run_id,
        task_run_id=runs.task_run_id,
        started_at=started,
        templates=templates,
        models=models,
        calls=CallCounts(**count.model_dump()),
        code_commit=commit,
        is_code_dirty=is_dirty,
        libraries=_libraries(),
    )


@cache
def _code_commit() -> tuple[str | None, bool]:
    """The commit of the checkout this code runs from, and whether it had uncommitted changes."""
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit or None, bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _libraries() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}
