"""The HTTP server: routes, the key, the rate headers, and who answers which model.

Equal requests get equal bytes. It keeps nothing between requests but files, batches, and the
counts where they are asked for.
"""

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from tasks._llm.simulator import wire
from tasks._llm.simulator.batches import Batches
from tasks._llm.simulator.errors import SimulatorError
from tasks._llm.simulator.faults import (
    Counts,
    fault_of,
    rate_limit_error,
    reaches_the_model,
    send_fault,
)
from tasks._llm.simulator.judge import JUDGE_MODELS, judge_truth
from tasks._llm.simulator.labeling import asks_for_label, label_reply
from tasks._llm.simulator.limits import RateLimit
from tasks._llm.simulator.messages import identity
from tasks._llm.simulator.options import QuirkOptions
from tasks._llm.simulator.rating import asks_for_rating, rating_reply
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings

_JSON = "application/json"
# Wide limits that are never reached: the headers are there to be read, not to hold anyone up.
_RATE_HEADERS = {
    "x-ratelimit-limit-requests": "1000000",
    "x-ratelimit-remaining-requests": "999999",
    "x-ratelimit-reset-requests": "1ms",
    "x-ratelimit-limit-tokens": "1000000000",
    "x-ratelimit-remaining-tokens": "999999999",
    "x-ratelimit-reset-tokens": "1ms",
}
# Longer than a client keeps an idle connection, so that it never writes to one being closed.
_KEEPALIVE_S = 3600.0
_BACKLOG = 2048
_SHUTDOWN_S = 1.0
_NO_QUIRKS = QuirkOptions()


def answer(request: wire.ChatRequest, settings: SimulatorSettings) -> list[wire.Choice]:
    """Return the choices that a request is answered with."""
    choices = []
    for index in range(request.n):
        is_judge = request.model in JUDGE_MODELS
        if is_judge and asks_for_label(request.messages):
            choices.append(wire.Choice(label_reply(request.messages), {}))
        elif is_judge and asks_for_rating(request.messages):
            reply = rating_reply(
                request.model, request.messages, settings, request_seed=request.seed, choice=index
            )
            choices.append(wire.Choice(reply, {}))
        elif is_judge:
            truth = judge_truth(
                request.messages,
                settings,
                model=request.model,
                request_seed=request.seed,
                choice=index,
            )
            has_verdict = truth.option is not None
            options = {"1": truth.p_first, "2": 1.0 - truth.p_first} if has_verdict else {}
            choices.append(wire.Choice(truth.reply, options))
        else:
            text = respond(request.messages, settings, request_seed=request.seed, choice=index)
            choices.append(wire.Choice(text, {}))
    return choices


def reply_body(
    body: bytes, settings: SimulatorSettings, fingerprint: str, serial: int = 0
) -> tuple[str, bytes]:
    """Return the id and the bytes that a chat request's body is answered with.

    Args:
        body: The request.
        settings: What is simulated.
        fingerprint: Of the settings.
        serial: Number of the request; matters only to an endpoint that repeats no answer.

    Raises:
        WireError: If the request cannot be answered.
    """
    request = wire.parse_chat_request(body)
    if settings.quirks == _NO_QUIRKS:
        return _reply_to(request, settings, fingerprint)
    request = _without(request, settings.quirks.ignores)
    if "temperature" in settings.quirks.ignores:
        settings = replace(settings, seed=settings.seed + serial)
    reply_id, reply = _reply_to(request, settings, fingerprint)
    fields: dict[str, Any] = json.loads(reply)
    if "usage" in settings.quirks.ignores:
        del fields["usage"]
    wanted = json.loads(body).get("response_format")
    if settings.quirks.has_json_mode and isinstance(wanted, dict):
        for choice in fields["choices"]:
            choice["message"]["content"] = _in_json(wanted, choice["message"]["content"])
    return reply_id, json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")


def _reply_to(
    request: wire.ChatRequest, settings: SimulatorSettings, fingerprint: str
) -> tuple[str, bytes]:
    key = identity(request.model, request.messages, seed=settings.seed, request_seed=request.seed)
    reply_id = key.hex()[:24]
    choices = answer(request, settings)
    return reply_id, wire.completion_body(request, choices, reply_id, f"fp_{fingerprint}")


def _without(request: wire.ChatRequest, ignored: tuple[str, ...]) -> wire.ChatRequest:
    if "n" in ignored:
        request = replace(request, n=1)
    if "seed" in ignored:
        request = replace(request, seed=None)
    if "logprobs" in ignored:
        request = replace(request, has_logprobs=False, top_logprobs=0)
    return request


