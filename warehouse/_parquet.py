"""Rows to and from Parquet, the same bytes for the same rows. It knows no table and no version."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import DatasetCorrupt
from warehouse.paths import HashingFile

ROW_GROUP_ROWS = 65_536
_SETTINGS: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "write_statistics": True,
    "write_batch_size": 1024,
    "data_page_size": 1 << 20,
    "dictionary_pagesize_limit": 1 << 20,
}


class RowsFile:
    """A Parquet file being written, one full row group at a time.

    Every setting that shapes the bytes is fixed here, and a row group is one contiguous chunk:
    Arrow ends a data page where a chunk ends, so bytes would else depend on the batching.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = HashingFile(path)
        self._writer: Any = None
        try:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"), schema, **_SETTINGS
            )
        except OSError:
            self.abandon()
            raise

    def write(self, row_group: pa.Table) -> None:
        """Append one row group, as `row_groups` cuts it."""
        self._writer.write_table(row_group, row_group_size=ROW_GROUP_ROWS)

    def close(self) -> tuple[int, str]:
        """Finish the file and force it to the disk; its size in bytes and SHA-256."""
        self._writer.close()
        self._file.close()
        return self._file.n_bytes, self._file.sha256

    def abandon(self) -> None:
        """Give the file up; does nothing after `close`."""
        if not self._file.closed:
            self._file.discard()
            # Arrow's writer would else try to finish the file when it is collected.
            with suppress(OSError, pa.ArrowException):
                if self._writer is not None:
                    self._writer.close()
            self._file.abandon()


def write_rows(path: Path, rows: pa.Table) -> tuple[int, str]:
    """Write a table to a new file; its size in bytes and SHA-256."""
    file = RowsFile(path, rows.schema)
    try:
        for group in row_groups([rows]):
            file.write(group)
        return file.close()
    finally:
        file.abandon()


def row_groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut rows into contiguous groups of 65,536, the last one shorter, whatever the pieces.

    Holds at most one group and one piece in memory.
    """
    held: list[pa.Table] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += piece.num_rows
        while n_held >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(held)
            yield joined.slice(0, ROW_GROUP_ROWS).combine_chunks()
            held = [joined.slice(ROW_GROUP_ROWS)]
            n_held -= ROW_GROUP_ROWS
    if n_held:
        yield pa.concat_tables(held).combine_chunks()


def read_batches(
    path: Path, columns: list[str] | None, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Read a file's rows in order, a few at a time.

    Raises:
        DatasetCorrupt: The file is missing or not readable as Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=batch_rows, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def read_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a whole file.

    Raises:
        DatasetCorrupt: The file is missing or not readable as Parquet.
    """
    try:
        # ParquetFile, not read_table: the latter makes a column out of "version=..." in the path.
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def read_schema(path: Path) -> pa.Schema:
    """Read a file's columns and the table's metadata, without its rows.

    Raises:
        DatasetCorrupt: The file is missing or not readable as Parquet.
    """
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DatasetCorrupt:
    """Build the line for a data file that cannot be read."""
    reason = " ".join(str(error).split())
    return DatasetCorrupt(
        f"file {path}: {reason}; expected the Parquet file that was committed; restore it, or "
        "delete its folder and run again"
    )
