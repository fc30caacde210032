"""The HTTP server: routes, the key, the rate headers, and who answers which model.

It keeps no state between requests; equal requests get equal bytes.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from aiohttp import web

from tasks._llm.simulator import wire
from tasks._llm.simulator.errors import SimulatorError
from tasks._llm.simulator.judge import JUDGE_MODEL, judge_truth
from tasks._llm.simulator.messages import identity
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


def answer(request: wire.ChatRequest, settings: SimulatorSettings) -> list[wire.Choice]:
    """Return the choices that a request is answered with."""
    choices = []
    for index in range(request.n):
        if request.model == JUDGE_MODEL:
            truth = judge_truth(request.messages, settings, request_seed=request.seed, choice=index)
            has_verdict = truth.option is not None
            options = {"1": truth.p_first, "2": 1.0 - truth.p_first} if has_verdict else {}
            choices.append(wire.Choice(truth.reply, options))
        else:
            text = respond(request.messages, settings, request_seed=request.seed, choice=index)
            choices.append(wire.Choice(text, {}))
    return choices


def reply_body(body: bytes, settings: SimulatorSettings, fingerprint: str) -> tuple[str, bytes]:
    """Return the id and the bytes that a chat request's body is answered with.

    Raises:
        WireError: If the request cannot be answered.
    """
    request = wire.parse_chat_request(body)
    key = identity(request.model, request.messages, seed=settings.seed, request_seed=request.seed)
    reply_id = key.hex()[:24]
    choices = answer(request, settings)
    return reply_id, wire.completion_body(request, choices, reply_id, f"fp_{fingerprint}")


class _Handler:
    """Answers every request of one server."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._fingerprint = settings.fingerprint()

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answer(request)
        except wire.WireError as error:
            return web.Response(
                status=error.status,
                body=error.body(),
                content_type=_JSON,
                headers=_RATE_HEADERS,
            )

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        key = self._settings.api_key
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            raise wire.invalid_api_key()
        path = request.path.rstrip("/")
        if request.method == "POST" and path == "/v1/chat/completions":
            return await self._complete(request)
        if request.method == "GET" and path == "/v1/models":
            return web.Response(body=wire.model_list_body(), content_type=_JSON)
        if request.method == "GET" and path.startswith("/v1/models/"):
            model = path.removeprefix("/v1/models/")
            if model not in wire.MODELS:
                raise wire.model_not_found(model)
            body = json.dumps(wire.model_card(model)).encode()
            return web.Response(body=body, content_type=_JSON)
        raise wire.WireError(404, f"Unknown request URL: {request.method} {request.path}.")

    async def _complete(self, request: web.BaseRequest) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise wire.WireError(413, "The body of the request is too large.") from None
        reply_id, reply = reply_body(body, self._settings, self._fingerprint)
        if self._settings.latency_s > 0.0:
            await asyncio.sleep(self._settings.latency_s)
        headers = {**_RATE_HEADERS, "x-request-id": f"req_{reply_id}"}
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
