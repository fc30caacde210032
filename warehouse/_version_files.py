"""The files of one dataset version: written with their hashes, and checked against them.

It neither names versions nor makes them visible.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from warehouse import _parquet
from warehouse.checks import RowChecker, conform
from warehouse.errors import WarehouseError
from warehouse.manifest import FileEntry, Manifest, content_hash
from warehouse.paths import (
    MANIFEST_NAME,
    ROWS_NAME,
    hash_file,
    safe_relative,
    sync_folder,
    write_file,
)
from warehouse.tables import Table


def write_rows(
    folder: Path, table: Table, rows: pa.Table | Iterable[pa.RecordBatch], checker: RowChecker
) -> tuple[int, FileEntry]:
    """Write rows as Parquet while the checker looks at them; how many, and the file.

    Raises:
        CheckFailed: The columns are not the table's. Faults of rows stay with the checker.
    """
    pieces = [rows] if isinstance(rows, pa.Table) else map(_as_table, rows)
    file = _parquet.RowsFile(folder / ROWS_NAME, table.schema)
    n_rows = 0
    try:
        for group in _parquet.row_groups(conform(table, piece) for piece in pieces):
            n_rows += group.num_rows
            checker.add(group)
            # Later groups are still checked, but Arrow refuses to write a null that may not be.
            if checker.is_clean:
                file.write(group)
        return n_rows, FileEntry(ROWS_NAME, *file.close())
    finally:
        file.abandon()


def write_extras(folder: Path, files: Mapping[str, bytes | Path]) -> list[FileEntry]:
    """Write further files; a slash in a name makes a folder.

    Raises:
        WarehouseError: A name could lead elsewhere, or is the warehouse's own.
    """
    entries = []
    for name, data in files.items():
        path = folder / safe_relative(name)
        if name in (MANIFEST_NAME, ROWS_NAME):
            raise WarehouseError(f"file {name!r}: the warehouse's own name; choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        entries.append(FileEntry(name, *write_file(path, data)))
    for inner in {parent for name in files for parent in Path(name).parents}:
        sync_folder(folder / inner)
    return entries


def size_fault(path: Path, entry: FileEntry) -> str | None:
    """Say what is wrong with a file's size; None if nothing is."""
    try:
        n_bytes = path.stat().st_size
    except FileNotFoundError:
        return f"{entry.name} is gone"
    if n_bytes != entry.n_bytes:
        return f"{entry.name} has {n_bytes} bytes instead of {entry.n_bytes}"
    return None


def version_faults(folder: Path, manifest: Manifest) -> list[str]:
    """Hash every file of a version again; everything that differs from its manifest."""
    faults = []
    version = manifest.name_version()
    if version != manifest.version_sha256:
        faults.append(f"its inputs name version {version[:12]}")
    if content_hash(manifest.files) != manifest.content_sha256:
        faults.append("the content hash does not fit the file hashes")
    for entry in manifest.files:
        path = folder / entry.name
        fault = size_fault(path, entry)
        if fault is None and hash_file(path)[1] != entry.sha256:
            fault = f"{entry.name} has changed bytes"
        if fault is not None:
            faults.append(fault)
    known = {entry.name for entry in manifest.files} | {MANIFEST_NAME}
    stored = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    faults += [f"{name} does not belong there" for name in sorted(set(stored) - known)]
    return faults


def corrupt_line(manifest: Manifest, faults: Sequence[str]) -> str:
    """Build the line for a version whose files are not those committed."""
    return (
        f"dataset {manifest.dataset} {manifest.version}: {'; '.join(faults)}; expected the files "
        "as committed; restore them, or delete the version's folder and run again"
    )


def _as_table(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    return rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
