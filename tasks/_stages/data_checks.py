"""Checks of a run's datasets as rows: what their tables declare, coverage of the matrix, drift.

It repairs nothing and stops nothing; `tasks.checks.gate` reads the rows and stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tasks._stages.stage import Inputs, Output, Stage
from warehouse.audit import parent_keys
from warehouse.checks import MAX_EXAMPLES, RowChecker, declared_constraints
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

_CELL = ("persona_id", "pair_id")
# What of the judge's overall record is compared with the version before, and the tolerance's name.
_JUDGE = {"consistent_share": "consistency_drift", "position_bias_logit": "bias_drift_logit"}


class _Measure(NamedTuple):
    """A number beside what it may be, as columns of ``data_checks``."""

    dataset: str
    check: str
    columns: str
    outcome: str
    n_checked: int
    n_faulty: int = 0
    faulty_rows: str | None = None
    value: float | None = None
    previous_value: float | None = None
    tolerance: float | None = None
    previous_version: str | None = None


def build(inputs: Inputs) -> dict[str, Output]:
    """Looks at every dataset that the flow has made so far."""
    versions = inputs.plan.parents
    measures: list[_Measure] = []
    for dataset, version in sorted(versions.items()):
        measures += _constraints(inputs.warehouse, inputs.warehouse.manifest(dataset, version))
    if "preferences" in versions:
        measures += _coverage(inputs)
        measures += _drift(inputs)
    rows = [
        {
            "checked_dataset": one.dataset,
            "checked_version": versions[one.dataset],
            "check_name": one.check,
            "checked_columns": one.columns,
            **{name: value for name, value in one._asdict().items() if name not in _NAMED},
        }
        for one in sorted(measures)
    ]
    return {"data_checks": Output(pa.Table.from_pylist(rows, TABLES["data_checks"].schema))}


_NAMED = ("dataset", "check", "columns")


def told(row: dict[str, Any]) -> str:
    """One row of ``data_checks`` that did not pass, in a line."""
    where = f"{row['checked_dataset']} {row['checked_version']}: {row['check_name']} of"
    line = f"{where} {row['checked_columns']}"
    if row["value"] is not None:
        line += f" is {row['value']:.4g}"
    if row["previous_value"] is not None:
        line += f", was {row['previous_value']:.4g} in {row['previous_version']}"
    if row["tolerance"] is not None:
        line += f", tolerance {row['tolerance']:.4g}"
    if row["n_faulty"]:
        line += f", {row['n_faulty']:,} of {row['n_checked']:,} rows ({row['faulty_rows']})"
    return line


def is_worth_showing(row: dict[str, Any]) -> bool:
    """Whether a row tells more than that a declared constraint holds."""
    return row["outcome"] != "passed" or row["check_name"] in ("coverage", "drift")


def checks_shown(inputs: Inputs) -> dict[str, Any] | None:
    """What a report says of the checks: how many there were, and those worth showing."""
    if "data_checks" not in inputs.plan.parents:
        return None
    rows = inputs.read("data_checks").to_pylist()
    return {
        "n_checks": len(rows),
        "n_datasets": len({row["checked_dataset"] for row in rows}),
        "rows": [row for row in rows if is_worth_showing(row)],
    }


def settle(
    warehouse: Warehouse, config: dict[str, Any], parents: dict[str, str], code_sha256: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Names the matrix that this one is compared with, so that it is part of the version.

    That is the matrix of the newest complete run of the same flow that ended before this matrix
    was committed: the same whenever the same command is given.
    """
    config = dict(config)
    flow = config.pop("flow")
    version = parents.get("preferences")
    if version is None:
        return config, parents
    made_at = warehouse.manifest("preferences", version).finished_at
    for run in reversed(warehouse.runs()):
        earlier = run.datasets.get("preferences")
        is_before = run.finished_at is not None and run.finished_at < made_at
        if run.flow == flow and run.is_complete and is_before and earlier not in (None, version):
            kept = {
                name: run.datasets[name]
                for name in ("preferences", "judge_audit")
                if name in run.datasets and warehouse.has(name, run.datasets[name])
            }
            if kept:
                return {**config, "previous": kept}, parents
    return config, parents


def _constraints(warehouse: Warehouse, manifest: Manifest) -> Iterator[_Measure]:
    table = TABLES[manifest.dataset]
    known = parent_keys(warehouse, manifest)
    checker = RowChecker(table, known)
    for batch in warehouse.batches(manifest.dataset, manifest.version):
        checker.add(pa.Table.from_batches([batch], table.schema))
    faults = checker.faults()
    for kind, columns in declared_constraints(table, known):
        broken = [one for one in faults if (one.kind, one.column) == (kind, columns)]
        rows = [f"{one.problem}: {'; '.join(one.examples)}" for one in broken]
        yield _Measure(
            manifest.dataset,
            kind,
            columns,
            "failed" if broken else "passed",
            manifest.n_rows,
            sum(one.n_rows for one in broken),
            "; ".join(rows) or None,
        )


