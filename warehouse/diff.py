"""What differs between two versions of a dataset: rows, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import unified_diff
from typing import Any, NamedTuple

import pyarrow as pa

from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import table_named

Cause = tuple[str, str, str]


class Difference(NamedTuple):
    """Two versions of a dataset, compared by key.

    Attributes:
        n_added: Rows whose key only the newer version has.
        n_removed: Rows whose key only the older version has.
        n_changed: Rows of both whose other columns differ.
        examples: Up to three keys of each kind, by kind.
        causes: What their manifests say differs: (name, older, newer); ``calls`` and ``cost_usd``
            are among it.
        templates: A unified diff of their templates' texts, where these were kept.
    """

    n_added: int
    n_removed: int
    n_changed: int
    examples: Mapping[str, list[str]]
    causes: list[Cause]
    templates: list[str]


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
        template_changes(*(template_texts(warehouse, one) for one in manifests)),
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


def input_changes(
    current: Manifest, code_sha256: str, config: Mapping[str, Any], parents: Mapping[str, str]
) -> list[Cause]:
    """What a version that is not made yet would be made from, where that differs from one.

    Args:
        current: The version that there is.
        code_sha256: Stage code of the other one.
        config: Its configuration.
        parents: Versions of its parents.

    Returns:
        (name, as it is, as it would be) for everything that enters a version.
    """
    return _unequal(
        _inputs(current.code_sha256, current.config, current.parents),
        _inputs(code_sha256, config, parents),
    )


def template_changes(older: Mapping[str, str], newer: Mapping[str, str]) -> list[str]:
    """Lines of a unified diff between the texts of templates, by name; empty where none differs."""
    lines: list[str] = []
    for name in sorted(set(older) | set(newer)):
        before, after = older.get(name, ""), newer.get(name, "")
        lines += unified_diff(
            before.splitlines(),
            after.splitlines(),
            f"{name} (older)",
            f"{name} (newer)",
            "",
            "",
            1,
            "",
        )
    return lines


def template_texts(warehouse: Warehouse, manifest: Manifest) -> dict[str, str]:
    """The templates that a version was made with, where they were kept beside its rows."""
    found = {}
    for one in manifest.templates:
        name = template_file(one.name)
        if any(entry.name == name for entry in manifest.files):
            path = warehouse.file_path(manifest.dataset, manifest.version, name)
            found[one.name] = path.read_text("utf-8")
    return found


def template_file(name: str) -> str:
    """Name of the file beside a version's rows that holds a template's text."""
    return f"template-{name}.txt"


def _causes(older: Manifest, newer: Manifest) -> list[Cause]:
    return _unequal(_facts(older), _facts(newer))


def _unequal(older: Mapping[str, str], newer: Mapping[str, str]) -> list[Cause]:
    return [
        (name, older.get(name, "–"), newer.get(name, "–"))
        for name in sorted(set(older) | set(newer))
        if older.get(name) != newer.get(name)
    ]


def _inputs(
    code_sha256: str, config: Mapping[str, Any], parents: Mapping[str, str]
) -> dict[str, str]:
    facts = {"stage code": code_sha256[:12]}
    facts |= {f"parent {name}": version for name, version in parents.items()}
    return facts | {f"config {name}": text for name, text in _flat(config).items()}


def _facts(manifest: Manifest) -> dict[str, str]:
    facts = {
        "schema": manifest.schema_id,
        "models": ", ".join(manifest.models),
        "calls": f"{manifest.calls.made + manifest.calls.reused:,}",
        "cost_usd": "unknown" if manifest.calls.cost_usd is None else f"{manifest.calls.cost_usd}",
    }
    facts |= _inputs(manifest.code_sha256, manifest.config, manifest.parents)
    facts |= {
        f"template {one.name}": f"v{one.version} {one.sha256[:12]}" for one in manifest.templates
    }
    return facts | {f"library {name}": version for name, version in manifest.libraries.items()}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found
