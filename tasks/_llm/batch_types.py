"""What batch mode hands around: settings, views for people, and the ways it stops.

No I/O happens here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tasks._llm.errors import CallFailed, LlmError, RequestInvalid

# What providers take in one file.
MAX_LINES = 50_000
MAX_BYTES = 200_000_000

OPEN_STATUSES = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
END_STATUSES = frozenset({"completed", "expired", "cancelled", "failed"})


class BatchUnknown(LlmError):
    """The endpoint does not know a batch that the store says was made there."""


class BatchUnsupported(LlmError):
    """The endpoint has no Files and Batches."""


class BatchRejected(CallFailed):
    """The endpoint took a batch and then refused it as a whole."""


class BatchCancelled(CallFailed):
    """A batch was cancelled; what it had finished is stored."""


class BatchStoreError(LlmError):
    """The database that remembers batches could not be read or written."""

    exit_code = 1


@dataclass(frozen=True)
class BatchSettings:
    """How batches are made. Nothing here can change an answer.

    Attributes:
        max_lines: Requests in one file.
        max_bytes: Size of one file.
        poll_s: Pause between two looks at the open batches.
        timeout_s: Longest a small request may take.
        upload_timeout_s: Longest an upload or a download may take.
        max_attempts: Sends of one small request, upload or download before its fault is raised.
        backoff_s: First pause before such a retry; doubles each time.
        backoff_cap_s: Longest such pause.
        max_tries: Batches that one call may be part of before its fault is raised.
        settle_s: After a creation whose answer was not seen: how long to wait before looking
            whether the batch exists, and before making it once more.
        lease_s: For how long a process that sends a batch keeps others from sending it; longer
            than an upload takes.
        requeue_s: Pause after the endpoint said that too much is enqueued.
        resubmits_unknown: Whether the calls of a batch that the endpoint no longer knows are
            bought again. Only for an endpoint that forgets, such as the simulator: with another
            account's key every batch is unknown, and would be paid for twice.
        max_calls: Hard cap of calls submitted by one buyer; None for none.
        max_cost_usd: Hard cap of money, by each call's worst case; None for none.
        assumed_completion_tokens: Worst case of a reply's length where the request sets none.

    Raises:
        RequestInvalid: a value out of range.
    """

    max_lines: int = MAX_LINES
    max_bytes: int = MAX_BYTES
    poll_s: float = 30.0
    timeout_s: float = 120.0
    upload_timeout_s: float = 1800.0
    max_attempts: int = 6
    backoff_s: float = 1.0
    backoff_cap_s: float = 60.0
    max_tries: int = 5
    settle_s: float = 10.0
    lease_s: float = 2400.0
    requeue_s: float = 60.0
    resubmits_unknown: bool = False
    max_calls: int | None = None
    max_cost_usd: float | None = None
    assumed_completion_tokens: int = 4096

    def __post_init__(self) -> None:
        at_least = {"max_lines": 1, "max_bytes": 1, "max_attempts": 1, "max_tries": 1}
        at_most = {"max_lines": MAX_LINES}
        for name, value in vars(self).items():
            if value is None:
                continue
            low, high = at_least.get(name, 0), at_most.get(name, float("inf"))
            if not low <= value <= high or value == float("inf"):
                most = f" and at most {high}" if high < float("inf") else ""
                raise RequestInvalid(
                    f"Batch setting {name}: found {value}; expected a number of at least "
                    f"{low}{most}"
                )


class Submission(NamedTuple):
    """One batch as the store knows it.

    Attributes:
        submission_id: Our own name, 32 hex digits; the batch's metadata carry it.
        endpoint_name: Where it belongs.
        model: The one model of its lines.
        state: "planned", "uploaded" (the file is), "sent" (the batch exists) or "closed".
        file_id: The endpoint's name of the input file.
        batch_id: The endpoint's name of the batch.
        n_lines: Calls in it.
        planned_at: UTC time.
        create_began_at: UTC time of the latest try to create it; None before the first.
        end_status: The endpoint's last word where it is closed.
        holder: Which process is sending it.
        lease_until: UTC time until which that holds.
    """

    submission_id: str
    endpoint_name: str
    model: str
    state: str
    file_id: str | None
    batch_id: str | None
    n_lines: int
    planned_at: datetime
    create_began_at: datetime | None
    end_status: str | None
    holder: str | None
    lease_until: datetime | None


class BatchCard(NamedTuple):
    """One batch as the endpoint tells it.

    Attributes:
        batch_id: The endpoint's name.
        status: The endpoint's word.
        input_file_id: What it was made from.
        output_file_id: Answers; None where there are none (yet).
        error_file_id: Failures; as above.
        submission_id: Our name from its metadata; None where it has none.
        n_completed: Lines answered.
        n_failed: Lines failed.
        error_code: Code of the first error of a batch refused as a whole, empty without one.
        error: Its message.
    """

    batch_id: str
    status: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    submission_id: str | None
    n_completed: int
    n_failed: int
    error_code: str
    error: str


class BatchView(NamedTuple):
    """One batch for people.

    Attributes:
        batch_id: The endpoint's name; None where it has not been created.
        submission_id: Our name.
        model: The one model of its lines.
        status: The endpoint's word; before that our state.
        n_lines: Calls in it.
        n_completed: Lines answered; None where the endpoint was not asked.
        n_failed: Lines failed; as above.
        planned_at: UTC time.
        is_open: Whether replies may still come from it.
    """

    batch_id: str | None
    submission_id: str
    model: str
    status: str
    n_lines: int
    n_completed: int | None
    n_failed: int | None
    planned_at: datetime
    is_open: bool
