"""Reads one raw reply: an answer, or the fault it stands for.

It sends nothing and decides nothing.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks._llm.retry import Fault, FaultKind, stated_pause_s

_FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
)
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded"})
_MODEL_CODES = frozenset({"model_not_found", "invalid_model", "unknown_model"})
_RETRIED_STATUSES = frozenset({408, 409, 425})
# Larger counts than any bill has are a server's nonsense, and would not fit the ledger.
_MOST_TOKENS = 2**31


class Answer(NamedTuple):
    """What a usable reply says; see `CallReply` for the fields."""

    text: str | None
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


def read_reply(
    status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> Answer | Fault:
    """Tells an answer from a fault.

    Args:
        status: HTTP status.
        body: Raw bytes; invalid UTF-8 is read with replacement characters.
        headers: Reply headers, for the pause a server asks for; None for a stored reply.

    Returns:
        The answer, a content filter's error reply included, or the fault.
    """
    data = _json_object(body)
    if status == 200:
        return _read_completion(data, body)
    code, message = _read_error(data, body)
    pause_s = stated_pause_s(headers) if headers is not None else None

    def fault(kind: FaultKind) -> Fault:
        return Fault(kind, message, status, pause_s)

    if status in (400, 403, 422) and code in _FILTER_CODES:
        return Answer(None, None, "content_filter", *_read_usage(data))
    if status == 402 or (status in (403, 429) and code in _QUOTA_CODES):
        return fault(FaultKind.QUOTA)
    if status == 429:
        return fault(FaultKind.RATE_LIMITED)
    if status in (401, 403):
        return fault(FaultKind.KEY_REJECTED)
    if status in (400, 404) and code in _MODEL_CODES:
        return fault(FaultKind.MODEL_UNKNOWN)
    if status == 404:
        is_model = data is not None and "model" in message.lower()
        return fault(FaultKind.MODEL_UNKNOWN if is_model else FaultKind.PATH_UNKNOWN)
    if status >= 500 or status in _RETRIED_STATUSES:
        return fault(FaultKind.SERVER_ERROR)
    if 300 <= status < 400:
        return fault(FaultKind.REDIRECTED)
    if status >= 400:
        return fault(FaultKind.REFUSED)
    # 2xx other than 200 holds no completion that this protocol knows of.
    return fault(FaultKind.NOT_JSON)


def _read_completion(data: dict[str, object] | None, body: bytes) -> Answer | Fault:
    if data is None:
        start = body[:200].decode("utf-8", "replace")
        what = "an HTML page" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes"
        return Fault(FaultKind.NOT_JSON, f"{what} where JSON was due: {start}", 200)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        # Some gateways wrap the upstream's error in a 200.
        said = _read_error(data, body)[1] if data.get("error") else "the reply has no choices"
        return Fault(FaultKind.NO_CHOICES, said, 200)
    return Answer(
        _read_text(message.get("content")),
        _read_text(message.get("refusal")),
        _read_text(choice.get("finish_reason")),
        *_read_usage(data),
    )


def _read_text(content: object) -> str | None:
    if isinstance(content, str):
        # A lone surrogate is legal in JSON and in no file format downstream.
        return content.encode("utf-8", "replace").decode("utf-8")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        known = [text for text in texts if isinstance(text, str)]
        return _read_text("".join(known)) if known else None
    return None


def _read_usage(data: dict[str, object] | None) -> tuple[int | None, int | None, int | None]:
    usage = data.get("usage") if data else None
    if not isinstance(usage, dict):
        return None, None, None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return (
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(cached),
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
    return value if is_count and isinstance(value, int) else None


def _read_error(data: dict[str, object] | None, body: bytes) -> tuple[str, str]:
    """Code and message of an error body, the code in lower case and empty where there is none."""
    if data is None:
        return "", body[:400].decode("utf-8", "replace") or "empty body"
    found = data.get("error")
    error = found if isinstance(found, dict) else data
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type")]
    if isinstance(inner, dict):
        codes.insert(0, inner.get("code"))
    # The most telling code wins: some servers put it under "type", some repeat the status.
    named = [code.lower() for code in codes if isinstance(code, str)]
    telling = [c for c in named if c in _FILTER_CODES | _QUOTA_CODES | _MODEL_CODES]
    message = found if isinstance(found, str) else error.get("message") or error.get("detail")
    said = message if isinstance(message, str) else body[:400].decode("utf-8", "replace")
    return (telling or named or [""])[0], said


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        data = json.loads(body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


class SoftVerdict(NamedTuple):
    """How likely one option was, by the log probabilities of the verdict token.

    Attributes:
        first_prob: P(first option | one of the options), where both were reported; where a
            rival is missing, the end of the range that is farther from one half.
        low_prob: Lower end of what the report allows; equals ``first_prob`` if it is exact.
        high_prob: Upper end, as above.
        origin: "logprobs" where every option was reported, "logprobs_bound" where one was not
            and only a range is known.
    """

    first_prob: float
    low_prob: float
    high_prob: float
    origin: str


def read_soft_verdict(body: bytes, options: Sequence[str]) -> SoftVerdict | None:
    """Probability of the first of two options, from the last token that is an option.

    Token variants of an option (with a space or a line end before or behind) are summed. A rival
    that is not among the reported tokens is not impossible: its probability is at most that of
    the least likely reported token, and at most what the reported ones leave of 1.

    Args:
        body: Raw reply of a call that asked for ``logprobs`` and ``top_logprobs``.
        options: The two options, as the verdict menu names them.

    Returns:
        None where the reply has no usable log probabilities, or neither option is in them.
    """
    for entry in reversed(_logprob_entries(_json_object(body))):
        token = entry.get("token")
        if isinstance(token, str) and token.strip() in options:
            return _soft_verdict(entry, options)
    return None


def _logprob_entries(data: dict[str, object] | None) -> list[dict[str, object]]:
    choices = data.get("choices") if data else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _soft_verdict(entry: dict[str, object], options: Sequence[str]) -> SoftVerdict | None:
    tops = entry.get("top_logprobs")
    # Some servers leave the chosen token out of its own list.
    reported = {
        one["token"]: prob
        for one in [entry, *(tops if isinstance(tops, list) else [])]
        if isinstance(one, dict)
        and isinstance(one.get("token"), str)
        and (prob := _prob(one.get("logprob"))) is not None
    }
    first, second = (
        sum(prob for token, prob in reported.items() if token.strip() == option)
        for option in options
    )
    if first + second <= 0:
        return None
    if first > 0 and second > 0:
        exact = first / (first + second)
        return SoftVerdict(exact, exact, exact, "logprobs")
    most = min(min(reported.values()), max(1.0 - sum(reported.values()), 0.0))
    if len(reported) == 1:
        # Only the chosen token is known: the rival may have had all the rest.
        most = max(1.0 - first - second, 0.0)
    edge = (first or most) / (first + second + most)
    if first > 0:
        return SoftVerdict(1.0, edge, 1.0, "logprobs_bound")
    return SoftVerdict(0.0, 0.0, edge, "logprobs_bound")


def _prob(logprob: object) -> float | None:
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    # A few servers round a certain token up to a little more than zero.
    return math.exp(min(logprob, 0.0)) if logprob == logprob else None
