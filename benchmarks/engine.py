"""Times the completion engine against the SDK, paired, with a trivial server in its own process.

    python benchmarks/engine.py [--rounds 5] [--ratios] [--memory] [--lookup] [--rate] [--json]

Ratios are medians over rounds; in a round every contestant runs once against the same server, in
an order that rotates. `vs_sdk_256` is the engine over a plain `asyncio.gather` of
`AsyncOpenAI().chat.completions.create`, `vs_bare_256` and `vs_bare_300ms` are the engine over
`client.post` on aiohttp with no ledger and no parsing, all with 256 requests in flight. The
engine starts with a new ledger each time. `--memory` is the peak of the engine's process over a
PRISM-size run, `--lookup` what a rerun of that size asks the ledger first, `--rate` goodput and
refusals for 30 s each on servers that enforce a limit. Without any of these: all. Works in a
temporary folder and removes it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402
import openai  # noqa: E402

from tasks._llm.engine import CompletionEngine  # noqa: E402
from tasks._llm.prices import load_prices  # noqa: E402
from tasks._llm.simulator.limits import RateLimit  # noqa: E402
from tasks._llm.types import CallRequest, Endpoint, EngineSettings  # noqa: E402
from warehouse.ledger import open_ledger  # noqa: E402

IN_FLIGHT = 256
PRISM_CALLS = 226_200
PARTS = ("memory", "ratios", "lookup", "rate")
MODEL = "gpt-4o-mini"
REPLY = json.dumps(
    {
        "id": "cmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "VERDICT: 1"},
            }
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 4, "total_tokens": 304},
    }
).encode()
PROMPT = "Which of the two responses would this person rather read? " * 20


def main() -> None:
    """Runs what is asked for and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    for name in PARTS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--memory-calls", type=int, default=PRISM_CALLS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=float, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
        return
    wanted = [name for name in PARTS if getattr(arguments, name)] or PARTS
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "memory" in wanted:
            # First: the peak of a process never falls.
            found["memory"] = memory(Path(folder), arguments.memory_calls)
        if "ratios" in wanted:
            found |= ratios(Path(folder), arguments.rounds)
        if "lookup" in wanted:
            found["lookup"] = lookup(Path(folder))
        if "rate" in wanted:
            found["rate"] = rate(Path(folder))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, case in found.items():
        print(name)
        for key, value in case.items():
            print(f"  {key:<24} {value}")


def ratios(folder: Path, rounds: int) -> dict[str, Any]:
    """Calls a second of every contestant, by round, and the medians of the paired ratios."""
    cases: dict[str, tuple[float, Callable[[str, int], float], int]] = {
        "sdk_256": (0.0, sdk, 1500),
        "bare_256": (0.0, bare, 4000),
        "engine_256": (0.0, lambda url, n: engine(folder, url, n), 4000),
        "bare_300ms": (0.3, bare, 5120),
        "engine_300ms": (0.3, lambda url, n: engine(folder, url, n), 5120),
    }
    raw: list[dict[str, float]] = []
    with server(0.0) as fast, server(0.3) as slow:
        bare(fast, 500)
        for index in range(rounds):
            names = list(cases)
            names = names[index % len(names) :] + names[: index % len(names)]
            row = {}
            for name in names:
                latency_s, run, n = cases[name]
                gc.collect()
                row[name] = round(run(slow if latency_s else fast, n), 1)
            raw.append({name: row[name] for name in cases})
            print(f"round {index}: {raw[-1]}", file=sys.stderr, flush=True)
    pairs = {
        "vs_sdk_256": ("engine_256", "sdk_256"),
        "vs_bare_256": ("engine_256", "bare_256"),
        "vs_bare_300ms": ("engine_300ms", "bare_300ms"),
    }
    medians = {
        name: round(statistics.median(row[a] / row[b] for row in raw), 3)
        for name, (a, b) in pairs.items()
    }
    return {
        "ratios": medians,
        "calls_per_s": {n: statistics.median(row[n] for row in raw) for n in cases},
        "rounds": {str(index): row for index, row in enumerate(raw)},
    }


