"""A tiny OpenAI-compatible server in a thread of its own, told by a script what to answer."""

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web

from tasks._llm.types import CallRequest

PLANTED_KEY = "sk-planted-0123456789abcdefghij"


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    latency_s: float = 0.0
    # "" whole, "drop" before the first byte, "half" after half the body, "drip" never ends,
    # "reset" answers with a TCP reset
    trick: str = ""


def completion(text: str | None = "VERDICT: 1", **changes: Any) -> bytes:
    reply: dict[str, Any] = {
        "id": "cmpl-1",
        "object": "chat.completion",
        "model": "served",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
    }
    return json.dumps({**reply, **changes}).encode()


def error_body(message: str, code: str | None = None, kind: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": kind}}).encode()


class FakeServer:
    """Answers by ``script(body, n)``, n counting the requests of the same last message."""

    def __init__(self) -> None:
        self.script: Callable[[dict[str, Any], int], Reply] = lambda body, n: Reply(
            body=completion()
        )
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hits: Counter[str] = Counter()
        self.most_in_flight = 0
        self._in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["messages"][-1]["content"]
        n = self.hits[name]
        self.hits[name] += 1
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            reply = self.script(body, n)
            await asyncio.sleep(reply.latency_s)
            return await self._send(request, reply)
        finally:
            self._in_flight -= 1

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        assert request.transport is not None
        if reply.trick == "reset":
            raw = request.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reply.trick in ("drop", "reset"):
            request.transport.abort()
            return web.Response()
        if reply.trick in ("half", "drip"):
            response = web.StreamResponse(status=reply.status)
            response.content_length = len(reply.body)
            await response.prepare(request)
            if reply.trick == "half":
                await response.write(reply.body[: len(reply.body) // 2])
                request.transport.close()
                return response
            for at in range(40):
                await response.write(reply.body[at : at + 1])
                await asyncio.sleep(0.05)
            return response
        return web.Response(
            status=reply.status,
            body=reply.body,
            headers={"content-type": "application/json", **reply.headers},
        )


def ask(text: str, **changes: Any) -> CallRequest:
    fields: dict[str, Any] = {
        "endpoint_name": "fake",
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You judge."},
            {"role": "user", "content": text},
        ],
        "sampling": {"temperature": 0, "max_tokens": 16},
        **changes,
    }
    return CallRequest(**fields)
