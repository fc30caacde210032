"""What differs between two versions of a dataset: rows, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import table_named


class Difference(NamedTuple):
    """Two versions of a dataset, compared by key.

    Attributes:
        n_added: Rows whose key only the newer version has.
        n_removed: Rows whose key only the older version has.
        n_changed: Rows of both whose other columns differ.
        examples: Up to three keys of each kind, by kind.
        causes: What their manifests say differs: (name, older, newer).
    """

    n_added: int
    n_removed: int
    n_changed: int
    examples: Mapping[str, list[str]]
    causes: list[tuple[str, str, str]]


def diff(warehouse: Warehouse, dataset: str, older: str, newer: str) -> Difference:
    """Compares two versions.

    Raises:
        DatasetMissing: There is no such dataset or version.
        DatasetCorrupt: A file is not what was committed.
    """
    table = table_named(dataset)
    manifests = warehouse.manifest(dataset, older), warehouse.manifest(dataset, newer)
    before, after = (_by_key(warehouse, one, table.key) for one in manifests)
    added = [key for key in after if key not in before]
    removed = [key for key in before if key not in after]
    changed = [key for key, row in after.items() if key in before and before[key] != row]
    examples = {"added": added, "removed": removed, "changed": changed}
    return Difference(
        len(added),
        len(removed),
        len(changed),
        {kind: ["/".join(key) for key in keys[:3]] for kind, keys in examples.items()},
        _causes(*manifests),
    )


def _by_key(
    warehouse: Warehouse, manifest: Manifest, key: tuple[str, ...]
) -> dict[tuple[str, ...], int]:
    """A hash of each row by its key; of the row, not the whole of it, so that memory is bounded."""
    found: dict[tuple[str, ...], int] = {}
    for batch in warehouse.batches(manifest.dataset, manifest.version):
        for row in pa.Table.from_batches([batch]).to_pylist():
            found[tuple(str(row[name]) for name in key)] = hash(repr(row))
    return found


def _causes(older: Manifest, newer: Manifest) -> list[tuple[str, str, str]]:
    sides = [_facts(one) for one in (older, newer)]
    names = sorted(set(sides[0]) | set(sides[1]))
    return [
        (name, sides[0].get(name, "–"), sides[1].get(name, "–"))
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def _facts(manifest: Manifest) -> dict[str, str]:
    facts = {
        "schema": manifest.schema_id,
        "stage code": manifest.code_sha256[:12],
        "models": ", ".join(manifest.models),
        "calls": f"{manifest.calls.made + manifest.calls.reused:,}",
        "cost_usd": "unknown" if manifest.calls.cost_usd is None else f"{manifest.calls.cost_usd}",
    }
    facts |= {f"parent {name}": version for name, version in manifest.parents.items()}
    facts |= {
        f"template {one.name}": f"v{one.version} {one.sha256[:12]}" for one in manifest.templates
    }
    facts |= {f"library {name}": version for name, version in manifest.libraries.items()}
    facts |= {f"config {name}": text for name, text in _flat(manifest.config).items()}
    return facts


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found
