"""Publishes dataset versions as a folder: Parquet, a card, Croissant. It never imports Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks._dataset_card import card
from tasks._sources import ancestry, judge_of, licence_address, origin, overall_licence
from warehouse.croissant import Described, Exported, croissant
from warehouse.errors import DatasetMissing, WarehouseError
from warehouse.export import export
from warehouse.exports import ExportRecord, record_export
from warehouse.manifest import Manifest
from warehouse.paths import hash_file
from warehouse.store import Warehouse, utc_now
from warehouse.tables import TABLES, table_named

# What makes up a preference matrix; models and measures are exported where they are named.
MATRIX = (
    "prompts", "personas", "responses", "pairs", "judgments", "answers", "preferences",
    "judge_audit", "splits",
)  # fmt: skip
# The layout of an export, by semantic versioning.
EXPORT_VERSION = "1.0.0"


def export_datasets(
    warehouse: Warehouse,
    wanted: Sequence[str],
    target: Path,
    name: str,
    licence: str | None = None,
) -> dict[str, Any]:
    """Writes a Hugging Face dataset folder, all at once or not at all.

    Args:
        warehouse: Where the versions are.
        wanted: Datasets, each ``name`` or ``name=version``; empty: the preference matrix of the
            run that was finished last.
        target: A new or empty folder.
        name: Name of the data set.
        licence: Licence of sources that nobody stated one for.

    Returns:
        ``folder``, ``datasets`` {name: version}, ``rows`` {name: number}, ``licence``,
        ``is_synthetic``, ``is_simulated``, ``sources`` [{name, licence}].

    Raises:
        DatasetMissing: A dataset, a version or a parent is not there.
        WarehouseError: Versions do not belong together, or the target cannot be written.
        StorageFull, DatasetCorrupt: As named.
    """
    versions = _chosen(warehouse, wanted)
    manifests = [
        warehouse.manifest(dataset, versions[dataset]) for dataset in TABLES if dataset in versions
    ]
    ancestors = ancestry(warehouse, versions)
    _belong_together(manifests, ancestors)
    found = origin(ancestors, warehouse.runs(), licence)
    overall = overall_licence(found)
    audited = _audit(warehouse, versions)
    summary = _summary(manifests, is_synthetic=bool(found.models))
    described = Described(
        name=name,
        summary=summary,
        licence=licence_address(overall),
        citation="; ".join(one.citation for one in found.sources if one.citation) or None,
        version=EXPORT_VERSION,
        is_synthetic=bool(found.models),
    )

    def pages(exported: Sequence[Exported]) -> dict[str, bytes]:
        told = card(name, summary, exported, ancestors, found, judge_of(ancestors), audited)
        document = croissant(described, exported)
        return {
            "README.md": told.encode(),
            "croissant.json": (json.dumps(document, indent=2) + "\n").encode(),
        }

    _exported(warehouse, export(warehouse, manifests, target, pages), target)
    return {
        "folder": str(target),
        "datasets": {one.dataset: one.version for one in manifests},
        "rows": {one.dataset: one.n_rows for one in manifests},
        "licence": overall,
        "is_synthetic": bool(found.models),
        "is_simulated": found.is_simulated,
        "sources": [{"name": one.name, "licence": one.licence} for one in found.sources],
    }


def _exported(warehouse: Warehouse, exported: Sequence[Exported], target: Path) -> None:
    """Puts an export on record, so that `pref forget` finds it."""
    folder = target.expanduser().absolute()
    record_export(
        warehouse,
        ExportRecord(
            folder=str(folder),
            exported_at=utc_now(),
            datasets={one.manifest.dataset: one.manifest.version for one in exported},
            files={
                path.relative_to(folder).as_posix(): hash_file(path)[1]
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        ),
    )


def _chosen(warehouse: Warehouse, wanted: Sequence[str]) -> dict[str, str]:
    if not wanted:
        # Of one run: the newest version of each dataset may come from flows that never met.
        run = next((one for one in reversed(warehouse.runs()) if one.is_complete), None)
        there = run.datasets if run is not None else warehouse.current()
        chosen = {name: there[name] for name in MATRIX if name in there}
        if not chosen:
            raise DatasetMissing(
                f"warehouse {warehouse.root}: no preference matrix, expected one that a run has"
                " made; run a flow first, or name datasets"
            )
        return chosen
    current = warehouse.current()
    chosen = {}
    for one in wanted:
        name, equals, version = one.partition("=")
        dataset = table_named(name).name
        if not equals and dataset not in current:
            raise DatasetMissing(
                f"dataset {dataset}: no version in warehouse {warehouse.root}, expected at least"
                " one; `pref datasets` lists what there is"
            )
        chosen[dataset] = warehouse.manifest(dataset, version or current[dataset]).version
    return chosen


def _belong_together(manifests: Sequence[Manifest], ancestors: Sequence[Manifest]) -> None:
    """Refuses rows whose ids would point into other versions of the tables beside them."""
    chosen = {one.dataset: one.version for one in manifests}
    for one in ancestors:
        for parent, version in one.parents.items():
            if chosen.get(parent, version) != version:
                raise WarehouseError(
                    f"export: {one.dataset} {one.version} was made from {parent} {version}, not"
                    f" from {parent} {chosen[parent]}; expected versions that belong together;"
                    f" name {parent}={version}"
                )


def _audit(warehouse: Warehouse, versions: Mapping[str, str]) -> dict[str, Any] | None:
    version = versions.get("judge_audit")
    if version is None:
        return None
    rows = warehouse.read("judge_audit", version).to_pylist()
    return next((row for row in rows if row["slice_kind"] == "overall"), None)


def _summary(manifests: Sequence[Manifest], *, is_synthetic: bool) -> str:
    counts = ", ".join(f"{one.n_rows:,} {one.dataset}" for one in manifests)
    who = "language models in the roles of users" if is_synthetic else "people"
    return f"A preference matrix with answers by {who}: {counts}."
