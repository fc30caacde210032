"""Remembers which call is in which batch, in two tables beside the call ledger.

It sends nothing and holds no reply. A key has at most one line, and a line is in at most one open
batch: that is what keeps a call from being bought twice.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tasks._llm.batch_types import BatchStoreError, Submission
from tasks._llm.errors import clean_line

# SQLite before 3.32 takes 999 variables in a statement.
_KEYS = 900
_PAGE_LINES = 500

metadata = sa.MetaData()
submissions_table = sa.Table(
    "batch_submissions",
    metadata,
    sa.Column("submission_id", sa.String(32), primary_key=True),
    sa.Column("endpoint_name", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("file_id", sa.Text),
    sa.Column("batch_id", sa.Text),
    sa.Column("n_lines", sa.Integer, nullable=False),
    sa.Column("planned_at", sa.DateTime, nullable=False),
    sa.Column("create_began_at", sa.DateTime),
    sa.Column("end_status", sa.Text),
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", sa.DateTime),
)
lines_table = sa.Table(
    "batch_lines",
    metadata,
    sa.Column("request_key", sa.String(64), primary_key=True),
    sa.Column("endpoint_name", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("request_zlib", sa.LargeBinary, nullable=False),
    sa.Column("n_bytes", sa.Integer, nullable=False),
    sa.Column("submission_id", sa.String(32), index=True),
    sa.Column("attempt_id", sa.BigInteger),
    sa.Column("tries", sa.Integer, nullable=False),
)
_S, _L = submissions_table.c, lines_table.c


class Line(NamedTuple):
    """One call that waits for its reply.

    Attributes:
        request_key: Its key.
        request: Canonical JSON of the request, see `CallRequest.identity`.
        attempt_id: Of the send that is under way; None before it.
        tries: Batches that did not answer it.
    """

    request_key: str
    request: bytes
    attempt_id: int | None
    tries: int


class NewLine(NamedTuple):
    """One call to be bought; ``n_bytes`` is the length of its line in a file."""

    request_key: str
    endpoint_name: str
    model: str
    request: bytes
    n_bytes: int


def open_batch_store(url_or_path: str | Path, *, busy_timeout_s: float = 30.0) -> "BatchStore":
    """Opens the tables in the database of the ledger, and makes them where there are none.

    Args:
        url_or_path: As `warehouse.ledger.open_ledger` takes it.
        busy_timeout_s: How long to wait for another process's write.

    Raises:
        BatchStoreError: the database cannot be opened.
    """
    text = str(url_or_path)
    try:
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
        engine = sa.create_engine(url, hide_parameters=True)
    except (sa.exc.ArgumentError, ImportError):
        raise BatchStoreError(
            "Batch store: its URL is not one that can be opened here; expected that of the call "
            "ledger: a path, sqlite:///FILE or postgresql+psycopg://... with that driver"
        ) from None
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        _prepare_sqlite(engine, busy_timeout_s)
    shown = str(url.database) if is_sqlite else url.render_as_string()
    store = BatchStore(engine, shown)
    store.create()
    return store


def _prepare_sqlite(engine: sa.Engine, busy_timeout_s: float) -> None:
    @sa.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, record: object) -> None:
        # The driver's own transactions begin too late for BEGIN IMMEDIATE.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("is_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


class BatchStore:
    """The open tables; safe to use from several threads. Build it with `open_batch_store`."""

    def __init__(self, engine: sa.Engine, shown: str) -> None:
        self._engine = engine
        self._shown = shown

    def __enter__(self) -> "BatchStore":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def create(self) -> None:
        """Makes the tables where they are missing."""
        with self._writing() as connection:
            metadata.create_all(connection)

    def close(self) -> None:
        """Closes all connections; safe to call twice."""
        self._engine.dispose()

    def add_lines(self, lines: Sequence[NewLine]) -> set[str]:
        """Adds calls that wait for a batch; a key that has a line already keeps it.

        Returns:
            The keys that are new.
        """
        if not lines:
            return set()
        known = self.waiting(line.request_key for line in lines)
        new = [line for line in lines if line.request_key not in known]
        rows = [
            {
                **line._asdict(),
                "request_zlib": zlib.compress(line.request, 1),
                "tries": 0,
            }
            for line in new
        ]
        for row in rows:
            del row["request"]
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        if rows:
            with self._writing() as connection:
                connection.execute(insert(lines_table).on_conflict_do_nothing(), rows)
        return {line.request_key for line in new}

    def waiting(self, keys: Iterable[str]) -> set[str]:
        """Which of these keys have a line, in a batch or not."""
        found: set[str] = set()
        with self._reading() as connection:
            for chunk in _chunks(sorted(set(keys))):
                query = sa.select(_L.request_key).where(_L.request_key.in_(chunk))
                found.update(connection.scalars(query))
        return found

    def pending(self, endpoint_name: str) -> list[tuple[str, str, int]]:
        """Lines in no batch: (model, key, bytes), in that order."""
        query = (
            sa.select(_L.model, _L.request_key, _L.n_bytes)
            .where(_L.endpoint_name == endpoint_name, _L.submission_id.is_(None))
            .order_by(_L.model, _L.request_key)
        )
        with self._reading() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def plan(self, endpoint_name: str, model: str, keys: Sequence[str], holder: str) -> str | None:
        """Puts lines into a new submission, in one transaction.

        Lines that another process has put into one meanwhile stay there.

        Returns:
            The submission's id; None where no line was left.
        """
        submission_id = uuid4().hex
        with self._writing() as connection:
            n_lines = 0
            for chunk in _chunks(keys):
                update = (
                    sa.update(lines_table)
                    .where(_L.request_key.in_(chunk), _L.submission_id.is_(None))
                    .values(submission_id=submission_id)
                )
                n_lines += connection.execute(update).rowcount
            if not n_lines:
                return None
            row = {
                "submission_id": submission_id,
                "endpoint_name": endpoint_name,
                "model": model,
                "state": "planned",
                "n_lines": n_lines,
                "planned_at": _now(),
                "holder": holder,
                # Nobody may take it before its planner does.
                "lease_until": _now() + timedelta(seconds=60),
            }
            connection.execute(sa.insert(submissions_table), [row])
        return submission_id

    def endpoint_names(self) -> list[str]:
        """The endpoints that have, or had, submissions, by name."""
        query = sa.select(_S.endpoint_name).distinct().order_by(_S.endpoint_name)
        with self._reading() as connection:
            return list(connection.scalars(query))

    def submissions(self, endpoint_name: str, *, is_open: bool) -> list[Submission]:
        """Submissions in order of planning: the open ones, or all."""
        query = (
            sa.select(submissions_table)
            .where(_S.endpoint_name == endpoint_name)
            .order_by(_S.planned_at, _S.submission_id)
        )
        if is_open:
            query = query.where(_S.state != "closed")
        with self._reading() as connection:
            return [_submission(row) for row in connection.execute(query)]

    def take(self, submission: Submission, holder: str, lease_s: float) -> Submission | None:
        """Makes this holder the one that may send, if nobody has become so since it was read.

        Returns:
            The submission as it is now; None where another one was faster.
        """
        update = (
            sa.update(submissions_table)
            .where(
                _S.submission_id == submission.submission_id,
                _S.state == submission.state,
                _S.holder.is_not_distinct_from(submission.holder),
            )
            .values(holder=holder, lease_until=_now() + timedelta(seconds=lease_s))
        )
        with self._writing() as connection:
            if connection.execute(update).rowcount != 1:
                return None
            query = sa.select(submissions_table).where(_S.submission_id == submission.submission_id)
            return _submission(connection.execute(query).one())

    def set_uploaded(self, submission_id: str, holder: str, file_id: str) -> bool:
        """Records the input file; False where the submission is no longer this holder's."""
        return self._set(submission_id, holder, state="uploaded", file_id=file_id)

    def begin_create(self, submission_id: str, holder: str, lease_s: float) -> bool:
        """Records that the batch is about to be created; False where it is another holder's."""
        now = _now()
        return self._set(
            submission_id,
            holder,
            create_began_at=now,
            lease_until=now + timedelta(seconds=lease_s),
        )

    def set_attempts(self, attempts: Mapping[str, int]) -> None:
        """Records the ledger's id of each line's send."""
        with self._writing() as connection:
            connection.execute(
                sa.update(lines_table).where(_L.request_key == sa.bindparam("b_key")),
                [{"b_key": key, "attempt_id": one} for key, one in attempts.items()],
            )

    def release(self, submission_id: str, keys: Iterable[str]) -> None:
        """Takes lines out of a submission that has not been sent."""
        with self._writing() as connection:
            for chunk in _chunks(sorted(set(keys))):
                connection.execute(
                    sa.update(lines_table)
                    .where(_L.submission_id == submission_id, _L.request_key.in_(chunk))
                    .values(submission_id=None, attempt_id=None)
                )

    def count_lines(self, submission_id: str) -> None:
        """Brings a submission's number of lines up to date."""
        n_lines = (
            sa.select(sa.func.count())
            .select_from(lines_table)
            .where(_L.submission_id == submission_id)
            .scalar_subquery()
        )
        with self._writing() as connection:
            connection.execute(
                sa.update(submissions_table)
                .where(_S.submission_id == submission_id)
                .values(n_lines=n_lines)
            )

    def set_sent(self, submission_id: str, holder: str, batch_id: str) -> bool:
        """Records the batch; False where the submission is no longer this holder's."""
        return self._set(
            submission_id,
            holder,
            state="sent",
            batch_id=batch_id,
            holder_after=None,
        )

    def drop_holder(self, submission_id: str, holder: str) -> None:
        """Lets others send what this holder could not."""
        self._set(submission_id, holder, holder_after=None)

    def lines(self, submission_id: str) -> Iterator[Line]:
        """Streams the lines of a submission in order of key; 500 are in memory at a time."""
        last = ""
        while True:
            query = (
                sa.select(_L.request_key, _L.request_zlib, _L.attempt_id, _L.tries)
                .where(_L.submission_id == submission_id, _L.request_key > last)
                .order_by(_L.request_key)
                .limit(_PAGE_LINES)
            )
            with self._reading() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            last = rows[-1].request_key
            yield from (self._line(row) for row in rows)

    def lines_among(self, submission_id: str, keys: Iterable[str]) -> dict[str, Line]:
        """The lines of a submission that have one of these keys."""
        found: dict[str, Line] = {}
        with self._reading() as connection:
            for chunk in _chunks(sorted(set(keys))):
                query = sa.select(_L.request_key, _L.request_zlib, _L.attempt_id, _L.tries).where(
                    _L.submission_id == submission_id, _L.request_key.in_(chunk)
                )
                for row in connection.execute(query):
                    found[row.request_key] = self._line(row)
        return found

    def requests(self) -> Iterator[tuple[str, bytes, str | None]]:
        """Streams every waiting call: its key, its request, the submission it is in, if any."""
        last = ""
        while True:
            query = (
                sa.select(
                    _L.request_key, _L.request_zlib, _L.attempt_id, _L.tries, _L.submission_id
                )
                .where(_L.request_key > last)
                .order_by(_L.request_key)
                .limit(_PAGE_LINES)
            )
            with self._reading() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            last = rows[-1].request_key
            yield from ((row[0], self._line(row).request, row.submission_id) for row in rows)

    def finish(
        self, submission_id: str, end_status: str, again: Iterable[str], *, is_try: bool
    ) -> bool:
        """Closes a submission in one transaction.

        Args:
            submission_id: Which.
            end_status: The endpoint's last word.
            again: Keys of lines that wait for another batch; all other lines are forgotten.
            is_try: Whether this counts as one of their tries.

        Returns:
            False where another process has closed it already; then nothing has changed.
        """
        with self._writing() as connection:
            update = (
                sa.update(submissions_table)
                .where(_S.submission_id == submission_id, _S.state != "closed")
                .values(state="closed", end_status=end_status, holder=None, lease_until=None)
            )
            if connection.execute(update).rowcount != 1:
                return False
            for chunk in _chunks(sorted(set(again))):
                connection.execute(
                    sa.update(lines_table)
                    .where(_L.submission_id == submission_id, _L.request_key.in_(chunk))
                    .values(submission_id=None, attempt_id=None, tries=_L.tries + int(is_try))
                )
            connection.execute(sa.delete(lines_table).where(_L.submission_id == submission_id))
        return True

    def forget_pending(self, keys: Iterable[str]) -> None:
        """Removes lines that are in no batch."""
        with self._writing() as connection:
            for chunk in _chunks(sorted(set(keys))):
                connection.execute(
                    sa.delete(lines_table).where(
                        _L.request_key.in_(chunk), _L.submission_id.is_(None)
                    )
                )

    def _set(self, submission_id: str, holder: str, **values: object) -> bool:
        with self._writing() as connection:
            return self._update(connection, submission_id, holder, **values)

    @staticmethod
    def _update(
        connection: sa.Connection, submission_id: str, holder: str, **values: object
    ) -> bool:
        if "holder_after" in values:
            values["holder"] = values.pop("holder_after")
            values["lease_until"] = None
        update = (
            sa.update(submissions_table)
            .where(_S.submission_id == submission_id, _S.holder == holder)
            .values(**values)
        )
        return connection.execute(update).rowcount == 1

    def _line(self, row: Any) -> Line:
        try:
            request = zlib.decompress(row.request_zlib)
        except zlib.error:
            raise BatchStoreError(
                f"Batch store {self._shown}: the request of key {row.request_key[:12]} is damaged; "
                "expected what was once written; delete that row of the table batch_lines"
            ) from None
        return Line(row.request_key, request, row.attempt_id, row.tries)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._transaction(is_write=False) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._transaction(is_write=True) as connection:
            yield connection

    @contextmanager
    def _transaction(self, *, is_write: bool) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(is_write=is_write)
                with connection.begin():
                    yield connection
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            # Raised bare by the pragmas of a new connection.
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise BatchStoreError(
                f"Batch store {self._shown}: the database failed ({clean_line(str(cause), 160)}); "
                "expected to read and write; check disk and server, then run again: batches that "
                "were sent are found again"
            ) from None


def _submission(row: Any) -> Submission:
    values: dict[str, Any] = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }
    return Submission(**values)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _KEYS):
        yield items[start : start + _KEYS]
