"""The call ledger: every request and raw reply once, and every send.

It calls nobody and prices nothing.
"""

import hashlib
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from warehouse.ledger_errors import LedgerCorrupt, LedgerError, LedgerLocked, LedgerUnusable
from warehouse.ledger_rows import (
    CALL_COLUMNS,
    REPLY_COLUMNS,
    AttemptRow,
    LedgerCall,
    LedgerReply,
    LedgerTotals,
    OutcomeRow,
    ReplyRow,
    attempts_table,
    calls_table,
    packed,
)

# Keys in one SELECT; SQLite before 3.32 takes 999 variables in a statement.
_LOOKUP_KEYS = 900
_PAGE_CALLS = 500


class _Work(NamedTuple):
    attempts: Sequence[AttemptRow]
    outcomes: Sequence[OutcomeRow]
    replies: Sequence[ReplyRow]
    done: Future[dict[str, LedgerReply]]


def open_ledger(url_or_path: str | Path, *, busy_timeout_s: float = 10.0) -> "Ledger":
    """Opens a ledger, and makes it where there is none.

    Args:
        url_or_path: Path of an SQLite file, or an SQLAlchemy URL.
        busy_timeout_s: How long to wait for another process's write.

    Raises:
        LedgerUnusable: the place cannot hold a ledger, or holds another kind of table.
        LedgerLocked: another process holds it.
        LedgerCorrupt: the file is no SQLite file any more.
        LedgerError: the disk is full or fails.
    """
    text = str(url_or_path)
    try:
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
        shown = url.render_as_string() if url.get_backend_name() != "sqlite" else str(url.database)
        if url.get_backend_name() == "sqlite":
            path = Path(url.database or "")
            if not url.database or url.database == ":memory:" or path.is_dir():
                raise LedgerUnusable(
                    f"Call ledger {shown!r}: it is no file; expected the path of an SQLite file, "
                    "existing or not, or the URL of a database"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
        # Parameters hold prompts and replies: they have no place in an error's text.
        engine = sa.create_engine(url, hide_parameters=True, pool_size=8, max_overflow=24)
    except OSError as error:
        raise LedgerUnusable(
            f"Call ledger {text}: its folder cannot be made ({error.strerror}); name another path"
        ) from None
    except (sa.exc.ArgumentError, ImportError):
        raise LedgerUnusable(
            "Call ledger: its URL is not one that can be opened here; expected a path, "
            "sqlite:///FILE or postgresql+psycopg://... with that driver installed"
        ) from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, busy_timeout_s)
    ledger = Ledger(engine, shown, busy_timeout_s)
    ledger.create()
    return ledger


