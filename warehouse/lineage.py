"""What a dataset was made from, back to the first stage. It reads manifests, never rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from warehouse.errors import DatasetMissing
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import table_named


@dataclass(frozen=True)
class Node:
    """One dataset version and what it was made from.

    Attributes:
        manifest: The version's manifest.
        parents: Nodes of its parents, by dataset; a shared ancestor is the same object.
    """

    manifest: Manifest
    parents: tuple["Node", ...]


def lineage_tree(warehouse: Warehouse, name: str, version: str | None = None) -> Node:
    """Follow a dataset's parents down to the first stage.

    Args:
        warehouse: Where the datasets are.
        name: Dataset.
        version: Version; the current one if None.

    Raises:
        DatasetMissing: The dataset, or one it was made from, is not there.
        DatasetCorrupt: A manifest is not what was committed.
    """
    if version is None:
        version = warehouse.current().get(table_named(name).name)
    if version is None:
        raise DatasetMissing(
            f"dataset {name}: no version in warehouse {warehouse.root}, expected at least one; "
            "make it with `pref run`"
        )
    built: dict[tuple[str, str], Node] = {}

    # A version is the hash of its parents' versions, so there can be no cycle.
    def build(dataset: str, wanted: str) -> Node:
        if (dataset, wanted) not in built:
            manifest = warehouse.manifest(dataset, wanted)
            parents = tuple(build(*item) for item in sorted(manifest.parents.items()))
            built[dataset, wanted] = Node(manifest, parents)
        return built[dataset, wanted]

    return build(name, version)


def render_lines(node: Node) -> list[str]:
    """Draw the tree as text, one dataset a line; an ancestor met again is only named."""
    return list(_lines(node, "", "", set()))


def to_json(node: Node) -> dict[str, Any]:
    """Flatten the tree for scripts.

    Returns:
        ``root`` [dataset, version] and ``datasets``, each ancestor once, children before
        parents, with stage, rows, bytes, cost, calls, models, templates, parents and run.
    """
    datasets = [_summary(one.manifest) for one in _children_first(node)]
    return {"root": [node.manifest.dataset, node.manifest.version], "datasets": datasets}


def ancestors(node: Node) -> list[Node]:
    """A dataset and everything it was made from, each once, parents before children."""
    return _children_first(node)[::-1]


def _lines(node: Node, lead: str, lead_below: str, seen: set[str]) -> Iterator[str]:
    manifest = node.manifest
    title = f"{manifest.dataset} {manifest.version}"
    is_repeated = title in seen and bool(node.parents)
    seen.add(title)
    yield f"{lead}{title}  (see above)" if is_repeated else f"{lead}{title}  {_facts(manifest)}"
    for index, parent in enumerate(() if is_repeated else node.parents):
        is_last = index == len(node.parents) - 1
        yield from _lines(
            parent,
            lead_below + ("└─ " if is_last else "├─ "),
            lead_below + ("   " if is_last else "│  "),
            seen,
        )


def _facts(manifest: Manifest) -> str:
    rows = "1 row" if manifest.n_rows == 1 else f"{manifest.n_rows:,} rows"
    facts = [f"by {manifest.stage}", rows]
    calls = manifest.calls
    if calls.made or calls.reused:
        cost = "price unknown" if calls.cost_usd is None else f"${calls.cost_usd:,.4f}"
        facts.append(f"{calls.made:,} calls made, {calls.reused:,} reused, {cost}")
    if manifest.models:
        facts.append(f"models {', '.join(manifest.models)}")
    if manifest.templates:
        names = ", ".join(
            f"{use.name} {use.version} {use.sha256[:12]}" for use in manifest.templates
        )
        facts.append(f"templates {names}")
    return "; ".join(facts)


def _children_first(node: Node) -> list[Node]:
    # Reversed depth-first post-order: a dataset stands before everything it was made from.
    ordered: list[Node] = []
    seen: set[int] = set()

    def visit(one: Node) -> None:
        if id(one) not in seen:
            seen.add(id(one))
            for parent in reversed(one.parents):
                visit(parent)
            ordered.append(one)

    visit(node)
    return ordered[::-1]


def _summary(manifest: Manifest) -> dict[str, Any]:
    calls = manifest.calls
    return {
        "dataset": manifest.dataset,
        "version": manifest.version,
        "stage": manifest.stage,
        "n_rows": manifest.n_rows,
        "n_bytes": manifest.n_bytes,
        "content_sha256": manifest.content_sha256,
        "parents": dict(manifest.parents),
        "models": list(manifest.models),
        "templates": [
            {"name": use.name, "version": use.version, "sha256": use.sha256}
            for use in manifest.templates
        ],
        "calls_made": calls.made,
        "calls_reused": calls.reused,
        "prompt_tokens": calls.prompt_tokens,
        "completion_tokens": calls.completion_tokens,
        "cost_usd": calls.cost_usd,
        "code_commit": manifest.code_commit,
        "is_code_dirty": manifest.is_code_dirty,
        "flow_run_id": manifest.flow_run_id,
        "task_run_id": manifest.task_run_id,
        "started_at": manifest.started_at.isoformat(),
        "finished_at": manifest.finished_at.isoformat(),
    }
