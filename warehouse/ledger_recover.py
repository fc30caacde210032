"""Copies what can still be read of a damaged SQLite ledger into a new one.

    python -m warehouse.ledger_recover OLD NEW

It changes nothing in the damaged file.
"""

import argparse
import hashlib
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from warehouse.errors import WarehouseError
from warehouse.ledger import open_ledger
from warehouse.ledger_errors import LedgerCorrupt, LedgerUnusable
from warehouse.ledger_rows import attempts_table, calls_table

_GROUP_ROWS = 500
_LAST_ROWID = 2**63 - 1


class Recovered(NamedTuple):
    """What a recovery found.

    Attributes:
        calls: Replies copied, each proven by its key and its checksum.
        attempts: Sends copied.
        damaged_calls: Rows that could be read and were not what had been written.
        unread_ranges: Places at which the file could not be read any further.
    """

    calls: int
    attempts: int
    damaged_calls: int
    unread_ranges: int


def recover(damaged: Path, target: Path) -> Recovered:
    """Copies every readable, provably whole row into a new ledger.

    A page that cannot be read is skipped: reading goes on behind it, forward and backward, by
    row number. Calls that are lost will be bought again by the next run; nothing else is lost.

    Args:
        damaged: The ledger; a torn log beside it is read as far as it is whole.
        target: The new file; must not exist.

    Raises:
        LedgerUnusable: the source is missing, or the target exists.
        LedgerCorrupt: not even the list of tables can be read.
    """
    if not damaged.is_file() or target.exists():
        found = "is no file" if not damaged.is_file() else f"is to go into {target}, which exists"
        raise LedgerUnusable(
            f"Call ledger {damaged}: it {found}; expected an SQLite file and a new name"
        )
    open_ledger(target).close()
    counts = {"damaged": 0, "unread": 0}
    with (
        closing(sqlite3.connect(f"{damaged.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as goal,
    ):
        copied = {}
        for table in (calls_table, attempts_table):
            columns = ", ".join(table.columns.keys())
            marks = ", ".join("?" * len(table.columns))
            put = f"INSERT OR IGNORE INTO {table.name} ({columns}) VALUES ({marks})"
            before = goal.total_changes
            for row in _rows(source, table.name, columns, counts):
                if table is calls_table and not _is_whole(row):
                    counts["damaged"] += 1
                    continue
                goal.execute(put, row)
                if goal.total_changes % _GROUP_ROWS == 0:
                    goal.commit()
            goal.commit()
            copied[table.name] = goal.total_changes - before
    return Recovered(copied["calls"], copied["attempts"], counts["damaged"], counts["unread"])


def _rows(
    source: sqlite3.Connection, table: str, columns: str, counts: dict[str, int]
) -> Iterator[tuple[object, ...]]:
    query = f"SELECT rowid, {columns} FROM {table} WHERE rowid >= ? ORDER BY rowid"
    at: int | None = 0
    while at is not None:
        try:
            for rowid, *row in source.execute(query, (at,)):
                yield tuple(row)
                at = int(rowid) + 1
            return
        except sqlite3.DatabaseError as error:
            if _is_hopeless(error):
                raise LedgerCorrupt(
                    f"Call ledger, table {table}: not readable at all ({error}); expected an "
                    "SQLite ledger; nothing can be recovered, name a new ledger"
                ) from None
            counts["unread"] += 1
            at = _behind_damage(source, table, at)


def _behind_damage(source: sqlite3.Connection, table: str, at: int) -> int | None:
    """The first row number behind ``at`` from which reading works again; None: nowhere."""
    step = 1
    while not _is_readable(source, table, at + step):
        step *= 2
        if at + step > _LAST_ROWID:
            return None
    # Between the last step that failed and this one lies the edge of the damage.
    low, high = at + step // 2, at + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_readable(source, table, middle) else (middle, high)
    return high


def _is_readable(source: sqlite3.Connection, table: str, rowid: int) -> bool:
    query = f"SELECT * FROM {table} WHERE rowid >= ? ORDER BY rowid LIMIT 1"
    try:
        source.execute(query, (rowid,)).fetchall()
    except sqlite3.DatabaseError:
        return False
    return True


def _is_hopeless(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _is_whole(row: tuple[object, ...]) -> bool:
    names = list(calls_table.columns.keys())
    key, request, reply = (
        row[names.index(n)] for n in ("request_key", "request_zlib", "reply_zlib")
    )
    if not (isinstance(key, str) and isinstance(request, bytes) and isinstance(reply, bytes)):
        return False
    try:
        zlib.decompress(reply)
        return hashlib.sha256(zlib.decompress(request)).hexdigest() == key
    except zlib.error:
        return False


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("damaged", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        found = recover(arguments.damaged, arguments.target)
    except WarehouseError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(
        f"{found.calls} replies and {found.attempts} sends copied to {arguments.target}; "
        f"{found.damaged_calls} damaged rows and {found.unread_ranges} unreadable places skipped"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