def sdk(url: str, n: int) -> float:
    """Calls a second of the SDK as its front page shows it."""

    async def run() -> float:
        # On a busy machine its own 5 s to connect do not suffice for 256 connections.
        patient = httpx2.Timeout(600, connect=60)
        client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=patient)
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def call(index: int) -> None:
            async with slots:
                await client.chat.completions.create(
                    model=MODEL, messages=messages(index), temperature=0.0, max_tokens=16
                )

        start_s = time.perf_counter()
        await asyncio.gather(*(call(index) for index in range(n)))
        wall_s = time.perf_counter() - start_s
        await client.close()
        return n / wall_s

    return asyncio.run(run())


def bare(url: str, n: int) -> float:
    """Calls a second of `client.post` on aiohttp: raw bytes, no ledger, no parsing."""

    async def run() -> float:
        client = openai.AsyncOpenAI(
            api_key="none",
            base_url=url,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=IN_FLIGHT)
            ),
        )
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def call(index: int) -> bytes:
            async with slots:
                body = {
                    "model": MODEL,
                    "messages": messages(index),
                    "temperature": 0.0,
                    "max_tokens": 16,
                }
                reply = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
                return reply.content

        start_s = time.perf_counter()
        await asyncio.gather(*(call(index) for index in range(n)))
        wall_s = time.perf_counter() - start_s
        await client.close()
        return n / wall_s

    return asyncio.run(run())


def engine(folder: Path, url: str, n: int) -> float:
    """Calls a second of the engine with a new SQLite ledger, parsing included."""
    path = folder / f"{time.time_ns()}.sqlite"
    requests = [request(index) for index in range(n)]
    with open_ledger(path) as ledger, open_engine(url, ledger) as made:
        start_s = time.perf_counter()
        replies = made.complete(requests)
        wall_s = time.perf_counter() - start_s
    if {reply.text for reply in replies} != {"VERDICT: 1"}:
        raise SystemExit("benchmark: the engine returned something else than the server's reply")
    return n / wall_s


