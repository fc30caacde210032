"""Run the simulator as a program: ``python -m tasks._llm.simulator --port 8080``.

It prints one JSON line when it serves and ends on SIGTERM, on SIGINT, or with its parent.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence

from tasks._llm.simulator.errors import SimulatorError
from tasks._llm.simulator.server import serving
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.wire import MODELS

_STDIN = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks._llm.simulator",
        description="A simulated LLM behind an OpenAI-compatible endpoint. Its answers and its "
        "verdicts are made by rules, not by a language model.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--settings",
        default="{}",
        help='JSON object such as {"seed": 1}; - reads one line of stdin',
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="end when standard input reaches its end"
    )
    options = parser.parse_args(arguments)
    try:
        text = _stdin_line() if options.settings == "-" else options.settings
        settings = SimulatorSettings.from_json(text)
        asyncio.run(_serve(settings, options.host, options.port, options.with_parent))
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(settings: SimulatorSettings, host: str, port: int, has_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Ctrl-C reaches the whole group of processes; a parent stops its simulator itself, after the
    # calls that are still in flight.
    loop.add_signal_handler(signal.SIGINT, _ignore if has_parent else stop.set)
    async with serving(settings, host=host, port=port) as taken:
        announcement = {
            "port": taken,
            "base_url": f"http://{host}:{taken}/v1",
            "models": MODELS,
            "is_simulation": True,
        }
        print(json.dumps(announcement), flush=True)
        if has_parent:
            watch = threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True)
            watch.start()
        await stop.wait()


def _ignore() -> None:
    pass


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # A plain read: the buffered one holds a lock that the interpreter trips over at its end.
    while os.read(_STDIN, 4096):
        pass
    # The loop may have ended in the meantime, and then there is nothing left to stop.
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop.set)


def _stdin_line() -> str:
    """Read one line, and not a byte of what follows it."""
    line = bytearray()
    while (byte := os.read(_STDIN, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
