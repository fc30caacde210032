"""Looks for anything in a warehouse that is not as it was committed. It repairs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.checks import check_rows
from warehouse.errors import DatasetCorrupt, WarehouseError
from warehouse.forget import people_in
from warehouse.forgotten import is_forgotten, tombstones
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

Held = Callable[[Iterable[str]], set[str]]


class Finding(NamedTuple):
    """One thing that is wrong with a dataset version, in one line."""

    dataset: str
    version: str
    problem: str


def audit(warehouse: Warehouse, held: Held | None = None) -> Iterator[Finding]:
    """Verifies every version: files, manifest, parents, rows, split, links to the ledger.

    Versions that went because a person was forgotten are no loss; that one of them, or the
    person, is there again is a finding.

    Args:
        warehouse: What to look at.
        held: Which of some request keys the call ledger holds; links are not checked if None.

    Yields:
        What was found, version by version; nothing where all is as committed.
    """
    graves = tombstones(warehouse)
    for grave in graves:
        if grave.finished_at is None:
            yield Finding(
                "personas",
                "-",
                f"the removal of a person that began {grave.began_at:%Y-%m-%d %H:%M} was cut off;"
                " expected it to be finished; give the same `pref forget` again",
            )
    marks = [one.mark for one in graves]
    for dataset, version in _versions(warehouse):
        try:
            manifest = warehouse.manifest(dataset, version)
            warehouse.verify(manifest)
        except WarehouseError as error:
            yield Finding(dataset, version, str(error))
            continue
        problems = [*_missing_parents(warehouse, manifest), *_faulty_rows(warehouse, manifest)]
        if marks and manifest.schema_id == TABLES[dataset].schema_id:
            problems += _returned(warehouse, manifest, marks)
        if dataset == "splits":
            problems += _leaks(warehouse, manifest)
        if held is not None:
            problems += _unlinked(warehouse, manifest, held)
        for problem in problems:
            yield Finding(dataset, version, problem)


def _versions(warehouse: Warehouse) -> Iterator[tuple[str, str]]:
    """Every version folder, whether or not its manifest can still be read."""
    for dataset in TABLES:
        for folder in sorted((warehouse.root / dataset).glob("version=*")):
            yield dataset, folder.name.removeprefix("version=")


def _missing_parents(warehouse: Warehouse, manifest: Manifest) -> list[str]:
    return [
        f"its parent {name} {version} is not in the warehouse; expected every parent; run again"
        for name, version in manifest.parents.items()
        if not warehouse.has(name, version)
    ]


def _faulty_rows(warehouse: Warehouse, manifest: Manifest) -> list[str]:
    table = TABLES[manifest.dataset]
    if table.schema_id != manifest.schema_id:
        return [
            f"its columns are those of schema {manifest.schema_id}, this release has"
            f" {table.schema_id}; expected the same; read it with the release that wrote it"
        ]
    rows = warehouse.read(manifest.dataset, manifest.version)
    if rows.num_rows != manifest.n_rows:
        return [f"it has {rows.num_rows} rows, expected {manifest.n_rows} as committed"]
    return [str(fault) for fault in check_rows(table, rows, parent_keys(warehouse, manifest))]


def parent_keys(warehouse: Warehouse, manifest: Manifest) -> dict[str, pa.ChunkedArray]:
    """Values that a version's foreign keys may have: "table.column" of its parents -> values."""
    keys = {}
    targets = {
        target for several in TABLES[manifest.dataset].foreign.values() for target in several
    }
    for target in targets:
        dataset, _, column = target.partition(".")
        version = manifest.parents.get(dataset)
        if version is not None and warehouse.has(dataset, version):
            # A corrupt parent is a finding of its own; its children are judged without it.
            with suppress(DatasetCorrupt):
                keys[target] = warehouse.read(dataset, version, [column]).column(column)
    return keys


def _returned(warehouse: Warehouse, manifest: Manifest, marks: list[str]) -> list[str]:
    """People who were forgotten and are named again."""
    found = sum(is_forgotten(one, marks) for one in people_in(warehouse, manifest))
    if not found:
        return []
    return [
        f"it names {found} {'person' if found == 1 else 'people'} that had been forgotten; expected"
        " none; give the same `pref forget` again"
    ]


def _leaks(warehouse: Warehouse, manifest: Manifest) -> list[str]:
    """Prompts with pairs on both sides of a split."""
    version = manifest.parents.get("pairs")
    if version is None or not warehouse.has("pairs", version):
        return []
    try:
        pairs = warehouse.read("pairs", version, ["pair_id", "prompt_id"])
    except DatasetCorrupt:
        return []
    splits = warehouse.read("splits", manifest.version)
    splits = splits.filter(pc.equal(splits["entity_kind"], "pair"))
    joined = splits.join(pairs, "entity_id", "pair_id")
    sides = joined.group_by("prompt_id").aggregate([("side", "count_distinct")])
    # Where all data are about one prompt, no split can keep it on one side.
    if sides.num_rows == 1:
        return []
    both = sides.filter(pc.greater(sides["side_count_distinct"], 1))["prompt_id"].to_pylist()
    if not both:
        return []
    return [f"{len(both)} prompts are on both sides ({', '.join(both[:3])}); expected none"]


def _unlinked(warehouse: Warehouse, manifest: Manifest, held: Held) -> list[str]:
    """Rows whose call is not in the ledger."""
    if "request_key" not in TABLES[manifest.dataset].columns:
        return []
    rows = warehouse.read(manifest.dataset, manifest.version, ["request_key"])
    # A text taken over from a data set has no call.
    keys = set(rows["request_key"].drop_null().to_pylist())
    lost = sorted(keys - held(keys))
    if not lost:
        return []
    shown = ", ".join(key[:12] for key in lost[:3])
    return [f"{len(lost)} of {len(keys)} calls are not in the ledger ({shown}); expected all"]
