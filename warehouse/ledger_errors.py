"""What can go wrong with the call ledger, one line each. It knows nothing of datasets."""

import sqlite3

from warehouse.errors import WarehouseError


class LedgerError(WarehouseError):
    """The ledger could not be read or written; nothing unconfirmed counts as stored."""

    exit_code = 1


class LedgerUnusable(LedgerError):
    """The path or URL names nothing that can serve as a ledger."""

    exit_code = 2


class LedgerLocked(LedgerError):
    """Another process holds the ledger for longer than one write takes."""


class LedgerCorrupt(LedgerError):
    """The file, or a reply in it, is not what was once written."""


# PostgreSQL's own codes: lock not available, deadlock, query canceled while it waited.
_PG_LOCKED = frozenset({"55P03", "40P01", "57014"})
_PG_FULL = frozenset({"53100"})
_PG_CORRUPT = frozenset({"XX001", "XX002"})
_PG_REFUSED = frozenset({"28000", "28P01", "3D000", "42501", "25006"})


def translated(error: BaseException | None, shown: str, busy_timeout_s: float) -> LedgerError:
    """The driver's error as one line for a person.

    Args:
        error: As SQLite's or PostgreSQL's driver raised it.
        shown: Path or URL of the ledger, without its password.
        busy_timeout_s: How long a lock was waited for.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    state = getattr(error, "sqlstate", None)
    where = f"Call ledger {shown}"
    said = " ".join(str(error).split())[:200]
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state in _PG_LOCKED:
        return LedgerLocked(
            f"{where}: another process holds it (waited {busy_timeout_s:g} s); expected "
            "short writes only; end the other program or name another ledger"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or state in _PG_CORRUPT:
        return corrupt(shown, said)
    if code == sqlite3.SQLITE_FULL or state in _PG_FULL:
        return LedgerError(
            f"{where}: the disk is full; expected room for the next replies; free some and "
            "run again, finished calls are kept"
        )
    is_barred = code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
    if is_barred or state in _PG_REFUSED:
        return LedgerUnusable(
            f"{where}: it cannot be opened for writing ({said}); expected a place that this "
            "user may write; correct the path or URL, or its permissions"
        )
    return LedgerError(
        f"{where}: the database failed ({said}); expected to read and write; check disk and "
        "server, then run again: finished calls are kept"
    )


def corrupt(shown: str, said: str) -> LedgerCorrupt:
    """The line for a ledger that is damaged."""
    return LedgerCorrupt(
        f"Call ledger {shown}: it is damaged ({said}); expected what was once written; copy what "
        f"can be read into a new file with: python -m warehouse.ledger_recover {shown} NEW_FILE, "
        "and name that file as the ledger"
    )
