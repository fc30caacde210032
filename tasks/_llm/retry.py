"""The one retry policy: which fault is answered with what, and how long to wait.

It sends nothing itself.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum
from typing import NamedTuple

from tasks._llm.errors import (
    AuthenticationRejected,
    CallFailed,
    EndpointUnreachable,
    LlmError,
    ModelUnknown,
    QuotaExhausted,
    clean_line,
)
from tasks._llm.types import Endpoint, EngineSettings


class FaultKind(StrEnum):
    """What went wrong with one send."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    UNREACHABLE = "unreachable"
    NAME_UNKNOWN = "name_unknown"
    TLS = "tls"
    NOT_JSON = "not_json"
    NO_CHOICES = "no_choices"
    QUOTA = "quota"
    KEY_REJECTED = "key_rejected"
    MODEL_UNKNOWN = "model_unknown"
    PATH_UNKNOWN = "path_unknown"
    REDIRECTED = "redirected"
    REFUSED = "refused"


class Fault(NamedTuple):
    """One send that brought no answer.

    Attributes:
        kind: Which row of the table.
        message: What the server or the system said, not yet cleaned.
        status: HTTP status; None where none came.
        retry_after_s: The pause the server asks for; None where it asks for none.
    """

    kind: FaultKind
    message: str
    status: int | None = None
    retry_after_s: float | None = None


class Action(Enum):
    """What to do about a fault."""

    RETRY = "wait and send again, up to max_attempts"
    RETRY_PATIENTLY = "wait as the server says and send again, up to rate_limit_patience_s"
    RECONNECT = "send again for a bounded time; short when the endpoint never answered"
    STOP = "stop the run: every further call would meet the same"


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        action: What to do.
        error: What is raised when the action is, or has come, to its end.
        is_maybe_billed: The server may have done the work, and a retry may be a second bill.
        remedy: What a person can do about it.
    """

    action: Action
    error: type[LlmError]
    is_maybe_billed: bool
    remedy: str


_LATER = "run again later, finished calls are kept"

RULES: Mapping[FaultKind, Rule] = {
    FaultKind.RATE_LIMITED: Rule(
        Action.RETRY_PATIENTLY, CallFailed, False, "lower the number in flight, or " + _LATER
    ),
    FaultKind.SERVER_ERROR: Rule(Action.RETRY, CallFailed, False, _LATER),
    FaultKind.TIMEOUT: Rule(
        Action.RETRY, CallFailed, True, "raise the timeout, lower the number in flight"
    ),
    FaultKind.CONNECTION_LOST: Rule(Action.RETRY, CallFailed, True, _LATER),
    FaultKind.UNREACHABLE: Rule(
        Action.RECONNECT, EndpointUnreachable, False, "start the server or correct the base URL"
    ),
    FaultKind.NAME_UNKNOWN: Rule(
        Action.RECONNECT, EndpointUnreachable, False, "correct the host in the base URL"
    ),
    FaultKind.TLS: Rule(
        Action.STOP, EndpointUnreachable, False, "correct the certificate or the base URL"
    ),
    FaultKind.NOT_JSON: Rule(
        Action.RETRY, CallFailed, True, "check that the base URL is that of an API, " + _LATER
    ),
    FaultKind.NO_CHOICES: Rule(Action.RETRY, CallFailed, True, _LATER),
    FaultKind.QUOTA: Rule(
        Action.STOP, QuotaExhausted, False, "add credit and run again, finished calls are kept"
    ),
    FaultKind.KEY_REJECTED: Rule(
        Action.STOP, AuthenticationRejected, False, "set the key that belongs to this endpoint"
    ),
    FaultKind.MODEL_UNKNOWN: Rule(
        Action.STOP, ModelUnknown, False, "name a model that GET /models of the endpoint lists"
    ),
    FaultKind.PATH_UNKNOWN: Rule(
        Action.STOP, EndpointUnreachable, False, "correct the base URL, it usually ends in /v1"
    ),
    FaultKind.REDIRECTED: Rule(
        Action.STOP, EndpointUnreachable, False, "name the final address as base URL"
    ),
    FaultKind.REFUSED: Rule(
        Action.STOP, CallFailed, False, "correct the request, finished calls are kept"
    ),
}


def fault_error(fault: Fault, endpoint: Endpoint, model: str, sends: int) -> LlmError:
    """The one line a person reads when a fault ends the run.

    Args:
        fault: The last fault of the call.
        endpoint: Where it was sent; its key is taken out of the server's words.
        model: Model that was asked for.
        sends: How often the call was sent.
    """
    rule = RULES[fault.kind]
    key = endpoint.api_key
    said = clean_line(key.scrub(fault.message) if key else fault.message)
    status = f"HTTP {fault.status}, " if fault.status else ""
    tries = f" after {sends} sends" if sends > 1 else ""
    return rule.error(
        f"Model {clean_line(model, 80)} at {endpoint.shown_url}: {fault.kind} ({status}{said})"
        f"{tries}; expected an answer; {rule.remedy}"
    )


def backoff_s(key: str, sends: int, fault: Fault, settings: EngineSettings) -> float:
    """Pause before the next send.

    Exponential with jitter, and never shorter than what the server asks for. The jitter is read
    from the request key, which is a hash: spread out, and the same in every run.

    Args:
        key: Request key.
        sends: Sends so far, at least 1.
        fault: The last fault.
        settings: ``backoff_s`` and ``backoff_cap_s``.

    Returns:
        Seconds, between half and all of the exponential pause, plus the server's own.
    """
    pause = min(settings.backoff_s * 2.0 ** min(sends - 1, 30), settings.backoff_cap_s)
    at = 8 * (sends % 8)
    jitter = int(key[at : at + 8], 16) / 0xFFFFFFFF
    return (fault.retry_after_s or 0.0) + pause * (0.5 + 0.5 * jitter)


def stated_pause_s(headers: Mapping[str, str]) -> float | None:
    """The pause a server asks for, under the names servers use.

    ``retry-after-ms``, then ``retry-after`` (seconds or a date), then the
    ``x-ratelimit-reset-*`` of the limit that is used up.

    Returns:
        Seconds, at least 0; None where nothing readable is stated.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if asked is not None:
        pause = moment_s(asked)
        if pause is not None:
            return pause
    resets = {
        limit: moment_s(headers.get(f"x-ratelimit-reset-{limit}", ""))
        for limit in ("requests", "tokens")
    }
    used_up = [
        pause
        for limit, pause in resets.items()
        if pause is not None and _number(headers.get(f"x-ratelimit-remaining-{limit}")) == 0
    ]
    if used_up:
        return max(used_up)
    plain = moment_s(headers.get("x-ratelimit-reset", ""))
    known = [pause for pause in (*resets.values(), plain) if pause is not None]
    return min(known) if known else None


_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def moment_s(text: str) -> float | None:
    # Seen in the wild: "7", "6m0.5s", "20ms", an HTTP date, an ISO date, epoch seconds or
    # milliseconds.
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number > 1e11:
            number = number / 1000
        return max(number - time.time(), 0.0) if number > 1e9 else number
    parts = _PARTS.findall(text)
    if parts and "".join(value + unit for value, unit in parts) == text:
        return float(sum(float(value) * _SECONDS[unit] for value, unit in parts))
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    return None


def _number(text: str | None) -> float | None:
    # Digits only: float() would also take "nan", "inf" and "1_0".
    if text is None or not re.fullmatch(r"\s*\d{1,15}(\.\d{1,9})?\s*", text):
        return None
    return float(text)
