"""The statements that every call passes through, as text with many rows each.

It opens no connection and begins no transaction.

The rest of the ledger speaks SQLAlchemy Core; these few do not, for two measured reasons. Core
binds row by row in Python, which cost more than the database did; and the SQLite driver lets go
of the interpreter lock at each row of an executemany, so that with a busy event loop beside it
every row waited for its turn. One statement of many rows waits once.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from warehouse.ledger_owner import is_surely_gone
from warehouse.ledger_rows import (
    REPLY_COLUMNS,
    AttemptRow,
    Claims,
    LedgerReply,
    OutcomeRow,
    Standing,
    attempts_table,
    calls_table,
    claims_table,
)

_Item = TypeVar("_Item")
_LOOKUP_KEYS = 5000
# SQLite before 3.32 takes 999 variables in a statement.
_MOST_VARIABLES = 990
# Any number, as long as all ledgers of a database use the same.
_WRITE_LOCK = 0x9EF1ED6E
_KEY_OF_CALL = "request_key"


class ClaimRequest(NamedTuple):
    """Sends that one buyer wants to make; ``lease_s`` where it is not the ledger's own."""

    attempts: Sequence[AttemptRow]
    owner: str
    lease_s: float | None = None


def lock_for_writing(connection: sa.Connection, busy_timeout_s: float) -> float:
    """Lets one writer in at a time, and reads the clock that claims expire by.

    SQLite has locked with BEGIN IMMEDIATE already. PostgreSQL gets the same order of things from
    an advisory lock, which makes check-then-claim safe and deadlocks impossible.

    Returns:
        Seconds since the epoch, by the database server's clock where there is a server.
    """
    if connection.dialect.name != "postgresql":
        return time.time()
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(busy_timeout_s * 1000)}")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
    return _server_time_s(connection)


def insert_attempts(connection: sa.Connection, rows: Sequence[AttemptRow]) -> None:
    """Puts sends on record."""
    stored = _time_writer(connection)
    values = [(attempt_id, key, stored(at)) for attempt_id, key, at in rows]
    _insert(connection, attempts_table, ("id", "request_key", "sent_at"), values)


def update_outcomes(connection: sa.Connection, rows: Sequence[OutcomeRow]) -> None:
    """Puts on record how sends ended."""
    alike: dict[tuple[str, int | None, str | None], list[int]] = {}
    for row in rows:
        alike.setdefault((row.outcome, row.http_status, row.fault), []).append(row.attempt_id)
    mark = _mark(connection)
    for ending, ids in alike.items():
        for chunk in chunks(ids, _MOST_VARIABLES - 3):
            connection.exec_driver_sql(
                f"UPDATE attempts SET outcome = {mark}, http_status = {mark}, fault = {mark} "
                f"WHERE id IN ({', '.join([mark] * len(chunk))})",
                (*ending, *chunk),
            )


