"""From a figure of a report, or a user's weights, to the datasets and calls behind them.

It reads rows only to find request keys; the calls themselves are in the ledger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.errors import DatasetMissing
from warehouse.lineage import Node, ancestors
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

KINDS = ("figure", "weights")


class Start(NamedTuple):
    """Where a lineage begins; ``person`` where it is one user's."""

    dataset: str
    version: str | None
    person: str | None = None


class Behind(NamedTuple):
    """The calls of one dataset behind something.

    Attributes:
        manifest: The version whose rows rest on them.
        request_keys: All of them, sorted.
        of_person: Those of the user whose weights were asked for: that user's judgments and the
            responses judged; empty for a dataset or a figure.
    """

    manifest: Manifest
    request_keys: list[str]
    of_person: list[str]


def start_of(warehouse: Warehouse, what: str, version: str | None = None) -> Start:
    """Reads what a lineage is asked of: a dataset, ``figure:NAME`` or ``weights:PERSONA``.

    Raises:
        DatasetMissing: The current report has no such figure, or no current dataset such weights.
    """
    kind, colon, name = what.partition(":")
    if not colon or kind not in KINDS:
        return Start(what, version)
    current = warehouse.current()
    if kind == "weights":
        for dataset in ("user_weights", "adapted_weights"):
            if dataset in current:
                rows = warehouse.read(dataset, current[dataset], ["persona_id"])
                if name in rows["persona_id"].to_pylist():
                    return Start(dataset, current[dataset], name)
        raise DatasetMissing(
            f"weights of {name!r}: in no current version of user_weights or adapted_weights,"
            " expected a user the model was trained on or adapted to; look with `pref sql`"
        )
    return _figure(warehouse, current.get("report"), name)


def _figure(warehouse: Warehouse, report: str | None, name: str) -> Start:
    if report is None:
        raise DatasetMissing(
            f"figure {name!r}: warehouse {warehouse.root} has no report, expected one; make it with"
            " `pref run`"
        )
    figures = set(warehouse.read("report", report, ["figure"])["figure"].to_pylist())
    parents = warehouse.manifest("report", report).parents
    if name in figures:
        holding = [one for one in parents if one == name]
        holding += [one for one in parents if f"{name}_mean" in TABLES[one].columns]
        holding += [one for one in parents if name in TABLES[one].columns]
        if holding:
            return Start(holding[0], parents[holding[0]])
    raise DatasetMissing(
        f"figure {name!r}: the current report has none of that name, expected one of"
        f" {', '.join(sorted(figures))}"
    )


def calls_behind(warehouse: Warehouse, tree: Node, person: str | None = None) -> list[Behind]:
    """The calls behind a dataset, dataset by dataset, parents first.

    Args:
        warehouse: Where.
        tree: Its lineage.
        person: A user whose own calls are told apart.
    """
    nodes = [one.manifest for one in ancestors(tree)]
    judged = _judged(warehouse, nodes, person)
    found = []
    for one in nodes:
        if "request_key" not in TABLES[one.dataset].columns:
            continue
        rows = warehouse.read(one.dataset, one.version)
        keys = _keys(rows)
        if keys:
            mine = _keys(_of_person(rows, person, judged)) if person is not None else []
            found.append(Behind(one, keys, mine))
    return found


def as_row(one: Behind) -> dict[str, Any]:
    """A dataset's calls for a table: counts, not keys."""
    return {
        "dataset": one.manifest.dataset,
        "version": one.manifest.version,
        "calls": len(one.request_keys),
        "of_the_user": len(one.of_person),
        "first_keys": ", ".join(key[:12] for key in (one.of_person or one.request_keys)[:3]),
    }


def _judged(warehouse: Warehouse, nodes: list[Manifest], person: str | None) -> set[str]:
    """Responses that a user's judgments compare."""
    versions = {one.dataset: one.version for one in nodes}
    if person is None or not {"judgments", "pairs"} <= set(versions):
        return set()
    judgments = warehouse.read("judgments", versions["judgments"], ["persona_id", "pair_id"])
    mine = judgments.filter(pc.equal(judgments["persona_id"], person))["pair_id"]
    pairs = warehouse.read("pairs", versions["pairs"])
    pairs = pairs.filter(pc.is_in(pairs["pair_id"], value_set=mine.unique()))
    return {*pairs["response_a_id"].to_pylist(), *pairs["response_b_id"].to_pylist()}


def _of_person(rows: pa.Table, person: str, judged: set[str]) -> pa.Table:
    if "persona_id" in rows.column_names:
        return rows.filter(pc.equal(rows["persona_id"], person))
    if "response_id" in rows.column_names:
        return rows.filter(pc.is_in(rows["response_id"], value_set=pa.array(sorted(judged))))
    return rows.slice(0, 0)


def _keys(rows: pa.Table) -> list[str]:
    found: list[str] = rows["request_key"].drop_null().unique().to_pylist()
    return sorted(found)