def _in_json(wanted: Mapping[str, Any], text: str) -> str:
    """Return the text as an object with the properties of the schema, enums by their first."""
    schema = (wanted.get("json_schema") or {}).get("schema") or {}
    properties = schema.get("properties") or {"text": {}}
    return json.dumps(
        {name: (one.get("enum") or [text])[0] for name, one in properties.items()},
        ensure_ascii=False,
    )


class _Handler:
    """Answers every request of one server."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._fingerprint = settings.fingerprint()
        self._counts = Counts()
        self._is_counting = settings.is_counting or settings.faults.total > 0.0
        self._serial = 0
        self._batches = Batches(settings.batch, self._counts, self._answer_body)
        self._limit: RateLimit | None = None
        if settings.requests_per_s > 0.0:
            burst = settings.burst_requests or math.ceil(settings.requests_per_s)
            now_s = asyncio.get_running_loop().time()
            self._limit = RateLimit(settings.requests_per_s, burst, now_s)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except wire.WireError as error:
            return web.Response(
                status=error.status,
                body=error.body(),
                content_type=_JSON,
                headers=self._rate_headers(),
            )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        key = self._settings.api_key
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            raise wire.invalid_api_key()
        path = request.path.rstrip("/")
        ignored, date = self._settings.quirks.ignores, self._settings.quirks.shutdown_date
        if request.method == "POST" and path == "/v1/chat/completions":
            return await self._complete(request)
        if request.method == "GET" and path == "/simulator/served":
            return web.Response(body=self._counts.body(), content_type=_JSON)
        if path.startswith(("/v1/files", "/v1/batches")) and "batch" not in ignored:
            return await self._batches(request)
        if request.method == "GET" and "models" not in ignored:
            if path == "/v1/models":
                return web.Response(body=wire.model_list_body(date), content_type=_JSON)
            if path.startswith("/v1/models/"):
                model = path.removeprefix("/v1/models/")
                if model not in wire.MODELS:
                    raise wire.model_not_found(model)
                body = json.dumps(wire.model_card(model, date)).encode()
                return web.Response(body=body, content_type=_JSON)
        raise wire.WireError(404, f"Unknown request URL: {request.method} {request.path}.")

    def _rate_headers(self, *, is_refused: bool = False) -> dict[str, str]:
        if "rate_headers" in self._settings.quirks.ignores:
            return {}
        if self._limit is None:
            return _RATE_HEADERS
        return {**_RATE_HEADERS, **self._limit.headers(is_refused=is_refused)}

    def _answer_body(self, body: bytes) -> bytes:
        self._serial += 1
        return reply_body(body, self._settings, self._fingerprint, self._serial)[1]

    async def _complete(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise wire.WireError(413, "The body of the request is too large.") from None
        if self._limit is not None and not self._limit.take(asyncio.get_running_loop().time()):
            self._counts.n_refused += 1
            return web.Response(
                status=429,
                body=rate_limit_error().body(),
                content_type=_JSON,
                headers=self._rate_headers(is_refused=True),
            )
        fault, name = None, b""
        if self._is_counting:
            name = hashlib.sha256(body).digest()
            self._counts.arrivals[name] += 1
            fault = fault_of(self._settings.faults, name, self._counts.arrivals[name])
        if fault is not None and not reaches_the_model(fault):
            self._counts.faults[fault] += 1
            return await send_fault(request, fault, b"", {}, self._settings.faults)
        self._serial += 1
        reply_id, reply = reply_body(body, self._settings, self._fingerprint, self._serial)
        if self._is_counting:
            self._counts.answers[name] += 1
        if self._settings.latency_s > 0.0:
            await asyncio.sleep(self._settings.latency_s)
        headers = {**self._rate_headers(), "x-request-id": f"req_{reply_id}"}
        if fault is not None:
            self._counts.faults[fault] += 1
            return await send_fault(request, fault, reply, headers, self._settings.faults)
        return web.Response(body=reply, content_type=_JSON, headers=headers)


@contextlib.asynccontextmanager
async def serving(settings: SimulatorSettings, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context lasts.

    Args:
        settings: What is simulated.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.

    Yields:
        The port.

    Raises:
        SimulatorError: If the address cannot be listened on.
    """
    # The plain server, without routes and middlewares of an application: half of the time that
    # a small request takes would go there.
    server = web.Server(
        _Handler(settings), access_log=None, keepalive_timeout=_KEEPALIVE_S, tcp_keepalive=False
    )
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise SimulatorError(
                f"simulator: cannot listen on {host} port {port} ({error.strerror or error}), "
                "expected a free port; choose another one, or 0 for any"
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