def insert_calls(connection: sa.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Stores bought replies; a key that has one keeps it."""
    stored = _time_writer(connection)
    values = [(*row[:-2], stored(row[-2]), stored(row[-1])) for row in rows]
    _insert(connection, calls_table, tuple(calls_table.c.keys()), values, "DO NOTHING")


def select_replies(connection: sa.Connection, keys: Sequence[str]) -> dict[str, LedgerReply]:
    """Replies held for these keys."""
    columns = ", ".join(column.name for column in REPLY_COLUMNS)
    make = LedgerReply._make
    found: dict[str, LedgerReply] = {}
    for rows in _select_by_key(connection, f"SELECT {columns} FROM calls", keys):
        found.update((row[0], make(row)) for row in rows)
    return found


def select_held(connection: sa.Connection, keys: Sequence[str]) -> set[str]:
    """Which of these keys have a reply."""
    found: set[str] = set()
    for rows in _select_by_key(connection, "SELECT request_key FROM calls", keys):
        found.update(row[0] for row in rows)
    return found


def delete_calls(connection: sa.Connection, keys: Sequence[str]) -> None:
    """Takes these calls out, replies and claims with them."""
    mark = _mark(connection)
    for chunk in chunks(keys, _MOST_VARIABLES):
        marks = ", ".join([mark] * len(chunk))
        for table in ("calls", "claims"):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE request_key IN ({marks})", tuple(chunk)
            )


def shrink(engine: sa.Engine, beside: Sequence[str] = ()) -> None:
    """Writes the database's files anew, without what was deleted from them."""
    is_server = engine.dialect.name == "postgresql"
    pooled = engine.raw_connection()
    try:
        # Neither database vacuums within a transaction.
        driver: Any = pooled.driver_connection
        if is_server:
            driver.autocommit = True
        cursor = driver.cursor()
        if is_server:
            for table in ("calls", "claims", *beside):
                cursor.execute(f"VACUUM FULL {table}")
        else:
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cursor.close()
    finally:
        # A connection in another mode must not go back to the pool.
        pooled.invalidate()
        pooled.close()


def take_claims(
    connection: sa.Connection, requests: Sequence[ClaimRequest], now_s: float, lease_s: float
) -> list[Claims]:
    """Grants keys to the first that asks, and puts the granted sends on record.

    Args:
        connection: In a transaction that `lock_for_writing` has begun.
        requests: Whoever asks, first come first served.
        now_s: What `lock_for_writing` returned.
        lease_s: How long a claim holds without being renewed, where its request does not say.
    """
    keys = sorted({row.request_key for request in requests for row in request.attempts})
    held = select_replies(connection, keys)
    owners = _live_claims(connection, keys, now_s)
    sends: list[AttemptRow] = []
    results: list[Claims] = []
    granted_to: dict[str, tuple[str, float]] = {}
    for attempts, owner, own_lease_s in requests:
        expires_s = now_s + (lease_s if own_lease_s is None else own_lease_s)
        granted: set[str] = set()
        taken: set[str] = set()
        for row in attempts:
            key = row.request_key
            if key in held:
                continue
            if owners.setdefault(key, owner) == owner:
                granted.add(key)
                granted_to[key] = (owner, expires_s)
                sends.append(row)
            else:
                taken.add(key)
        mine = {
            row.request_key: held[row.request_key] for row in attempts if row.request_key in held
        }
        results.append(Claims(frozenset(granted), mine, frozenset(taken)))
    if sends:
        _insert(
            connection,
            claims_table,
            ("request_key", "owner", "expires_s"),
            [(key, *granted) for key, granted in granted_to.items()],
            "(request_key) DO UPDATE SET owner = excluded.owner, expires_s = excluded.expires_s",
        )
        insert_attempts(connection, sends)
    return results


def renew_claims(connection: sa.Connection, owners: Iterable[str], until_s: float) -> None:
    """Moves the expiry of all claims of these owners."""
    connection.execute(
        sa.update(claims_table)
        .where(claims_table.c.owner.in_(sorted(owners)))
        .values(expires_s=until_s)
    )


def drop_claims(connection: sa.Connection, claims: Sequence[tuple[str, str]]) -> None:
    """Ends claims, each a key and the owner it must still belong to."""
    by_owner: dict[str, list[str]] = {}
    for key, owner in claims:
        by_owner.setdefault(owner, []).append(key)
    mark = _mark(connection)
    for owner, keys in by_owner.items():
        for chunk in chunks(keys, _MOST_VARIABLES - 1):
            marks = ", ".join([mark] * len(chunk))
            connection.exec_driver_sql(
                f"DELETE FROM claims WHERE owner = {mark} AND request_key IN ({marks})",
                (owner, *chunk),
            )


def select_standing(connection: sa.Connection, keys: Sequence[str]) -> Standing:
    """Which of these keys have a reply by now, and which are still claimed."""
    is_server = connection.dialect.name == "postgresql"
    now_s = _server_time_s(connection) if is_server else time.time()
    # Claims first: a reply is committed together with the end of its claim.
    taken = _live_claims(connection, keys, now_s)
    held = select_replies(connection, keys)
    return Standing(held, {key: owner for key, owner in taken.items() if key not in held})


def chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """The items in order, ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _live_claims(connection: sa.Connection, keys: Sequence[str], now_s: float) -> dict[str, str]:
    query = "SELECT request_key, owner, expires_s FROM claims"
    owners = {
        key: owner
        for rows in _select_by_key(connection, query, keys)
        for key, owner, expires_s in rows
        if expires_s > now_s
    }
    gone = {owner for owner in set(owners.values()) if is_surely_gone(owner)}
    return {key: owner for key, owner in owners.items() if owner not in gone}


def _select_by_key(
    connection: sa.Connection, query: str, keys: Sequence[str]
) -> Iterator[list[tuple[Any, ...]]]:
    # One parameter holds all keys of a chunk: binding thousands costs more than finding them.
    is_server = connection.dialect.name == "postgresql"
    where = "= ANY(%s)" if is_server else "IN (SELECT value FROM json_each(?))"
    for chunk in chunks(keys, _LOOKUP_KEYS):
        value = list(chunk) if is_server else json.dumps(chunk)
        result = connection.exec_driver_sql(f"{query} WHERE {_KEY_OF_CALL} {where}", (value,))
        yield [tuple(row) for row in result.fetchall()]


def _insert(
    connection: sa.Connection,
    table: sa.Table,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
    on_conflict: str = "",
) -> None:
    for chunk in chunks(rows, _MOST_VARIABLES // len(columns)):
        connection.exec_driver_sql(
            _insert_text(table.name, columns, len(chunk), on_conflict, _mark(connection)),
            tuple(value for row in chunk for value in row),
        )


@cache
def _insert_text(
    table: str, columns: tuple[str, ...], n_rows: int, on_conflict: str, mark: str
) -> str:
    row = f"({', '.join([mark] * len(columns))})"
    text = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * n_rows)}"
    return f"{text} ON CONFLICT {on_conflict}" if on_conflict else text


def _mark(connection: sa.Connection) -> str:
    return "%s" if connection.dialect.name == "postgresql" else "?"


def _time_writer(connection: sa.Connection) -> Any:
    # As the column type of these tables does it, so that either way of writing reads the same.
    if connection.dialect.name == "postgresql":
        return _naive
    return lambda value: _naive(value).isoformat(" ", "microseconds")


def _naive(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)


def _server_time_s(connection: sa.Connection) -> float:
    query = "SELECT extract(epoch FROM clock_timestamp())"
    return float(connection.exec_driver_sql(query).scalar_one())
