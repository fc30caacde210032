"""Finished parts of datasets that are not finished yet. It checks no rows and commits nothing."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from warehouse import _parquet
from warehouse.errors import WarehouseError
from warehouse.paths import Layout, disk_errors, temporary_name

_SHARD = re.compile(r"shard-([0-9]{6,})\.parquet")


class Shards:
    """Shard files by stage, version and index; safe to share between threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def folder(self, stage: str, version: str) -> Path:
        """Folder of a version's shards, made if need be."""
        folder = self._layout.staging(stage, version)
        with disk_errors(f"shards of stage {stage}", self._layout.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write(self, stage: str, version: str, index: int, rows: pa.Table) -> Path:
        """Store a shard in one step, replacing an earlier one of that index.

        Raises:
            StorageFull: No space left.
            WarehouseError: The index is negative.
        """
        if index < 0:
            raise WarehouseError(f"shard {index} of stage {stage}: expected an index from 0")
        path = self.folder(stage, version) / f"shard-{index:06d}.parquet"
        temporary = temporary_name(path)
        with disk_errors(f"shard {index} of stage {stage}", self._layout.root):
            try:
                _parquet.write_rows(temporary, rows)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return path

    def indices(self, stage: str, version: str) -> tuple[int, ...]:
        """Indices of the stored shards, in order."""
        return tuple(self._paths(stage, version))

    def schema(self, stage: str, version: str, index: int) -> pa.Schema | None:
        """Read a shard's columns and metadata; None if the shard is not stored.

        Raises:
            DatasetCorrupt: The shard is not readable.
        """
        path = self._paths(stage, version).get(index)
        return None if path is None else _parquet.read_schema(path)

    def read(self, stage: str, version: str) -> Iterator[pa.Table]:
        """Read the shards one by one, by index.

        Raises:
            DatasetCorrupt: A shard is not readable.
        """
        for path in self._paths(stage, version).values():
            yield _parquet.read_rows(path)

    def unfinished(self) -> list[tuple[str, str]]:
        """(stage, version) of everything that has a folder, in order."""
        folders = sorted(self._layout.all_staging.glob("*/*"))
        return [(one.parent.name, one.name) for one in folders if one.is_dir()]

    def clear(self, stage: str, version: str) -> None:
        """Delete a version's shards, if there are any."""
        folder = self._layout.staging(stage, version)
        shutil.rmtree(folder, ignore_errors=True)

    def _paths(self, stage: str, version: str) -> dict[int, Path]:
        folder = self._layout.staging(stage, version)
        found = {}
        for path in folder.glob("shard-*.parquet"):
            match = _SHARD.fullmatch(path.name)
            if match:
                found[int(match[1])] = path
        return dict(sorted(found.items()))
