"""Which versions a run made or used, one small JSON file a run. It knows no dataset's content."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from warehouse._json_reader import JsonReader
from warehouse.canonical import canonical_json
from warehouse.manifest import utc_text
from warehouse.paths import replace_file, safe_name


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of a flow.

    Attributes:
        run_id: Name of the run, usable as a file name.
        flow: Name of the flow.
        started_at: When the run began, UTC.
        finished_at: When it ended, UTC; None while it runs.
        datasets: Dataset -> version that the run made or found made.
        is_complete: Whether the run reached its end.
        config: The run's settings, as JSON.
    """

    run_id: str
    flow: str
    started_at: datetime
    finished_at: datetime | None
    datasets: Mapping[str, str]
    is_complete: bool
    config: Mapping[str, Any]


def write_run(folder: Path, record: RunRecord) -> Path:
    """Store a record in one step, replacing an earlier one of the same run."""
    path = folder / f"{safe_name(record.run_id, 'run')}.json"
    finished_at = record.finished_at
    raw = {
        "run_id": record.run_id,
        "flow": record.flow,
        "started_at": utc_text(record.started_at, "started_at"),
        "finished_at": None if finished_at is None else utc_text(finished_at, "finished_at"),
        "datasets": dict(record.datasets),
        "is_complete": record.is_complete,
        "config": dict(record.config),
    }
    canonical_json(raw)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    replace_file(path, (text + "\n").encode("utf-8"))
    return path


def read_runs(folder: Path) -> list[RunRecord]:
    """Read every record, by end (or, while running, by start), oldest first.

    Raises:
        DatasetCorrupt: A record is not what was written.
    """
    records = [_read_run(path) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda run: (run.finished_at or run.started_at, run.run_id))


def _read_run(path: Path) -> RunRecord:
    reader = JsonReader.parse(path.read_bytes(), f"run record {path}")
    reader.expect_keys({field.name for field in fields(RunRecord)})
    is_finished = reader.raw["finished_at"] is not None
    return RunRecord(
        run_id=reader.text("run_id"),
        flow=reader.text("flow"),
        started_at=reader.moment("started_at"),
        finished_at=reader.moment("finished_at") if is_finished else None,
        datasets=reader.text_mapping("datasets"),
        is_complete=reader.flag("is_complete"),
        config=reader.mapping("config"),
    )
