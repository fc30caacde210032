"""Where datasets of a warehouse were exported to, one small JSON file an export.

It knows only the folders that were written, not the copies that somebody made of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from warehouse._json_reader import JsonReader
from warehouse.manifest import utc_text
from warehouse.paths import hash_file
from warehouse.store import Warehouse

_FOLDER = "exports"


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """One export.

    Attributes:
        folder: Where it was written, absolute.
        exported_at: When, UTC.
        datasets: Dataset -> version in it.
        files: Path inside the folder -> SHA-256 of every file in it.
    """

    folder: str
    exported_at: datetime
    datasets: Mapping[str, str]
    files: Mapping[str, str]


def exports(warehouse: Warehouse) -> list[ExportRecord]:
    """Every recorded export, by folder.

    Raises:
        DatasetCorrupt: A record is not what was written.
    """
    found = [
        _parsed(data, f"{_FOLDER}/{name}") for name, data in warehouse.records(_FOLDER).items()
    ]
    return sorted(found, key=lambda one: one.folder)


def record_export(warehouse: Warehouse, record: ExportRecord) -> None:
    """Writes down an export, replacing an earlier one into the same folder."""
    raw = {**asdict(record), "exported_at": utc_text(record.exported_at, "exported_at")}
    text = json.dumps(raw, indent=1, sort_keys=True)
    warehouse.write_record(_FOLDER, _name(record.folder), (text + "\n").encode())


def unrecord_export(warehouse: Warehouse, record: ExportRecord) -> None:
    """Strikes an export off the record."""
    warehouse.remove_record(_FOLDER, _name(record.folder))


def remove_export(record: ExportRecord) -> list[str]:
    """Removes the files of an export from its folder, and the folders this leaves empty.

    Returns:
        Files that are there and were changed since they were written: these are left.
    """
    folder = Path(record.folder)
    changed = []
    for name, sha256 in record.files.items():
        path = folder / name
        if not path.is_file():
            continue
        if hash_file(path)[1] != sha256:
            changed.append(str(path))
            continue
        path.unlink()
    inner = {folder / parent for name in record.files for parent in Path(name).parents}
    for empty in sorted(inner, key=lambda one: -len(one.parts)):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
    return changed


def _name(folder: str) -> str:
    return f"{hashlib.sha256(folder.encode()).hexdigest()[:16]}.json"


def _parsed(data: bytes, where: str) -> ExportRecord:
    reader = JsonReader.parse(data, f"record of an export {where}")
    reader.expect_keys({field.name for field in fields(ExportRecord)})
    return ExportRecord(
        folder=reader.text("folder"),
        exported_at=reader.moment("exported_at"),
        datasets=reader.text_mapping("datasets"),
        files=reader.text_mapping("files"),
    )
