"""Immutable dataset versions in a folder: written to a temporary name, renamed last.

It computes no rows, makes no calls and keeps no ledger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from warehouse import _parquet
from warehouse._version_files import (
    corrupt_line,
    size_fault,
    version_faults,
    write_extras,
    write_rows,
)
from warehouse.checks import RowChecker, raise_faults
from warehouse.errors import (
    DatasetCorrupt,
    DatasetMissing,
    WarehouseError,
)
from warehouse.lock import MOMENT_S, hold_lock
from warehouse.manifest import Manifest, Provenance, content_hash
from warehouse.paths import (
    MANIFEST_NAME,
    ROWS_NAME,
    Layout,
    disk_errors,
    is_url,
    local_root,
    replace_file,
    short_version,
    sweep,
    sync_folder,
    temporary_folder,
    write_file,
)
from warehouse.remote import Remote
from warehouse.runs import RunRecord, read_runs, write_run
from warehouse.shards import Shards
from warehouse.tables import TABLES, Table, table_named


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def open_warehouse(
    root: str | Path, create: bool = True, clock: Callable[[], datetime] = utc_now
) -> "Warehouse":
    """Open the warehouse in a folder and delete what killed runs left half-written.

    Args:
        root: The folder, or a URL that fsspec opens; versions at a URL are cached in a folder.
        create: Whether to make the folder if it does not exist.
        clock: Where times come from.

    Raises:
        DatasetMissing: The folder does not exist and ``create`` is false.
        WarehouseError: The place is a file, a folder that may not be written, or a URL for which
            no package is installed.
        StorageFull: No space left to make the folder.
    """
    folder = local_root(root)
    remote = Remote(str(root)) if is_url(root) else None
    if not folder.exists() and not create and remote is None:
        raise DatasetMissing(
            f"warehouse {folder}: no such folder, expected one that a run has written; check "
            "--warehouse, or make it with `pref run`"
        )
    with disk_errors("the folder", folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise WarehouseError(
                f"warehouse {folder}: found a file, expected a folder; give another --warehouse"
            ) from None
        except FileNotFoundError:
            raise WarehouseError(
                f"warehouse {folder}: no folder can be made there, expected a place on a disk; "
                "give another --warehouse"
            ) from None
    warehouse = Warehouse(folder, clock, remote)
    warehouse.sweep()
    return warehouse


class Warehouse:
    """The datasets, runs and unfinished shards under one folder; safe to share between threads.

    A warehouse at a URL has its truth there and copies in the folder: a version is committed when
    its manifest is there, and what is read of it is fetched first.

    Attributes:
        root: The folder.
        location: The URL, or the folder.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], datetime] = utc_now,
        remote: Remote | None = None,
    ) -> None:
        self.root = root
        self.location = remote.url if remote else str(root)
        self._remote = remote
        self._layout = Layout(root)
        self._clock = clock
        self._shards = Shards(self._layout)

    # Datasets

    def has(self, dataset: str, version: str) -> bool:
        """Whether a version (12 or 64 hex digits) is committed."""
        if self._remote is not None:
            return self._remote.has(table_named(dataset).name, short_version(version))
        return (self._version_folder(dataset, version) / MANIFEST_NAME).is_file()

    def manifest(self, dataset: str, version: str) -> Manifest:
        """Read a version's manifest.

        Raises:
            DatasetMissing: There is no such dataset or version.
            DatasetCorrupt: The manifest is not what was committed.
        """
        path = self._version_folder(dataset, version) / MANIFEST_NAME
        data = self._manifest_bytes(path, dataset, version)
        if data is None:
            raise DatasetMissing(self._missing_line(dataset, version))
        manifest = Manifest.from_json(data, str(path))
        if (manifest.dataset, manifest.version) != (dataset, short_version(version)):
            raise DatasetCorrupt(
                f"manifest {path}: speaks of {manifest.dataset} {manifest.version}, expected "
                f"{dataset} {version}; move the folder back to where it was"
            )
        return manifest

    def manifests(self, dataset: str | None = None) -> list[Manifest]:
        """Read every version's manifest, by dataset in table order, oldest first."""
        names = list(TABLES) if dataset is None else [table_named(dataset).name]
        return [manifest for name in names for manifest in self._versions(name)]

    def commit(
        self,
        table: Table | str,
        provenance: Provenance,
        rows: pa.Table | Iterable[pa.RecordBatch],
        files: Mapping[str, bytes | Path] | None = None,
    ) -> Manifest:
        """Check rows and store them as an immutable version, or as nothing at all.

        Rows stream through in groups of 65,536; between groups only the key columns are kept.
        The same rows in the same order give the same bytes, whatever their batching.

        Args:
            table: The table or its name.
            provenance: What the rows were made from. Its parents must be committed; foreign keys
                into them are checked.
            rows: The rows, in the order they are to be stored.
            files: Name -> content of further files to keep beside the rows.

        Returns:
            The manifest; that of the existing version if these rows were already stored.

        Raises:
            CheckFailed: Rows break the table's constraints; all kinds of fault in one line.
            DatasetMissing: A parent is not in the warehouse.
            DatasetCorrupt: The version exists with other content.
            StorageFull: No space left.
        """
        table = table_named(table) if isinstance(table, str) else table
        version_sha256 = provenance.name_version()
        checker = RowChecker(table, self._parent_keys(table, provenance.parents))
        with (
            disk_errors(f"dataset {table.name}", self.root),
            temporary_folder(self._layout.dataset(table.name)) as folder,
        ):
            n_rows, entry = write_rows(folder, table, rows, checker)
            raise_faults(table, checker.faults(), n_rows)
            entries = sorted([entry, *write_extras(folder, files or {})], key=lambda one: one.name)
            manifest = Manifest(
                **{field.name: getattr(provenance, field.name) for field in fields(Provenance)},
                dataset=table.name,
                version=short_version(version_sha256),
                version_sha256=version_sha256,
                schema_id=table.schema_id,
                content_sha256=content_hash(entries),
                files=tuple(entries),
                n_rows=n_rows,
                n_bytes=sum(entry.n_bytes for entry in entries),
                finished_at=self._clock(),
            )
            write_file(folder / MANIFEST_NAME, manifest.to_json())
            sync_folder(folder)
            return self._publish(folder, manifest)

    def read(self, dataset: str, version: str, columns: Iterable[str] | None = None) -> pa.Table:
        """Read a version's rows, in stored order.

        Raises:
            DatasetMissing: There is no such version, or it has no such column.
            DatasetCorrupt: The file is not what was committed.
        """
        path, names = self._rows_path(dataset, version, columns)
        return _parquet.read_rows(path, names)

    def batches(
        self,
        dataset: str,
        version: str,
        columns: Iterable[str] | None = None,
        batch_rows: int = _parquet.ROW_GROUP_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Read a version's rows a batch at a time; raises as `read` does."""
        path, names = self._rows_path(dataset, version, columns)
        return _parquet.read_batches(path, names, batch_rows)

    def file_path(self, dataset: str, version: str, name: str = ROWS_NAME) -> Path:
        """Where a file of a version lies; without a name, its Parquet rows.

        Raises:
            DatasetMissing: There is no such version or file.
            DatasetCorrupt: The file is gone or has another size than was committed.
        """
        manifest = self.manifest(dataset, version)
        entry = next((entry for entry in manifest.files if entry.name == name), None)
        if entry is None:
            names = ", ".join(entry.name for entry in manifest.files)
            raise DatasetMissing(
                f"dataset {dataset} {manifest.version}: no file {name!r}, expected one of {names}; "
                "check the name"
            )
        path = self._fetched(manifest) / name
        fault = size_fault(path, entry)
        if fault:
            raise DatasetCorrupt(corrupt_line(manifest, [fault]))
        return path

    def folder(self, dataset: str, version: str) -> Path:
        """Folder of a version's files, all of them there and of the size committed.

        Raises:
            DatasetMissing: There is no such version.
            DatasetCorrupt: A file is gone or has another size than was committed.
        """
        manifest = self.manifest(dataset, version)
        folder = self._fetched(manifest)
        sizes = [size_fault(folder / entry.name, entry) for entry in manifest.files]
        faults = [fault for fault in sizes if fault is not None]
        if faults:
            raise DatasetCorrupt(corrupt_line(manifest, faults))
        return folder

    def remove(self, manifest: Manifest) -> None:
        """Takes a version away in one step; its bytes go after that.

        The caller holds the warehouse's lock and knows that nothing needs the version.
        """
        folder = self._version_folder(manifest.dataset, manifest.version)
        if self._remote is not None:
            self._remote.remove(manifest.dataset, manifest.version)
            if not folder.exists():
                return
        with temporary_folder(folder.parent) as away:
            folder.rename(away / folder.name)
            sync_folder(folder.parent)

    def fetch_all(self) -> None:
        """Copy every version at the warehouse's URL that is not here yet; else do nothing."""
        if self._remote is not None:
            for manifest in self.manifests():
                self._fetched(manifest)

    def verify(self, manifest: Manifest) -> None:
        """Hash every file again and compare with what was committed.

        Raises:
            DatasetCorrupt: Anything differs; all differences in one line.
        """
        folder = self._fetched(manifest)
        stored = self.manifest(manifest.dataset, manifest.version)
        faults = [] if stored == manifest else ["the stored manifest is another one"]
        faults += version_faults(folder, manifest)
        if faults:
            raise DatasetCorrupt(corrupt_line(manifest, faults))

    # Unfinished shards

    def staging(self, stage: str, version: str) -> Path:
        """Folder for a version's unfinished shards, made if need be."""
        return self._shards.folder(stage, version)

    def clear_staging(self, stage: str, version: str) -> None:
        """Delete a version's shards, if there are any."""
        self._shards.clear(stage, version)
        if self._remote is not None:
            self._remote.clear_shards(stage, version)

    def unfinished(self) -> list[tuple[str, str]]:
        """Stages that have begun and not ended, as (stage, version) of their staging folders."""
        found = set(self._shards.unfinished())
        return sorted(found | self._remote.unfinished() if self._remote is not None else found)

    def write_shard(self, stage: str, version: str, index: int, rows: pa.Table) -> Path:
        """Store one finished shard; writing it again replaces it."""
        path = self._shards.write(stage, version, index, rows)
        if self._remote is not None:
            self._remote.write_shard(stage, version, path)
        return path

    def shard_indices(self, stage: str, version: str) -> tuple[int, ...]:
        """Which shards of a version are stored, in order."""
        self._fetch_shards(stage, version)
        return self._shards.indices(stage, version)

    def shard_schema(self, stage: str, version: str, index: int) -> pa.Schema | None:
        """Read a shard's columns and metadata; None if it is not stored."""
        self._fetch_shards(stage, version)
        return self._shards.schema(stage, version, index)

    def read_shards(self, stage: str, version: str) -> Iterator[pa.Table]:
        """Read a version's shards one by one, by index."""
        self._fetch_shards(stage, version)
        return self._shards.read(stage, version)

    # Runs

    def record_run(self, record: RunRecord) -> Path:
        """Write down which versions a run made or used, replacing an earlier record of it."""
        with disk_errors(f"the record of run {record.run_id}", self.root):
            path = write_run(self._layout.runs, record)
        if self._remote is not None:
            self._remote.write_run(path)
        return path

    def write_record(self, kind: str, name: str, data: bytes) -> None:
        """Store a small file beside the datasets in one step, replacing an earlier one."""
        if self._remote is not None:
            self._remote.write_record(kind, name, data)
            return
        with disk_errors(f"{kind} {name}", self.root):
            (self.root / kind).mkdir(parents=True, exist_ok=True)
            replace_file(self.root / kind / name, data)

    def records(self, kind: str) -> dict[str, bytes]:
        """Read every such file of a kind, by name."""
        if self._remote is not None:
            return self._remote.records(kind)
        return {path.name: path.read_bytes() for path in sorted((self.root / kind).glob("*.json"))}

    def remove_record(self, kind: str, name: str) -> None:
        """Take such a file away, if it is there."""
        if self._remote is not None:
            self._remote.remove_record(kind, name)
            return
        (self.root / kind / name).unlink(missing_ok=True)

    def runs(self) -> list[RunRecord]:
        """Read the recorded runs, oldest first."""
        if self._remote is not None:
            self._remote.fetch_runs(self._layout.runs)
        return read_runs(self._layout.runs)

    def current(self) -> dict[str, str]:
        """Choose the version of each dataset that a reader means who names none.

        Returns:
            Dataset -> version, in table order: that of the newest recorded run that names the
            dataset, else the one committed last. Versions deleted since are passed over.
        """
        runs = self.runs()
        chosen: dict[str, str] = {}
        for name in TABLES:
            named = [run.datasets[name] for run in reversed(runs) if name in run.datasets]
            recorded = next((version for version in named if self.has(name, version)), None)
            if recorded is not None:
                chosen[name] = recorded
                continue
            manifests = self._versions(name)
            if manifests:
                chosen[name] = manifests[-1].version
        return chosen

    # One writer at a time

    @contextmanager
    def lock(self, patience_s: float = MOMENT_S) -> Iterator[None]:
        """Keep other runs off the warehouse; the kernel frees it if the process dies.

        Args:
            patience_s: How long to wait for another holder.

        Raises:
            WarehouseBusy: Another run holds it; the line names its process and start.
        """
        with hold_lock(self._layout.lock, self._clock(), patience_s):
            yield

    def sweep(self) -> int:
        """Delete what killed writers left half-written, unless a run is going on; how many."""
        places = [*map(self._layout.dataset, TABLES), self._layout.runs]
        leftovers = [folder for folder in places if folder.is_dir()]
        if not leftovers:
            return 0
        try:
            with self.lock(patience_s=0.0):
                return sum(sweep(folder) for folder in leftovers)
        except WarehouseError:
            # Busy, or not ours to write: the next run sweeps, and readers never look there.
            return 0

    # Inside

    def _version_folder(self, dataset: str, version: str) -> Path:
        return self._layout.version(table_named(dataset).name, version)

    def _versions(self, dataset: str) -> list[Manifest]:
        if self._remote is not None:
            versions = self._remote.versions(dataset)
        else:
            paths = self._layout.dataset(dataset).glob(f"version=*/{MANIFEST_NAME}")
            versions = sorted(path.parent.name.removeprefix("version=") for path in paths)
        found = [self.manifest(dataset, version) for version in versions]
        return sorted(found, key=lambda manifest: (manifest.finished_at, manifest.version))

    def _manifest_bytes(self, path: Path, dataset: str, version: str) -> bytes | None:
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if self._remote is None:
                return None
            return self._remote.manifest_bytes(table_named(dataset).name, short_version(version))

    def _fetched(self, manifest: Manifest) -> Path:
        """Folder of a version's files; those of a URL are fetched where they are not here yet."""
        folder = self._version_folder(manifest.dataset, manifest.version)
        if self._remote is not None and not (folder / MANIFEST_NAME).is_file():
            with (
                disk_errors(f"dataset {manifest.dataset}", self.root),
                temporary_folder(folder.parent) as copy,
            ):
                self._remote.fetch(manifest, copy)
                write_file(copy / MANIFEST_NAME, manifest.to_json())
                self._move(copy, manifest)
        return folder

    def _fetch_shards(self, stage: str, version: str) -> None:
        if self._remote is not None:
            self._remote.fetch_shards(stage, version, self._layout.staging(stage, version))

    def _missing_line(self, dataset: str, version: str) -> str:
        known = [manifest.version for manifest in self._versions(dataset)]
        expected = f"expected one of {', '.join(known[-5:])}" if known else "it has no version yet"
        return (
            f"dataset {dataset} {version}: not in warehouse {self.location}; {expected}; "
            "`pref datasets` lists what there is"
        )

    def _parent_keys(self, table: Table, parents: Mapping[str, str]) -> dict[str, pa.ChunkedArray]:
        for dataset, version in parents.items():
            if not self.has(dataset, version):
                raise DatasetMissing(
                    f"dataset {table.name}: parent {self._missing_line(dataset, version)}"
                )
        keys = {}
        for target in {target for targets in table.foreign.values() for target in targets}:
            dataset, _, column = target.partition(".")
            if dataset in parents:
                keys[target] = self.read(dataset, parents[dataset], [column]).column(column)
        return keys

    def _publish(self, folder: Path, manifest: Manifest) -> Manifest:
        if self._remote is None:
            return self._move(folder, manifest)
        # There first: a version that is only here would be missing to everybody else.
        standing = self._remote.commit(folder, manifest)
        if standing != manifest:
            self._compare(standing, manifest)
            replace_file(folder / MANIFEST_NAME, standing.to_json())
        self._move(folder, standing)
        return standing

    def _move(self, folder: Path, manifest: Manifest) -> Manifest:
        final = self._layout.version(manifest.dataset, manifest.version)
        try:
            folder.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            if not self.has(manifest.dataset, manifest.version):
                raise DatasetCorrupt(
                    f"dataset {manifest.dataset} {manifest.version}: {final} has no "
                    f"{MANIFEST_NAME}, expected one; delete the folder and run again"
                ) from None
            return self._existing(manifest)
        sync_folder(final.parent)
        return manifest

    def _existing(self, manifest: Manifest) -> Manifest:
        existing = self.manifest(manifest.dataset, manifest.version)
        self._compare(existing, manifest)
        return existing

    def _compare(self, existing: Manifest, manifest: Manifest) -> None:
        for what, found, new in (
            ("inputs", existing.version_sha256, manifest.version_sha256),
            ("content", existing.content_sha256, manifest.content_sha256),
        ):
            if found != new:
                raise DatasetCorrupt(
                    f"dataset {manifest.dataset} {manifest.version}: stored {what} {found[:12]} "
                    f"({existing.n_rows} rows), now made {new[:12]} ({manifest.n_rows} rows), "
                    "expected the same from the same inputs; the stored one was kept, find what "
                    "is random or which library changed, or delete its folder and run again"
                )

    def _rows_path(
        self, dataset: str, version: str, columns: Iterable[str] | None
    ) -> tuple[Path, list[str] | None]:
        path = self.file_path(dataset, version)
        if columns is None:
            return path, None
        names = list(columns)
        stored = _parquet.read_schema(path).names
        unknown = [name for name in names if name not in stored]
        if unknown:
            raise DatasetMissing(
                f"dataset {dataset} {version}: no column {', '.join(unknown)}, expected some of "
                f"{', '.join(stored)}; check the name"
            )
        return path, names
