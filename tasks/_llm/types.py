"""What callers and the engine hand each other: requests, replies, settings, tallies.

No I/O happens here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from tasks._llm.errors import RequestInvalid, clean_line

# Fields of the body that the engine sets itself, or that would change the shape of the reply.
RESERVED_FIELDS = frozenset({"model", "messages", "stream", "stream_options", "n"})


class Secret:
    """A value that is never shown: not by repr, str, format, pickle or a traceback's locals."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def scrub(self, text: str) -> str:
        """The text with the value replaced, for a message of a server that echoes it."""
        # Placeholders such as "x" are no secrets, and replacing them would mangle every message.
        return text.replace(self._value, "[secret]") if len(self._value) >= 6 else text

    def scrub_bytes(self, data: bytes) -> bytes:
        """The bytes with the value replaced, before they are stored."""
        value = self._value.encode()
        return data.replace(value, b"[secret]") if len(value) >= 16 and value in data else data

    def __repr__(self) -> str:
        return "Secret('[secret]')"

    def __str__(self) -> str:
        return "[secret]"

    def __format__(self, spec: str) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled; pass the means to read it instead")


@dataclass(frozen=True)
class Endpoint:
    """One OpenAI-compatible server.

    Attributes:
        name: Stable name, part of every request key. Not the URL: a port may change.
        base_url: What precedes ``/chat/completions``, usually ending in ``/v1``.
        api_key: The key, or None for a server that wants none.

    Raises:
        RequestInvalid: the base URL is no http(s) URL with a host, or holds more than an address.
    """

    name: str
    base_url: str = field(repr=False)
    api_key: Secret | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            parts.port  # noqa: B018 - reading it is what checks it
        except ValueError:
            is_usable = False
        if not is_usable:
            raise RequestInvalid(
                f"Base URL of endpoint {clean_line(self.name)}: it is not an http(s) URL with a "
                "host; expected one such as http://127.0.0.1:8000/v1"
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            # An address ends up in run records; and neither would reach the endpoint beside a key.
            raise RequestInvalid(
                f"Base URL {self.shown_url}: it holds a user, a password or a query; expected the "
                "address alone; set OPENAI_API_KEY to what the endpoint wants as its key"
            )

    @property
    def host(self) -> str:
        """Host name of the base URL, lower case."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def shown_url(self) -> str:
        """The base URL without user, password, query and fragment, for messages."""
        parts = urlsplit(self.base_url)
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{parts.port}" if parts.port else ""
        return clean_line(f"{parts.scheme}://{host}{port}{parts.path}")


@dataclass(frozen=True)
class CallRequest:
    """One chat completion to be bought at most once.

    Attributes:
        endpoint_name: Name of the endpoint it is meant for.
        model: Model name as the endpoint knows it.
        messages: Chat messages, each a mapping with ``role`` and ``content``.
        sampling: Further fields of the body: temperature, max_tokens, seed, logprobs and so on.
        repeat: Index that tells apart deliberate repeats of one request; never sent.

    Messages and sampling must not be changed once the request exists: the key is kept.

    Raises:
        RequestInvalid: no messages, a negative repeat, or a sampling field the engine owns.
    """

    endpoint_name: str
    model: str
    messages: Sequence[Mapping[str, object]]
    sampling: Mapping[str, object] = field(default_factory=dict)
    repeat: int = 0

    def __post_init__(self) -> None:
        if not self.messages or not self.model or self.repeat < 0:
            raise RequestInvalid(
                f"Request to model {self.model!r}: {len(self.messages)} messages, repeat "
                f"{self.repeat}; expected a model, at least one message and repeat >= 0"
            )
        owned = sorted(RESERVED_FIELDS.intersection(self.sampling))
        if owned:
            raise RequestInvalid(
                f"Sampling fields of a request: found {', '.join(owned)}; the engine sets these "
                "itself; remove them (for several answers use repeat)"
            )

    def identity(self) -> bytes:
        """Canonical JSON of exactly what can change the answer; its SHA-256 is the key.

        Returns:
            ASCII bytes with sorted names and no spaces. Whole floats are written as integers,
            because a temperature of 1.0 from a TOML file and of 1 from Python are one request.

        Raises:
            RequestInvalid: a value has no JSON form (NaN, an object of a class).
        """
        return _canonical_json(
            {
                "endpoint": f"chat.completions:{self.endpoint_name}",
                "model": self.model,
                "messages": self._plain_messages,
                "sampling": self._plain_sampling,
                "repeat": self.repeat,
            }
        )

    @property
    def _plain_messages(self) -> list[dict[str, object]]:
        return [
            # Nearly every message is text only, and needs no walk.
            dict(m) if all(type(v) is str for v in m.values()) else _plain_dict(m)
            for m in self.messages
        ]

    @property
    def _plain_sampling(self) -> dict[str, object]:
        return _plain_dict(self.sampling)

    @cached_property
    def key(self) -> str:
        """SHA-256 of `identity`, 64 hex digits: the request key of the call ledger."""
        return hashlib.sha256(self.identity()).hexdigest()

    def body(self) -> bytes:
        """The JSON that is sent: model, messages and the sampling fields."""
        fields = {"model": self.model, "messages": self._plain_messages}
        return _canonical_json({**self._plain_sampling, **fields})


class CallReply(NamedTuple):
    """The answer to one request.

    Attributes:
        key: Request key.
        status: HTTP status; not 200 only where a content filter answered with an error.
        body: Raw bytes as received.
        text: Content of the first choice; None where the model wrote none (a refusal, a filter).
        refusal: The provider's refusal text, None where there is none.
        finish_reason: As the provider says; "content_filter" also for a filter's error reply.
        prompt_tokens: From the reply's usage; None where it says nothing. Never estimated.
        completion_tokens: As above.
        cached_tokens: The part of ``prompt_tokens`` billed at the cached price; as above.
        cost_usd: By the price table on the day of purchase; None where unknown.
        is_reused: The reply was not bought for this position of this batch.
    """

    key: str
    status: int
    body: bytes
    text: str | None
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    is_reused: bool


class CallTally(NamedTuple):
    """Sums over the life of an engine. ``made`` + ``reused`` = requests answered.

    Attributes:
        made: Replies bought.
        reused: Requests answered from the ledger, or as a duplicate of one in flight.
        prompt_tokens: Sum over bought replies that state it.
        completion_tokens: As above.
        cost_usd: Sum over bought replies with a known cost.
        reused_cost_usd: What the reused replies had cost.
        retries: Sends beyond the first of their call.
        unpriced: Bought replies whose cost is unknown, hence missing in ``cost_usd``.
    """

    made: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    reused_cost_usd: float = 0.0
    retries: int = 0
    unpriced: int = 0


class Progress(NamedTuple):
    """Where an engine stands; ``done`` = ``made`` + ``reused``; the rate counts bought replies."""

    done: int
    total_known: int
    made: int
    reused: int
    cost_usd: float
    calls_per_s: float


@dataclass(frozen=True)
class EngineSettings:
    """How calls are made. Nothing here can change an answer, so nothing here is in a key.

    Attributes:
        max_in_flight: Requests on the wire at once, over all callers of the engine.
        timeout_s: Longest one send may take, from the first byte out to the last byte in.
        connect_timeout_s: Longest a connection may take to be made.
        max_attempts: Sends of one call before its fault stops the run; sends refused by a rate
            limit do not count, they have ``rate_limit_patience_s``.
        backoff_s: First pause before a retry; doubles each time.
        backoff_cap_s: Longest such pause. What the server asks for is honored beyond it.
        rate_limit_patience_s: Longest a call may be held up by rate limits altogether.
        unreachable_patience_s: Longest the endpoint may be gone after it was once there.
        run_retries: Retries after faults that a whole run may make, rate limits apart...
        run_retry_share: ...and as many more for each reply it got, as a share.
        requests_per_min: Most sends a minute; None: no limit until the server shows one.
        tokens_per_min: Most tokens a minute, estimated before each send; None as above.
        max_calls: Hard cap of calls bought by this engine; None for none.
        max_cost_usd: Hard cap of money, kept by reserving each call's worst case; None for none.
        assumed_completion_tokens: Worst case of a reply's length where the request sets none.
        drain_s: How long calls on the wire may still come in when the engine stops.

    Raises:
        RequestInvalid: a value out of range.
    """

    max_in_flight: int = 64
    timeout_s: float = 120.0
    connect_timeout_s: float = 10.0
    max_attempts: int = 10
    backoff_s: float = 0.5
    backoff_cap_s: float = 30.0
    rate_limit_patience_s: float = 600.0
    unreachable_patience_s: float = 60.0
    run_retries: int = 200
    run_retry_share: float = 0.5
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    max_calls: int | None = None
    max_cost_usd: float | None = None
    assumed_completion_tokens: int = 4096
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        at_least = {
            "max_in_flight": 1,
            "max_attempts": 1,
            "requests_per_min": 0.01,
            "tokens_per_min": 1,
            "max_calls": 0,
            "max_cost_usd": 0,
            "assumed_completion_tokens": 1,
        }
        for name, value in vars(self).items():
            if value is None:
                continue
            low = at_least.get(name, 0)
            if not value >= low or value == float("inf"):
                raise RequestInvalid(
                    f"Engine setting {name}: found {value}; expected a number of at least {low}"
                )


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical_json(value: Mapping[str, object]) -> bytes:
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError) as error:
        raise RequestInvalid(
            f"A request cannot be written as JSON: {clean_line(str(error))}; expected text, "
            "finite numbers, true/false, null, lists and mappings with text names"
        ) from None
    return text.encode("ascii")


def _plain_dict(value: Mapping[str, object]) -> dict[str, object]:
    odd = [name for name in value if not isinstance(name, str)]
    if odd:
        # JSON would quietly write the name 1 as "1".
        raise RequestInvalid(
            f"A request holds the name {clean_line(repr(odd[0]), 80)}; expected text names only"
        )
    return {name: _plain(item) for name, item in value.items()}


def _plain(value: object) -> object:
    """The same value in dicts and lists, whole floats as integers; see `CallRequest.identity`."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return _plain_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
