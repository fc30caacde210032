"""Rows of files that users hand in, by number, and what is wrong with them. It writes nothing.

A fault is counted and shown with its first rows; nobody has to repair a file fault by fault.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

N_SHOWN = 3
# A text is one field, and texts are long; Python's own bound is 128 KiB.
_LONGEST_FIELD = 1 << 30


class Faults:
    """What is wrong, by file and kind, with the first few rows of each."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, file: str, problem: str, row: int | None = None) -> None:
        """Counts one fault; ``row`` is None for a fault of the file as a whole."""
        self._counts[file, problem] = self._counts.get((file, problem), 0) + 1
        rows = self._rows.setdefault((file, problem), [])
        if row is not None and len(rows) <= N_SHOWN:
            rows.append(row)

    def of(self, file: str) -> bool:
        """Whether the file has any."""
        return any(name == file for name, _ in self._counts)

    def told(self) -> str:
        """All of them as one line; empty when there is none."""
        return "; ".join(
            f"{file}: {problem}{_where(self._rows[file, problem], count)}"
            for (file, problem), count in self._counts.items()
        )


def _where(rows: list[int], count: int) -> str:
    if not rows:
        return ""
    shown = ", ".join(str(row) for row in rows[:N_SHOWN])
    more = ", …" if count > N_SHOWN else ""
    return f" in {count} row{'s' if count > 1 else ''} ({shown}{more})"


def json_lines(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON-lines file with their line numbers from 1; what is none is noted."""
    # Lines end with a line feed: a text may hold other separators, where splitlines would cut.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                faults.note(path.name, "no JSON", number)
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                faults.note(path.name, "JSON that is no object", number)


def csv_rows(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file with a header, numbered from 1 after it; an empty field is None."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            for number, fields in enumerate(reader, start=1):
                if not fields:
                    continue
                if len(fields) != len(names):
                    faults.note(path.name, f"not the {len(names)} fields of the header", number)
                    continue
                yield number, {name: one or None for name, one in zip(names, fields, strict=True)}
    except (csv.Error, UnicodeDecodeError) as error:
        faults.note(path.name, f"not readable as CSV in UTF-8 ({error})")
    finally:
        csv.field_size_limit(before)


def parquet_rows(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a Parquet file, numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pa.ArrowException) as error:
        faults.note(path.name, f"not readable as Parquet ({' '.join(str(error).split())[:120]})")


READERS = {".parquet": parquet_rows, ".jsonl": json_lines, ".csv": csv_rows}
