"""The tables of the call ledger and the rows that go in and out.

It opens nothing and runs no query.
"""

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from warehouse.ledger_errors import LedgerCorrupt

# Every call of a run passes here: level 1 costs 50 us for 6 kB.
_ZLIB_LEVEL = 1


class _UtcTime(sa.TypeDecorator[datetime]):
    """A UTC time; SQLite keeps no zone, so every stored value means UTC."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData()
calls_table = sa.Table(
    "calls",
    metadata,
    sa.Column("request_key", sa.String(64), primary_key=True),
    sa.Column("endpoint_name", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("request_zlib", sa.LargeBinary, nullable=False),
    sa.Column("reply_zlib", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("cost_usd", sa.Float),
    sa.Column("sent_at", _UtcTime, nullable=False),
    sa.Column("received_at", _UtcTime, nullable=False),
)
attempts_table = sa.Table(
    "attempts",
    metadata,
    sa.Column(
        "id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("request_key", sa.String(64), nullable=False),
    sa.Column("sent_at", _UtcTime, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("http_status", sa.Integer),
    sa.Column("fault", sa.Text),
)
claims_table = sa.Table(
    "claims",
    metadata,
    sa.Column("request_key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires_s", sa.Float(53), nullable=False),
)
TABLES = (calls_table, attempts_table, claims_table)
REPLY_COLUMNS = (
    calls_table.c.request_key,
    calls_table.c.status,
    calls_table.c.reply_zlib,
    calls_table.c.prompt_tokens,
    calls_table.c.completion_tokens,
    calls_table.c.cached_tokens,
    calls_table.c.cost_usd,
)
CALL_COLUMNS = (
    calls_table.c.endpoint_name,
    calls_table.c.model,
    calls_table.c.request_zlib,
    calls_table.c.sent_at,
    calls_table.c.received_at,
    *REPLY_COLUMNS,
)


class AttemptRow(NamedTuple):
    """One send about to happen; ``attempt_id`` from `Ledger.new_attempt_id`."""

    attempt_id: int
    request_key: str
    sent_at: datetime


class OutcomeRow(NamedTuple):
    """How a send ended: ``outcome`` is "reply", "fault" or "not_sent".

    A row that never gets one stands for a send whose end nobody saw: it may be billed.
    """

    attempt_id: int
    outcome: str
    http_status: int | None = None
    fault: str | None = None


class ReplyRow(NamedTuple):
    """One bought reply, as `Ledger.record` takes it.

    Attributes:
        request_key: SHA-256 of ``request``.
        endpoint_name: Where it was bought.
        model: Model that was asked.
        request: Canonical JSON of the request.
        reply: Raw bytes of the reply.
        status: HTTP status.
        prompt_tokens: As the reply states; None where it does not.
        completion_tokens: As above.
        cached_tokens: As above.
        cost_usd: None where unknown.
        sent_at: UTC time of the send that was answered.
        received_at: UTC time of its last byte.
    """

    request_key: str
    endpoint_name: str
    model: str
    request: bytes
    reply: bytes
    status: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    sent_at: datetime
    received_at: datetime


class LedgerReply(NamedTuple):
    """One stored reply; `body` are the raw bytes, unpacked when asked for."""

    request_key: str
    status: int
    reply_zlib: bytes
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None

    @property
    def body(self) -> bytes:
        """The raw reply.

        Raises:
            LedgerCorrupt: the stored bytes do not unpack.
        """
        return _unpack(self.reply_zlib, self.request_key, "reply")


class LedgerCall(NamedTuple):
    """One stored call with its request, for audits."""

    endpoint_name: str
    model: str
    request_zlib: bytes
    sent_at: datetime
    received_at: datetime
    reply: LedgerReply

    @property
    def request(self) -> bytes:
        """Canonical JSON of the request; its SHA-256 is ``reply.request_key``."""
        return _unpack(self.request_zlib, self.reply.request_key, "request")


class Claims(NamedTuple):
    """What became of the sends that `Ledger.claim` was asked for; each key is in one of these.

    Attributes:
        granted: Keys that are the asker's now: their attempts are on record, it may send.
        held: Keys that have a reply already.
        taken: Keys that another buyer is buying; ask `Ledger.standing` later.
    """

    granted: frozenset[str]
    held: Mapping[str, LedgerReply]
    taken: frozenset[str]


class Standing(NamedTuple):
    """Where keys stand that others had claimed; a key in neither of the two is free.

    Attributes:
        held: Keys that have a reply by now.
        taken: Owner by key, where a buyer that is, or may be, at work still claims it.
    """

    held: Mapping[str, LedgerReply]
    taken: Mapping[str, str]


class LedgerTotals(NamedTuple):
    """Sums over the whole ledger.

    Attributes:
        calls: Replies held.
        prompt_tokens: Sum over replies that state it.
        completion_tokens: As above.
        cost_usd: Sum over replies with a known cost.
        unpriced_calls: Replies with an unknown cost.
        attempts: Sends ever begun.
        unanswered_attempts: Sends whose end nobody saw: possible bills without a reply.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced_calls: int
    attempts: int
    unanswered_attempts: int


def packed(row: ReplyRow) -> tuple[object, ...]:
    """The values of the table calls for a bought reply, in the order of its columns."""
    return (
        row.request_key,
        row.endpoint_name,
        row.model,
        zlib.compress(row.request, _ZLIB_LEVEL),
        zlib.compress(row.reply, _ZLIB_LEVEL),
        row.status,
        row.prompt_tokens,
        row.completion_tokens,
        row.cached_tokens,
        row.cost_usd,
        row.sent_at,
        row.received_at,
    )


def _unpack(data: bytes, key: str, what: str) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error:
        raise LedgerCorrupt(
            f"Call ledger, {what} of key {key[:12]}: the stored bytes are damaged; expected what "
            "was once written; delete that row of the table calls to buy it again"
        ) from None