def _coverage(inputs: Inputs) -> Iterator[_Measure]:
    """Cells that were asked and have a verdict; users and pairs that have any."""
    rows = inputs.read("preferences")
    is_known = pc.is_valid(rows["preference_prob"])
    labeled, empty = rows.filter(is_known), rows.filter(pc.invert(is_known))
    share = labeled.num_rows / rows.num_rows if rows.num_rows else 0.0
    least = inputs.config["min_coverage"]
    yield _Measure(
        "preferences",
        "coverage",
        ", ".join(_CELL),
        "passed" if share >= least else "failed",
        rows.num_rows,
        empty.num_rows,
        _some(["/".join(row[name] for name in _CELL) for row in _first(empty)], empty.num_rows),
        share,
        tolerance=least,
    )
    for dataset, column in (("personas", "persona_id"), ("pairs", "pair_id")):
        everyone = inputs.read(dataset)[column]
        has_label = pc.is_in(everyone, value_set=labeled[column].unique())
        left = everyone.filter(pc.invert(has_label)).to_pylist()
        yield _Measure(
            dataset,
            "coverage",
            column,
            "warned" if left else "passed",
            len(everyone),
            len(left),
            _some(left[:MAX_EXAMPLES], len(left)),
        )


def _drift(inputs: Inputs) -> Iterator[_Measure]:
    """How far judge and preferences moved from those of the run before; nothing without one."""
    previous = inputs.config.get("previous", {})
    if "judge_audit" in previous and "judge_audit" in inputs.plan.parents:
        before = _overall(inputs.warehouse.read("judge_audit", previous["judge_audit"]))
        now = _overall(inputs.read("judge_audit"))
        for column, setting in _JUDGE.items():
            if before[column] is not None and now[column] is not None:
                yield _moved(
                    inputs, "judge_audit", column, now[column], before[column], setting
                )._replace(n_checked=now["n_judgments"])
    if "preferences" in previous:
        yield from _preference_drift(inputs, previous["preferences"])


def _preference_drift(inputs: Inputs, version: str) -> Iterator[_Measure]:
    before = inputs.warehouse.read("preferences", version)
    now = inputs.read("preferences")
    means = [pc.mean(one["preference_prob"]).as_py() for one in (now, before)]
    if None in means:
        return
    setting = "preference_drift"
    moved = _moved(inputs, "preferences", "preference_prob", means[0], means[1], setting)
    yield moved._replace(n_checked=now.num_rows)
    # A pair's mean over its users says more than the mean of all, in which changes cancel out.
    changes = _pair_means(now).join(_pair_means(before), "pair_id", right_suffix="_before")
    changes = changes.filter(pc.is_valid(changes["mean_before"]))
    size = pc.abs(pc.subtract(changes["mean"], changes["mean_before"]))
    if not len(size):
        return
    tolerance = inputs.config[setting]
    changes = changes.append_column("size", size).sort_by(
        [("size", "descending"), ("pair_id", "ascending")]
    )
    large = changes.filter(pc.greater(changes["size"], tolerance))
    told_rows = [
        f"{row['pair_id']}: {row['mean_before']:.2f} to {row['mean']:.2f}" for row in _first(large)
    ]
    mean = float(pc.mean(size).as_py())
    yield _moved(inputs, "preferences", "preference_prob by pair", mean, 0.0, setting)._replace(
        n_checked=len(size),
        n_faulty=large.num_rows,
        faulty_rows=_some(told_rows, large.num_rows),
    )


def _moved(
    inputs: Inputs, dataset: str, measure: str, now: float, before: float, setting: str
) -> _Measure:
    tolerance = inputs.config[setting]
    beyond = "warned" if inputs.config["on_drift"] == "warn" else "failed"
    return _Measure(
        dataset,
        "drift",
        measure,
        beyond if abs(now - before) > tolerance else "passed",
        0,
        value=now,
        previous_value=before,
        tolerance=tolerance,
        previous_version=inputs.config["previous"][dataset],
    )


def _pair_means(preferences: pa.Table) -> pa.Table:
    means = preferences.group_by("pair_id").aggregate([("preference_prob", "mean")])
    means = means.rename_columns(["pair_id", "mean"])
    return means.filter(pc.is_valid(means["mean"]))


def _overall(audit: pa.Table) -> dict[str, Any]:
    rows: list[dict[str, Any]] = audit.to_pylist()
    return next(row for row in rows if row["slice_kind"] == "overall")


def _first(rows: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.slice(0, MAX_EXAMPLES).to_pylist()
    return found


def _some(examples: Sequence[str], count: int) -> str | None:
    if not count:
        return None
    return "; ".join(examples) + ("; …" if count > len(examples) else "")


STAGE = Stage(
    name="data_checks",
    reads=(),
    may_read=tuple(name for name in TABLES if name not in ("data_checks", "report")),
    writes=("data_checks",),
    module=__name__,
    build=build,
    settle=settle,
)
