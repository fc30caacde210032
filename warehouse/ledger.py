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
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from warehouse import ledger_sql
from warehouse.ledger_errors import LedgerError, LedgerUnusable, translated
from warehouse.ledger_errors import corrupt as corrupt_error
from warehouse.ledger_owner import new_owner
from warehouse.ledger_rows import (
    CALL_COLUMNS,
    TABLES,
    AttemptRow,
    Claims,
    LedgerCall,
    LedgerReply,
    LedgerTotals,
    OutcomeRow,
    ReplyRow,
    Standing,
    attempts_table,
    calls_table,
    packed,
)
from warehouse.ledger_sql import ClaimRequest, chunks

_PAGE_CALLS = 500
# A claim is renewed several times before it would expire, because a busy machine comes late.
_RENEWALS_PER_LEASE = 4


class _Work(NamedTuple):
    attempts: Sequence[AttemptRow] = ()
    outcomes: Sequence[OutcomeRow] = ()
    replies: Sequence[ReplyRow] = ()
    ended: Sequence[tuple[str, str]] = ()
    done: Future[dict[str, LedgerReply]] | None = None
    claim: ClaimRequest | None = None
    claimed: Future[Claims] | None = None


def open_ledger(
    url_or_path: str | Path, *, busy_timeout_s: float = 10.0, lease_s: float = 20.0
) -> "Ledger":
    """Opens a ledger, and makes it where there is none.

    Args:
        url_or_path: Path of an SQLite file, or an SQLAlchemy URL.
        busy_timeout_s: How long to wait for another process's write.
        lease_s: How long a claim of this process outlives it where others cannot see that it
            ended (another machine, another container).

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
    ledger = Ledger(engine, shown, busy_timeout_s, lease_s)
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

    def __init__(
        self, engine: sa.Engine, shown: str, busy_timeout_s: float, lease_s: float = 20.0
    ) -> None:
        self._engine = engine
        self._shown = shown
        self._busy_timeout_s = busy_timeout_s
        self._lease_s = lease_s
        self._owner = new_owner()
        self._owner_ids = count()
        # Claims held by this process, by key; only the writer thread touches them.
        self._claims: dict[str, str] = {}
        self._renewed_s = time.monotonic()
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
            if connection.dialect.name == "postgresql":
                # Two first openers race inside PostgreSQL's own IF NOT EXISTS.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7316005)"))
            for table in TABLES:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for table in TABLES:
                found = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
                if found != set(table.columns.keys()):
                    raise LedgerUnusable(
                        f"Call ledger {self._shown}: its table {table.name} has the columns "
                        f"{', '.join(sorted(found))}; expected "
                        f"{', '.join(sorted(table.columns.keys()))}; name another ledger"
                    )

    def new_owner(self) -> str:
        """A name for one buyer, under which it claims; two buyers of a process need two."""
        return f"{self._owner}/{next(self._owner_ids)}"

    def new_attempt_id(self) -> int:
        """An id for one send: 63 bits, in order of time, unique between processes."""
        return next(self._attempt_ids)

    def record(
        self,
        *,
        attempts: Sequence[AttemptRow] = (),
        outcomes: Sequence[OutcomeRow] = (),
        replies: Sequence[ReplyRow] = (),
        ended: Sequence[tuple[str, str]] = (),
    ) -> Future[dict[str, LedgerReply]]:
        """Hands rows to the writer thread, which commits whatever waits in one transaction.

        Args:
            attempts: Sends about to happen.
            outcomes: How earlier sends ended.
            replies: Bought replies. The first reply of a key stays; a later one is not stored.
            ended: Claims that end with this commit, each a key and its owner.

        Returns:
            A future, done after the COMMIT. Its result holds, for each of the keys that had a
            reply already, that reply: it is the one to use. It fails with a `LedgerError`.
        """
        done: Future[dict[str, LedgerReply]] = Future()
        self._put(_Work(attempts, outcomes, replies, ended, done))
        return done

    def claim(
        self, attempts: Sequence[AttemptRow], owner: str, lease_s: float | None = None
    ) -> Future[Claims]:
        """Asks for the right to buy, and puts the granted sends on record in the same commit.

        A claim is renewed while this ledger is open, and ends with `record`, with `close`, or
        when it was not renewed for ``lease_s``; then the key may be claimed by another. So two
        processes buy a key twice only if the first was stopped in mid-call for longer than that.

        Args:
            attempts: Sends about to happen.
            owner: From `new_owner`; keys that the same owner holds are granted again.
            lease_s: How long the claim holds, for work that goes on without this process: it is
                then not renewed, and only `record` ends it sooner. None for an ordinary claim.

        Returns:
            A future, done after the COMMIT. It fails with a `LedgerError`.
        """
        claimed: Future[Claims] = Future()
        self._put(_Work(claim=ClaimRequest(attempts, owner, lease_s), claimed=claimed))
        return claimed

    def standing(self, keys: Iterable[str]) -> Standing:
        """Where keys stand that `claim` said were taken."""
        with self._transaction() as connection:
            return ledger_sql.select_standing(connection, sorted(set(keys)))

    def lookup(self, keys: Iterable[str]) -> dict[str, LedgerReply]:
        """The replies held for these keys; a key without one is absent."""
        with self._transaction() as connection:
            return ledger_sql.select_replies(connection, sorted(set(keys)))

    def held(self, keys: Iterable[str]) -> set[str]:
        """Which of these keys have a reply; reads the index only."""
        with self._transaction() as connection:
            return ledger_sql.select_held(connection, sorted(set(keys)))

    def iter_calls(self, keys: Iterable[str] | None = None) -> Iterator[LedgerCall]:
        """Streams stored calls with their requests, in order of key.

        Args:
            keys: Which; None for all. A key without a reply is skipped.

        Yields:
            One call at a time; at most 500 are in memory, and no read lock outlives a page.
        """
        pages = None if keys is None else chunks(sorted(set(keys)), _PAGE_CALLS)
        last = ""
        while True:
            query = sa.select(*CALL_COLUMNS).order_by(calls_table.c.request_key)
            if pages is None:
                query = query.where(calls_table.c.request_key > last).limit(_PAGE_CALLS)
            else:
                chunk = next(pages, None)
                if chunk is None:
                    return
                query = query.where(calls_table.c.request_key.in_(chunk))
            with self._transaction() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield LedgerCall(*row[:5], LedgerReply._make(row[5:]))
            if pages is None:
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
                raise corrupt_error(self._shown, verdict)
        for call in self.iter_calls():
            key = call.reply.request_key
            if hashlib.sha256(call.request).hexdigest() != key:
                raise corrupt_error(self._shown, f"the request of key {key[:12]} has another key")
            # Unpacking is the check: zlib carries a checksum of its own.
            _ = call.reply.body

    def forget(self, keys: Iterable[str], beside: Sequence[str] = ()) -> None:
        """Takes calls out for good: their requests and replies leave the database's files too.

        Attempts stay: they hold no text, and say what was sent and may be billed. Safe to repeat.
        A server's own backups and logs are not in reach.

        Args:
            keys: Which; keys without a reply are skipped.
            beside: Further tables of the database out of which something was deleted.

        Raises:
            LedgerLocked: another process is reading or writing.
        """
        with self._transaction(is_write=True) as connection:
            ledger_sql.lock_for_writing(connection, self._busy_timeout_s)
            ledger_sql.delete_calls(connection, sorted(set(keys)))
        try:
            ledger_sql.shrink(self._engine, beside)
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise translated(cause, self._shown, self._busy_timeout_s) from None

    def close(self) -> None:
        """Commits what waits and closes all connections; safe to call twice."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if is_first:
                self._inbox.put(None)
        if self._writer is not None:
            self._writer.join()
        self._engine.dispose()

    def _put(self, work: _Work) -> None:
        with self._lock:
            if self._is_closed:
                raise LedgerError(f"Call ledger {self._shown}: it is closed; open it again")
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._write_all, name="ledger-writer", daemon=True
                )
                self._writer.start()
            self._inbox.put(work)

    def _write_all(self) -> None:
        is_open = True
        while is_open:
            group: list[_Work] = []
            try:
                item = self._inbox.get(timeout=self._renewal_due_s())
            except queue.Empty:
                self._renew()
                continue
            while True:
                if item is None:
                    is_open = False
                else:
                    group.append(item)
                try:
                    item = self._inbox.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._write(group)
            if self._claims and not self._renewal_due_s():
                self._renew()
        if self._claims:
            with suppress(LedgerError), self._transaction(is_write=True) as connection:
                ledger_sql.drop_claims(connection, list(self._claims.items()))

    def _renewal_due_s(self) -> float | None:
        if not self._claims:
            return None
        due_s = self._renewed_s + self._lease_s / _RENEWALS_PER_LEASE
        return max(due_s - time.monotonic(), 0.0)

    def _renew(self) -> None:
        self._renewed_s = time.monotonic()
        # Nobody waits for this. If the ledger fails, the next commit tells those who do.
        with suppress(LedgerError), self._transaction(is_write=True) as connection:
            now_s = ledger_sql.lock_for_writing(connection, self._busy_timeout_s)
            ledger_sql.renew_claims(connection, set(self._claims.values()), now_s + self._lease_s)

    def _write(self, group: Sequence[_Work]) -> None:
        if not self._claims:
            self._renewed_s = time.monotonic()
        try:
            held, claims = self._commit(group)
        except Exception as error:  # the one who waits must hear of it, whatever it is
            for work in group:
                for future in (work.done, work.claimed):
                    if future is not None:
                        future.set_exception(error)
            return
        finally:
            for work in group:
                for key, _ in work.ended:
                    self._claims.pop(key, None)
        answers = iter(claims)
        for work in group:
            if work.claim is not None and work.claimed is not None:
                answer = next(answers)
                if work.claim.lease_s is None:
                    self._claims.update(dict.fromkeys(answer.granted, work.claim.owner))
                work.claimed.set_result(answer)
            if work.done is not None:
                work.done.set_result(held)

    def _commit(self, group: Sequence[_Work]) -> tuple[dict[str, LedgerReply], list[Claims]]:
        sends = [row for work in group for row in work.attempts]
        outcomes = [row for work in group for row in work.outcomes]
        replies = {row.request_key: row for work in reversed(group) for row in work.replies}
        ended = [claim for work in group for claim in work.ended]
        requests = [work.claim for work in group if work.claim is not None]
        # Packed before the transaction: nobody else waits for it.
        rows = [packed(replies[key]) for key in sorted(replies)]
        held: dict[str, LedgerReply] = {}
        with self._transaction(is_write=True) as connection:
            now_s = ledger_sql.lock_for_writing(connection, self._busy_timeout_s)
            if sends:
                ledger_sql.insert_attempts(connection, sends)
            if outcomes:
                ledger_sql.update_outcomes(connection, outcomes)
            if rows:
                held = ledger_sql.select_replies(connection, list(replies))
                ledger_sql.insert_calls(connection, rows)
            if len(replies) < sum(len(work.replies) for work in group):
                # Two buyers of one key in this very group: both must be told which reply stays.
                held = ledger_sql.select_replies(connection, list(replies))
            if ended:
                ledger_sql.drop_claims(connection, ended)
            claims = (
                ledger_sql.take_claims(connection, requests, now_s, self._lease_s)
                if requests
                else []
            )
        return held, claims

    @contextmanager
    def _transaction(self, *, is_write: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(is_write=is_write)
                with connection.begin():
                    yield connection
        except sa.exc.DBAPIError as error:
            raise translated(error.orig, self._shown, self._busy_timeout_s) from None
        except sqlite3.Error as error:
            # Raised by the pragmas of a new connection, which SQLAlchemy does not wrap.
            raise translated(error, self._shown, self._busy_timeout_s) from None
