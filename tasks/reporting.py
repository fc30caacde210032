"""The report as files for a paper: page, figures as SVG and PNG, their numbers as CSV.

It reads a warehouse and writes one folder; it commits nothing and never imports Prefect.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks._stages import exhibits, report
from tasks._stages.stage import Inputs
from tasks.errors import InputRejected
from tasks.types import StagePlan
from warehouse.errors import DatasetMissing
from warehouse.manifest import Manifest
from warehouse.store import Warehouse

BENCHMARK = "benchmark_means"


def write_report(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    """Writes the newest run's report, with the benchmark of its matrix if there is one.

    Args:
        warehouse: Where the run's datasets are.
        folder: Made if need be; files of an earlier report there are replaced.

    Returns:
        ``folder``, ``files`` (names), ``datasets`` {name: version}, ``notes``: lines on what is
        not there.

    Raises:
        DatasetMissing: No run has come to its report.
        InputRejected: A report of real users, which has one figure; or the folder is no folder.
    """
    inputs, notes = _inputs(warehouse)
    page = report.build(inputs)["report"].files["report.html"]
    files: dict[str, bytes] = {"report.html": page if isinstance(page, bytes) else b""}
    lineage: dict[str, Any] = {}
    for one in (*exhibits.of_run(inputs), *exhibits.of_benchmark(inputs)):
        files[f"{one.name}.csv"] = _csv(one.rows)
        if one.drawn is not None:
            files[f"{one.name}.svg"] = one.drawn.svg.encode()
            files[f"{one.name}.png"] = one.drawn.png
        lineage[one.name] = {
            "paper": one.paper,
            "title": one.title,
            "caption": one.caption,
            "datasets": {name: inputs.plan.parents[name] for name in one.sources},
        }
    files["judge-audit.csv"] = _csv(inputs.read("judge_audit").to_pylist())
    files["cost.csv"] = _csv(report.spending(inputs))
    files["lineage.json"] = (json.dumps(lineage, indent=1) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InputRejected(
            f"report: {folder} cannot be written ({error.strerror}); expected a folder of yours;"
            " name another with --to"
        ) from error
    return {
        "folder": str(folder),
        "files": sorted(files),
        "datasets": dict(inputs.plan.parents),
        "notes": notes,
    }


def _inputs(warehouse: Warehouse) -> tuple[Inputs, list[str]]:
    version = warehouse.current().get("report")
    if version is None:
        raise DatasetMissing(
            f"dataset report: none yet in warehouse {warehouse.root}; expected one of a finished"
            " run; make it with `pref run`"
        )
    manifest = warehouse.manifest("report", version)
    if manifest.stage != report.STAGE.name:
        page = warehouse.file_path("report", version, "report.html")
        raise InputRejected(
            f"report: the newest is that of a team's own data, which has one page; expected one of"
            f" `pref run attributes` or `pref run prism`; the page is {page}"
        )
    parents, notes = dict(manifest.parents), []
    found = _benchmark(warehouse, manifest)
    if found is None:
        notes.append(
            "no benchmark of this matrix yet: figures 3, 4 and 9 and table 1 are left out; make"
            " it with `pref benchmark`"
        )
    else:
        parents[BENCHMARK] = found
    plan = StagePlan(
        stage=manifest.stage,
        warehouse=str(warehouse.root),
        version=version,
        version_sha256=version,
        code_sha256=manifest.code_sha256,
        config=dict(manifest.config),
        parents=parents,
    )
    return Inputs(warehouse, plan), notes


def _benchmark(warehouse: Warehouse, manifest: Manifest) -> str | None:
    """The newest benchmark of the very matrix that the report is about."""
    found = [
        one
        for one in warehouse.manifests(BENCHMARK)
        if one.parents["preferences"] == manifest.parents["preferences"]
    ]
    current = warehouse.current().get(BENCHMARK)
    named = [one.version for one in found]
    return current if current in named else named[-1] if named else None


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    if rows:
        # Rows of several kinds, such as planned and unplanned stages, have several sets of columns.
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue().encode()