def memory(folder: Path, n: int) -> dict[str, Any]:
    """Peak memory of the process by tenths of many calls, in shards of 200 from 4 threads."""
    peaks: list[float] = []
    start_s = time.perf_counter()
    with (
        server(0.0) as url,
        open_ledger(folder / "memory.sqlite") as ledger,
        open_engine(url, ledger) as made,
        ThreadPoolExecutor(4) as pool,
    ):

        def shard(first: int) -> None:
            made.complete([request(index) for index in range(first, first + 200)])

        for tenth in range(10):
            list(pool.map(shard, range(tenth * n // 10, (tenth + 1) * n // 10, 200)))
            peaks.append(round(peak_mb(), 1))
            rate = (tenth + 1) * n / 10 / (time.perf_counter() - start_s)
            print(
                f"memory: {tenth + 1}/10, {peaks[-1]} MB, {rate:.0f}/s", file=sys.stderr, flush=True
            )
    return {
        "calls": n,
        "peak_mb_by_tenth": peaks,
        "peak_mb": peaks[-1],
        "grown_mb_after_first_tenth": round(peaks[-1] - peaks[0], 1),
        "calls_per_s": round(n / (time.perf_counter() - start_s), 1),
    }


def lookup(folder: Path) -> dict[str, Any]:
    """Seconds to look up a PRISM-size run in a ledger that holds half of it."""
    from datetime import UTC, datetime

    from warehouse.ledger_rows import ReplyRow

    keys = [request(index).key for index in range(PRISM_CALLS)]
    now = datetime.now(UTC)
    body = request(0).identity()
    with open_ledger(folder / "lookup.sqlite") as ledger:
        half = keys[::2]
        for first in range(0, len(half), 5000):
            rows = [
                ReplyRow(key, "b", MODEL, body, REPLY, 200, 300, 4, None, 0.0, now, now)
                for key in half[first : first + 5000]
            ]
            ledger.record(replies=rows).result()
        held_s, lookup_s = [], []
        for _ in range(3):
            start_s = time.perf_counter()
            found = ledger.held(keys)
            held_s.append(time.perf_counter() - start_s)
            start_s = time.perf_counter()
            replies = ledger.lookup(keys)
            lookup_s.append(time.perf_counter() - start_s)
        if not len(found) == len(replies) == len(half):
            raise SystemExit("benchmark: the ledger holds other keys than were put into it")
    return {
        "keys": len(keys),
        "held_s": round(statistics.median(held_s), 2),
        "lookup_s": round(statistics.median(lookup_s), 2),
    }


def rate(folder: Path) -> dict[str, Any]:
    """Goodput and refusals on servers that enforce N requests a second, for 30 s each."""
    found: dict[str, Any] = {}
    for limit in (20, 200):
        for known in ("by_settings", "by_headers", "by_refusals"):
            per_min = limit * 60.0 if known == "by_settings" else None
            found[f"{limit}_per_s_{known}"] = limited(
                folder / f"{known}-{limit}.sqlite", limit, per_min, known == "by_headers"
            )
            print(f"rate {limit} {known}: {found}", file=sys.stderr, flush=True)
    return found


def limited(path: Path, limit: int, per_min: float | None, is_stated: bool) -> dict[str, Any]:
    """One engine against one limit, with work for 30 s."""
    requests = [request(index) for index in range(limit * 30)]
    with (
        server(0.05, limit, is_stated) as url,
        open_ledger(path) as ledger,
        CompletionEngine(
            lambda: Endpoint("bench", url),
            ledger,
            EngineSettings(max_in_flight=64, requests_per_min=per_min),
            load_prices(),
        ) as made,
    ):
        start_s = time.perf_counter()
        made.complete(requests)
        wall_s = time.perf_counter() - start_s
        sends = ledger.totals().attempts
    return {
        "goodput_share": round(len(requests) / wall_s / limit, 3),
        "refused_share": round((sends - len(requests)) / sends, 4),
        "wall_s": round(wall_s, 1),
    }


def open_engine(url: str, ledger: Any) -> CompletionEngine:
    """An engine as a run has it, with 256 requests in flight."""
    return CompletionEngine(
        lambda: Endpoint("bench", url),
        ledger,
        EngineSettings(max_in_flight=IN_FLIGHT),
        load_prices(),
    )


def messages(index: int) -> list[Any]:
    """A chat of 1.2 kB that no other index has."""
    return [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": f"{PROMPT}{index}"},
    ]


def request(index: int) -> CallRequest:
    """The same chat as the engine takes it."""
    return CallRequest("bench", MODEL, messages(index), {"temperature": 0.0, "max_tokens": 16})


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def server(latency_s: float, limit_per_s: float = 0.0, is_stated: bool = False) -> Iterator[str]:
    """A server in a process of its own, ended with the block."""
    how = [str(latency_s), str(limit_per_s), str(int(is_stated))]
    command = [sys.executable, __file__, "--serve", *how]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if child.stdout is None or child.stdin is None:
        raise SystemExit("benchmark: the server has no pipes")
    try:
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.wait(10)


async def serve(latency_s: float, limit_per_s: float, is_stated: float) -> None:
    """Answers every POST with the same completion; beyond the limit with 429; until stdin ends.

    A limit that is stated in headers is a bucket of one second's worth; one that is not is a
    window of one second, as strict as a limit can be.
    """
    loop = asyncio.get_running_loop()
    refusal = b'{"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}'
    plain = (reply_bytes(b"429 Too Many Requests", refusal), reply_bytes(b"200 OK", REPLY))
    bucket = RateLimit(limit_per_s, int(limit_per_s), loop.time()) if is_stated else None
    recent: deque[float] = deque()

    def answer() -> tuple[bytes, bool]:
        now_s = loop.time()
        if bucket is not None:
            is_good = bucket.take(now_s)
            named = bucket.headers(is_refused=not is_good).items()
            lines = "".join(f"{name}: {value}\r\n" for name, value in named).encode()
            return plain[is_good].replace(b"\r\n", b"\r\n" + lines, 1), is_good
        if limit_per_s:
            while recent and now_s - recent[0] >= 1.0:
                recent.popleft()
            if len(recent) >= limit_per_s:
                return plain[0], False
            recent.append(now_s)
        return plain[1], True

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            self.buffer = b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
                head = self.buffer[:end].lower()
                at = head.find(b"content-length:")
                length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
                if len(self.buffer) < end + 4 + length:
                    return
                self.buffer = self.buffer[end + 4 + length :]
                reply, is_good = answer()
                if latency_s and is_good:
                    loop.call_later(latency_s, self.send, reply)
                else:
                    self.send(reply)

        def send(self, reply: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(reply)

    listener = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def reply_bytes(status: bytes, body: bytes) -> bytes:
    """A whole HTTP reply."""
    head = b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\ncontent-length: "
    return head + str(len(body)).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    main()
