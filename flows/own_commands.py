"""Commands on a team's own data. They parse, call one function, and print what it found."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flows._options import (
    DataOption,
    JsonOption,
    LicenceOption,
    OwnProfileOption,
    SetOption,
    WarehouseOption,
)
from flows._output import open_store, printable
from flows._running import flow_config, plan_flow, run_flow


def run_own(
    data: DataOption = None,
    profile: OwnProfileOption = None,
    warehouse: WarehouseOption = None,
    licence: LicenceOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on your own users' answers, adapt held-out users, measure, report. Makes no call."""
    options = {"warehouse": warehouse, "ingest.data": data, "ingest.licence": licence}
    run_flow("own", flow_config("own", profile, options, set_), as_json=as_json)


def plan_own(
    data: DataOption = None,
    profile: OwnProfileOption = None,
    warehouse: WarehouseOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check what `run own` would read, and say what it would buy: nothing."""
    options = {"warehouse": warehouse, "ingest.data": data}
    plan_flow(flow_config("own", profile, options, set_), as_json=as_json)


def ingest(
    folder: Annotated[
        str, typer.Argument(help="Folder with prompts, responses, preferences and users.")
    ],
    warehouse: WarehouseOption = None,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import your own data: checked as a whole, refused as a whole. See docs/own-data.md."""
    from tasks.importing import import_own

    options = {"warehouse": warehouse, "ingest.data": folder, "ingest.licence": licence}
    found = import_own(flow_config("own", None, options, None))
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    rows = ", ".join(f"{count:,} {name}" for name, count in found["rows"].items())
    sys.stdout.write(f"{'found' if found['is_reused'] else 'imported'}: {rows}\n")
    if found["left_out"]:
        told = "answers are about two responses of the same text and were left out"
        sys.stdout.write(f"{found['left_out']:,} {told}\n")
    for file, columns in found["ignored"].items():
        sys.stdout.write(printable(f"{file}: not read: {', '.join(columns)}") + "\n")


def export(
    to: Annotated[str, typer.Option("--to", help="A new or empty folder.")],
    datasets: Annotated[
        list[str] | None,
        typer.Argument(help="Datasets, or dataset=version; default: the matrix of the last run."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the data set.")] = "pref preference matrix",
    licence: Annotated[
        str | None, typer.Option(help="Licence of sources for which none was stated.")
    ] = None,
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write datasets as a Hugging Face folder with card and Croissant metadata."""
    from pathlib import Path

    from tasks.exporting import export_datasets

    store = open_store(warehouse)
    found = export_datasets(store, datasets or [], Path(to), name, licence)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    rows = ", ".join(f"{count:,} {dataset}" for dataset, count in found["rows"].items())
    kind = "simulated" if found["is_simulated"] else "synthetic" if found["is_synthetic"] else ""
    sys.stdout.write(f"{found['folder']}: {rows}; licence {found['licence']}")
    sys.stdout.write(f"; {kind} data\n" if kind else "\n")
    for source in found["sources"]:
        if source["licence"] == "unknown":
            told = f"{source['name']}: no licence is stated; pass --licence"
            sys.stdout.write(printable(told) + "\n")