def _prepare_sqlite(engine: sa.Engine, busy_timeout_s: float) -> None:
    @sa.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, record: object) -> None:
        # The driver's own transactions begin too late for BEGIN IMMEDIATE.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        # Paid replies outlive a power cut: measured at 0.6 ms a group commit, 0.35 ms without.
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A read that later turns into a write fails at once when another process has written.
        is_write = connection.get_execution_options().get("is_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


class Ledger:
    """An open ledger; safe to use from several threads. Build it with `open_ledger`."""

    def __init__(self, engine: sa.Engine, shown: str, busy_timeout_s: float) -> None:
        self._engine = engine
        self._shown = shown
        self._busy_timeout_s = busy_timeout_s
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        # Ordered by time and unique without asking anyone: microseconds with 12 random bits
        # behind them, counted up by far less than 4,096 a microsecond.
        self._attempt_ids = count(time.time_ns() // 1000 << 12 | secrets.randbits(12))

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def create(self) -> None:
        """Makes the tables where they are missing, and checks them where they are there."""
        with self._transaction(is_write=True) as connection:
            for table in (calls_table, attempts_table):
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for table in (calls_table, attempts_table):
                found = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
                if found != set(table.columns.keys()):
                    raise LedgerUnusable(
                        f"Call ledger {self._shown}: its table {table.name} has the columns "
                        f"{', '.join(sorted(found))}; expected "
                        f"{', '.join(sorted(table.columns.keys()))}; name another ledger"
                    )

    def new_attempt_id(self) -> int:
        """An id for one send: 63 bits, in order of time, unique between processes."""
        return next(self._attempt_ids)

    def record(
        self,
        *,
        attempts: Sequence[AttemptRow] = (),
        outcomes: Sequence[OutcomeRow] = (),
        replies: Sequence[ReplyRow] = (),
    ) -> Future[dict[str, LedgerReply]]:
        """Hands rows to the writer thread, which commits whatever waits in one transaction.

        Args:
            attempts: Sends about to happen.
            outcomes: How earlier sends ended.
            replies: Bought replies. The first reply of a key stays; a later one is not stored.

        Returns:
            A future, done after the COMMIT. Its result holds, for each of the keys that had a
            reply already, that reply: it is the one to use. It fails with a `LedgerError`.
        """
        work = _Work(attempts, outcomes, replies, Future())
        with self._lock:
            if self._is_closed:
                raise LedgerError(f"Call ledger {self._shown}: it is closed; open it again")
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write_all, name="ledger-writer", daemon=True
                )
                self._writer.start()
            self._inbox.put(work)
        return work.done

    def lookup(self, keys: Iterable[str]) -> dict[str, LedgerReply]:
        """The replies held for these keys; a key without one is absent."""
        with self._transaction() as connection:
            return self._select_replies(connection, sorted(set(keys)))

    def held(self, keys: Iterable[str]) -> set[str]:
        """Which of these keys have a reply; reads the index only."""
        found: set[str] = set()
        with self._transaction() as connection:
            for chunk in _chunks(sorted(set(keys)), _LOOKUP_KEYS):
                found.update(
                    connection.scalars(
                        sa.select(calls_table.c.request_key).where(
                            calls_table.c.request_key.in_(chunk)
                        )
                    )
                )
        return found

    def iter_calls(self, keys: Iterable[str] | None = None) -> Iterator[LedgerCall]:
        """Streams stored calls with their requests, in order of key.

        Args:
            keys: Which; None for all. A key without a reply is skipped.

        Yields:
            One call at a time; at most 500 are in memory, and no read lock outlives a page.
        """
        chunks = None if keys is None else _chunks(sorted(set(keys)), _PAGE_CALLS)
        last = ""
        while True:
            query = sa.select(*CALL_COLUMNS).order_by(calls_table.c.request_key)
            if chunks is None:
                query = query.where(calls_table.c.request_key > last).limit(_PAGE_CALLS)
            else:
                chunk = next(chunks, None)
                if chunk is None:
                    return
                query = query.where(calls_table.c.request_key.in_(chunk))
            with self._transaction() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield LedgerCall(*row[:5], LedgerReply._make(row[5:]))
            if chunks is None:
                if not rows:
                    return
                last = rows[-1].request_key

    def totals(self) -> LedgerTotals:
        """Sums over the whole ledger."""
        c, a = calls_table.c, attempts_table.c
        with self._transaction() as connection:
            bought = connection.execute(
                sa.select(
                    sa.func.count(),
                    sa.func.coalesce(sa.func.sum(c.prompt_tokens), 0),
                    sa.func.coalesce(sa.func.sum(c.completion_tokens), 0),
                    sa.func.coalesce(sa.func.sum(c.cost_usd), 0.0),
                    sa.func.count() - sa.func.count(c.cost_usd),
                ).select_from(calls_table)
            ).one()
            sent = connection.execute(
                sa.select(sa.func.count(), sa.func.count() - sa.func.count(a.outcome)).select_from(
                    attempts_table
                )
            ).one()
        return LedgerTotals._make((*bought, *sent))

    def check(self) -> None:
        """Reads the whole ledger and proves that every request has its key.

        Raises:
            LedgerCorrupt: the file, a request or a reply is damaged.
        """
        if self._engine.dialect.name == "sqlite":
            with self._transaction() as connection:
                verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            if verdict != "ok":
                raise self._corrupt(verdict)
        for call in self.iter_calls():
            key = call.reply.request_key
            if hashlib.sha256(call.request).hexdigest() != key:
                raise self._corrupt(f"the request of key {key[:12]} has another key")
            # Unpacking is the check: zlib carries a checksum of its own.
            _ = call.reply.body

    def close(self) -> None:
        """Commits what waits and closes all connections; safe to call twice."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if is_first:
                self._inbox.put(None)
        if self._writer is not None:
            self._writer.join()
        self._engine.dispose()

    def _write_all(self) -> None:
        is_open = True
        while is_open:
            group: list[_Work] = []
            item = self._inbox.get()
            while True:
                if item is None:
                    is_open = False
                else:
                    group.append(item)
                try:
                    item = self._inbox.get_nowait()
                except queue.Empty:
                    break
            if not group:
                continue
            try:
                held = self._write(group)
            except Exception as error:  # the one who waits must hear of it, whatever it is
                for work in group:
                    work.done.set_exception(error)
            else:
                for work in group:
                    work.done.set_result(held)

    def _write(self, group: list[_Work]) -> dict[str, LedgerReply]:
        sends = [row for work in group for row in work.attempts]
        outcomes = [row for work in group for row in work.outcomes]
        replies = {row.request_key: row for work in reversed(group) for row in work.replies}
        # Packed before the transaction: nobody else waits for it.
        rows = [packed(row) for row in replies.values()]
        with self._transaction(is_write=True) as connection:
            if sends:
                connection.execute(
                    sa.insert(attempts_table),
                    [{"id": a, "request_key": key, "sent_at": at} for a, key, at in sends],
                )
            if outcomes:
                connection.execute(
                    sa.update(attempts_table).where(attempts_table.c.id == sa.bindparam("b_id")),
                    [
                        {"b_id": a, "outcome": outcome, "http_status": status, "fault": fault}
                        for a, outcome, status, fault in outcomes
                    ],
                )
            held = self._select_replies(connection, list(replies))
            if rows:
                connection.execute(self._insert_calls(), rows)
            if len(replies) < sum(len(work.replies) for work in group):
                # Two buyers of one key in this very group: both must be told which reply stays.
                held = self._select_replies(connection, list(replies))
        return held

    @staticmethod
    def _select_replies(connection: sa.Connection, keys: Sequence[str]) -> dict[str, LedgerReply]:
        found: dict[str, LedgerReply] = {}
        for chunk in _chunks(keys, _LOOKUP_KEYS):
            query = sa.select(*REPLY_COLUMNS).where(calls_table.c.request_key.in_(chunk))
            found.update((row[0], LedgerReply._make(row)) for row in connection.execute(query))
        return found

    def _insert_calls(self) -> sa.Insert:
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(calls_table).on_conflict_do_nothing()
        return sqlite.insert(calls_table).on_conflict_do_nothing()

    @contextmanager
    def _transaction(self, *, is_write: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(is_write=is_write)
                with connection.begin():
                    yield connection
        except sa.exc.DBAPIError as error:
            raise self._translated(error.orig) from None
        except sqlite3.Error as error:
            # Raised by the pragmas of a new connection, which SQLAlchemy does not wrap.
            raise self._translated(error) from None

    def _translated(self, error: BaseException | None) -> LedgerError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = f"Call ledger {self._shown}"
        said = " ".join(str(error).split())[:200]
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LedgerLocked(
                f"{where}: another process holds it (waited {self._busy_timeout_s:g} s); expected "
                "short writes only; end the other program or name another ledger"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._corrupt(said)
        if code == sqlite3.SQLITE_FULL:
            return LedgerError(
                f"{where}: the disk is full; expected room for the next replies; free some and "
                "run again, finished calls are kept"
            )
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return LedgerUnusable(
                f"{where}: it cannot be opened for writing ({said}); expected a file and folder "
                "that this user may write; correct the path or its permissions"
            )
        return LedgerError(
            f"{where}: the database failed ({said}); expected to read and write; check disk and "
            "server, then run again: finished calls are kept"
        )

    def _corrupt(self, said: str) -> LedgerCorrupt:
        return LedgerCorrupt(
            f"Call ledger {self._shown}: it is damaged ({said}); expected an SQLite ledger; save "
            f"what can be read with: sqlite3 {self._shown} .recover | sqlite3 recovered.sqlite, "
            "then put that file in its place"
        )


def _chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
