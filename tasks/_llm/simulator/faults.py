"""Faults on purpose: which one a request meets, and how it looks on the wire.

It makes no answers; it spoils those that it is given.
"""

import asyncio
import hashlib
import json
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tasks._llm.simulator.draws import uniform_from
from tasks._llm.simulator.options import FAULTS, FaultOptions
from tasks._llm.simulator.wire import WireError

_JSON = "application/json"
# Faults for which the model never does the work.
_BEFORE_THE_MODEL = frozenset(
    {
        "rate_limited_s",
        "rate_limited_ms",
        "rate_limited_bare",
        "quota",
        "status_500",
        "status_502",
        "status_503",
        "reset",
        "html",
    }
)
_DRIPS = 40
_PAGE = b"<!DOCTYPE html><html><body><h1>%d</h1><script>alert(1)</script></body></html>"


class Counts:
    """How often each request came and was answered; the key is the SHA-256 of its body."""

    def __init__(self) -> None:
        self.arrivals: Counter[bytes] = Counter()
        self.answers: Counter[bytes] = Counter()
        self.faults: Counter[str] = Counter()
        self.batch_lines: Counter[str] = Counter()
        self.n_refused = 0

    def body(self) -> bytes:
        """Return the counts as the JSON of ``GET /simulator/served``."""
        calls = {key.hex(): [n, self.answers[key]] for key, n in self.arrivals.items()}
        return json.dumps(
            {
                "requests": self.arrivals.total(),
                "answers": self.answers.total(),
                "rate_limited": self.n_refused,
                "faults": dict(self.faults),
                "calls": calls,
                "batch_lines": dict(self.batch_lines),
            }
        ).encode()


def fault_of(options: FaultOptions, key: bytes, arrival: int) -> str | None:
    """Return the fault that one arrival of a request meets, or None.

    Args:
        options: Seed and probabilities.
        key: SHA-256 of the request's body.
        arrival: 1 for the first arrival.
    """
    met = 0
    for number in range(1, arrival + 1):
        fault = _draw(options, key, number) if met < options.most_per_request else None
        met += fault is not None
    return fault


def _draw(options: FaultOptions, key: bytes, arrival: int) -> str | None:
    digest = hashlib.sha256(f"{options.seed}|{arrival}|".encode() + key).digest()
    left = uniform_from(digest[:8])
    for name in FAULTS:
        left -= getattr(options, name)
        if left < 0.0:
            return name
    return None


def reaches_the_model(fault: str | None) -> bool:
    """Return whether the work is done, and billed, although its answer may be spoiled."""
    return fault not in _BEFORE_THE_MODEL


async def send_fault(
    request: web.BaseRequest,
    fault: str,
    reply: bytes,
    headers: Mapping[str, str],
    options: FaultOptions,
) -> web.StreamResponse:
    """Answer a request with a fault.

    Args:
        request: The request.
        fault: One of `FAULTS`.
        reply: The body it would be answered with; empty where the model never sees the request.
        headers: The headers of that answer.
        options: How long, how large.
    """
    if fault.startswith(("rate_limited", "quota", "status_")):
        return _refusal(fault, options)
    if fault == "reset":
        _reset(request)
        return web.Response()
    if fault == "hang":
        await asyncio.sleep(options.hang_s)
    if fault in ("slow_body", "cut_body"):
        return await _send_slowly(request, fault, reply, headers, options)
    body = _spoiled(fault, reply, options)
    kind = "text/html" if fault == "html" else _JSON
    return web.Response(body=body, content_type=kind, headers=dict(headers))


def _refusal(fault: str, options: FaultOptions) -> web.Response:
    if fault == "status_502":
        return web.Response(status=502, body=_PAGE % 502, content_type="text/html")
    if fault.startswith("status_"):
        error = WireError(int(fault[-3:]), "The server had an error.", kind="server_error")
        return web.Response(status=error.status, body=error.body(), content_type=_JSON)
    if fault == "quota":
        error = WireError(
            429, "You exceeded your quota.", kind="insufficient_quota", code="insufficient_quota"
        )
        return web.Response(status=429, body=error.body(), content_type=_JSON)
    headers = {}
    if fault == "rate_limited_s":
        headers["Retry-After"] = f"{options.retry_after_s:g}"
    if fault == "rate_limited_ms":
        headers["retry-after-ms"] = f"{options.retry_after_s * 1000:.0f}"
    return web.Response(
        status=429, body=rate_limit_error().body(), content_type=_JSON, headers=headers
    )


def rate_limit_error() -> WireError:
    """Return the error of a request above the limit."""
    return WireError(
        429, "Rate limit reached for requests.", kind="requests", code="rate_limit_exceeded"
    )


def _spoiled(fault: str, reply: bytes, options: FaultOptions) -> bytes:
    if fault == "html":
        return _PAGE % 200
    if fault == "garbage":
        return b"\x00\xff\xfe\x1b[2J" + reply[::-1]
    if fault == "truncated_json":
        return reply[: len(reply) // 2]
    if fault == "huge":
        return b'{"padding": "' + b"x" * options.huge_bytes + b'", ' + reply[1:]
    if fault == "bad_utf8":
        return b'{"note": "\xff\xfe\xc3\x28\xed\xa0\x80", ' + reply[1:]
    fields: dict[str, Any] = json.loads(reply)
    if fault == "no_choices":
        fields["choices"] = []
    if fault == "no_usage":
        del fields["usage"]
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")


async def _send_slowly(
    request: web.BaseRequest,
    fault: str,
    reply: bytes,
    headers: Mapping[str, str],
    options: FaultOptions,
) -> web.StreamResponse:
    response = web.StreamResponse(headers=dict(headers))
    response.content_type = _JSON
    response.content_length = len(reply)
    await response.prepare(request)
    if fault == "cut_body":
        await response.write(reply[: len(reply) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    step = max(1, -(-len(reply) // _DRIPS))
    for start in range(0, len(reply), step):
        await asyncio.sleep(options.hang_s / _DRIPS)
        await response.write(reply[start : start + step])
    return response


def _reset(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is None:
        return
    # Without lingering the kernel sends RST where it would otherwise send FIN.
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
