"""What was built on something: a dataset, call, template, model or persona. It repairs nothing.

The other direction, what a dataset was made from, is `warehouse.lineage`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.errors import DatasetMissing
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

# Columns that hold each kind of thing; a call may be named by the first digits of its key.
_COLUMNS = {
    "call": ("request_key",),
    "persona": ("persona_id", "toward_persona_id", "shown_persona_id", "author_id"),
    "prompt": ("prompt_id",),
    "pair": ("pair_id",),
    "response": ("response_id",),
}
KINDS = ("template", "model", *_COLUMNS)


class Use(NamedTuple):
    """One dataset version that something went into.

    Attributes:
        manifest: The version.
        n_rows: Its rows that name the thing; None where it came in through a parent alone.
        via: Parents through which it came, by dataset name; empty where it came in directly.
    """

    manifest: Manifest
    n_rows: int | None
    via: tuple[str, ...]


def uses(warehouse: Warehouse, what: str, version: str | None = None) -> list[Use]:
    """Finds everything built on something, parents before children.

    Args:
        warehouse: Where to look; every version is looked at, not only current ones.
        what: A dataset, or ``kind:name`` with a kind of `KINDS`.
        version: Version of the dataset; None for the current one.

    Returns:
        The versions in an order in which they can be made anew; empty if nothing is.

    Raises:
        DatasetMissing: No such dataset, version or kind.
    """
    kind, colon, name = what.partition(":")
    if colon and kind not in KINDS:
        raise DatasetMissing(
            f"{what!r}: {kind!r} is no kind of thing, expected one of {', '.join(KINDS)}, as in"
            " template:judge_attributes, or the name of a dataset"
        )
    if not colon:
        root = _manifest(warehouse, what, version)
        return _with_children(warehouse, {(root.dataset, root.version): None}, {root.dataset})
    direct = {
        (one.dataset, one.version): count
        for one in warehouse.manifests()
        if (count := _direct(warehouse, one, kind, name)) is not None
    }
    return _with_children(warehouse, direct, set())


def _manifest(warehouse: Warehouse, dataset: str, version: str | None) -> Manifest:
    if version is None:
        version = warehouse.current().get(dataset)
    if dataset not in TABLES or version is None:
        raise DatasetMissing(
            f"dataset {dataset}: not in warehouse {warehouse.root}, expected one that"
            f" `pref datasets` lists, or kind:name with a kind of {', '.join(KINDS)}"
        )
    return warehouse.manifest(dataset, version)


def _direct(warehouse: Warehouse, one: Manifest, kind: str, name: str) -> int | None:
    """Rows of a version that name the thing; 0 where its manifest does, None where nothing does."""
    if kind == "template":
        wanted, _, sha256 = name.partition("@")
        is_used = any(use.name == wanted and use.sha256.startswith(sha256) for use in one.templates)
        return 0 if is_used else None
    if kind == "model":
        return 0 if name in one.models else None
    table = TABLES[one.dataset]
    columns = [column for column in _COLUMNS[kind] if column in table.columns]
    match: Callable[[pa.ChunkedArray], pa.ChunkedArray] = (
        (lambda values: pc.starts_with(values, name))
        if kind == "call"
        else (lambda values: pc.equal(values, name))
    )
    if not columns:
        return None
    rows = warehouse.read(one.dataset, one.version, columns)
    found = sum(pc.sum(match(rows[column])).as_py() or 0 for column in columns)
    return found or None


def _with_children(
    warehouse: Warehouse, direct: Mapping[tuple[str, str], int | None], roots: set[str]
) -> list[Use]:
    found: dict[tuple[str, str], Use] = {}
    for one in parents_first(warehouse.manifests()):
        key = (one.dataset, one.version)
        via = tuple(
            name for name, version in sorted(one.parents.items()) if (name, version) in found
        )
        if key in direct or via:
            is_root = one.dataset in roots and key in direct
            count = None if is_root else direct.get(key)
            found[key] = Use(one, count or None, () if key in direct and not via else via)
    return list(found.values())


def parents_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The manifests in an order in which their datasets can be made anew."""
    by_key = {(one.dataset, one.version): one for one in manifests}
    ordered: dict[tuple[str, str], Manifest] = {}

    # A version is the hash of its parents' versions, so there can be no cycle.
    def visit(key: tuple[str, str]) -> None:
        if key in ordered or key not in by_key:
            return
        for parent in sorted(by_key[key].parents.items()):
            visit(parent)
        ordered[key] = by_key[key]

    for key in sorted(by_key):
        visit(key)
    return list(ordered.values())
