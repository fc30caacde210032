"""Imports a team's own data and nothing more, for `pref ingest`. It never imports Prefect."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from tasks._runs import RunIds, plan_stage, run_stage, warehouse_at
from tasks._stages.configs import own_source, stage_places
from tasks._stages.own import INGEST_STAGE, without
from tasks._stages.own_files import read_own
from tasks.config import OwnConfig, as_json
from tasks.errors import InputRejected
from warehouse.runs import RunRecord


def import_own(config: OwnConfig) -> dict[str, Any]:
    """Commits a folder's rows as dataset versions; every fault is found before the first commit.

    Versions are named by the content of the files, so importing the same files again finds what
    is there. `pref run own` goes on from them.

    Returns:
        ``datasets`` {name: version}, ``rows`` {name: number}, ``left_out`` (answers about two
        equal texts), ``ignored`` {file: columns that were not read}, ``is_reused``.

    Raises:
        InputRejected, WarehouseError: What is wrong, in one line.
    """
    if config.ingest.data is None:
        raise InputRejected(
            "data: none given; expected a folder with prompts, responses and preferences; name it"
        )
    source = own_source(config)
    data = without(read_own(config.ingest.data), source.get("forgotten", ()))
    plan = plan_stage(INGEST_STAGE, config.warehouse, source, {}, stage_places(config))
    warehouse = warehouse_at(config.warehouse)
    started = datetime.now(UTC)
    is_reused = all(warehouse.has(name, plan.version) for name in INGEST_STAGE.writes)
    run_id = str(uuid.uuid4())
    with warehouse.lock():
        refs = run_stage(plan, INGEST_STAGE, RunIds(run_id, None))
        datasets = {ref["dataset"]: ref["version"] for ref in refs}
        warehouse.record_run(
            RunRecord(
                run_id=run_id,
                flow="ingest",
                started_at=started,
                finished_at=datetime.now(UTC),
                datasets=datasets,
                is_complete=True,
                config=as_json(config),
            )
        )
    rows = {ref["dataset"]: ref["n_rows"] for ref in refs}
    return {
        "datasets": datasets,
        "rows": rows,
        "left_out": len(data.answers) - rows["answers"],
        "ignored": {name: list(columns) for name, columns in data.ignored.items()},
        "is_reused": is_reused,
    }
