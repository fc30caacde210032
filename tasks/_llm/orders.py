"""What the engine and its buyer hand each other: orders, and replies read from the ledger.

No I/O happens here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tasks._llm.errors import CallFailed, LlmError, clean_line
from tasks._llm.replies import read_reply
from tasks._llm.retry import Fault
from tasks._llm.types import CallReply, CallRequest
from warehouse.errors import WarehouseError
from warehouse.ledger_rows import LedgerReply


@dataclass(eq=False)
class Order:
    """One call to be bought, and how it has gone so far.

    Attributes:
        request: What to send.
        is_dropped: Nobody waits for it any more; it is not sent (again).
        body: What is sent, while it is being bought.
        worst_case_usd: What its next send may cost at most.
        sends: Sends so far.
        faults: Sends that count against the attempts of one call.
        refused_since_s: When its rate was first refused, by the loop's clock.
        is_counted: It is counted against the cap of calls.
        is_claimed: The ledger holds a claim for it.
    """

    request: CallRequest
    is_dropped: bool = False
    body: bytes = field(default=b"", repr=False)
    worst_case_usd: float = 0.0
    sends: int = 0
    faults: int = 0
    refused_since_s: float | None = None
    is_counted: bool = False
    is_claimed: bool = False


@dataclass(frozen=True)
class Counter:
    """Where the loop reports to; called from its thread.

    Attributes:
        settle: Takes the reply of an order, or the error that ended the run.
        drop: Settles a dropped order; False if somebody wants it again after all.
        retried: Counts a send beyond the first of its call.
    """

    settle: Callable[[Order, CallReply | BaseException], None]
    drop: Callable[[Order], bool]
    retried: Callable[[], None]


def stored_reply(found: LedgerReply) -> CallReply:
    """A reply of the ledger, read anew from its raw bytes.

    Raises:
        CallFailed: the stored bytes are no answer.
        LedgerCorrupt: they do not unpack.
    """
    body = found.body
    answer = read_reply(found.status, body)
    if isinstance(answer, Fault):
        raise CallFailed(
            f"Stored reply of key {found.request_key[:12]}: {clean_line(answer.message)}; expected "
            "an answer; delete that row of the ledger's table calls to buy it again"
        )
    return CallReply(
        found.request_key,
        found.status,
        body,
        answer.text,
        answer.refusal,
        answer.finish_reason,
        found.prompt_tokens,
        found.completion_tokens,
        found.cached_tokens,
        found.cost_usd,
        True,
    )


def again(error: BaseException) -> BaseException:
    """A fresh copy of an error, so that threads which raise it do not share one traceback."""
    return type(error)(*error.args) if isinstance(error, LlmError | WarehouseError) else error
