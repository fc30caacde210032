"""The simulator in a process of its own, started and stopped by whoever uses it.

It makes no calls and does not restart a process that has ended.
"""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tasks._llm.simulator.errors import SimulatorNotStarted
from tasks._llm.simulator.settings import SimulatorSettings

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 3.0
# The folder that holds the package `tasks`: run from there, the child finds it whether or not it
# is installed.
_ROOT = Path(__file__).resolve().parents[3]


class SimulatorProcess:
    """A running simulator; as a context manager it stops at the end of the block.

    The child ends with its parent even where the parent is killed: it holds the reading end of a
    pipe whose writing end only the parent has, and an ended parent closes it.

    Attributes:
        base_url: What an OpenAI client takes as its base URL, e.g. ``http://127.0.0.1:41234/v1``.
        port: The port.
        pid: The child's process id.
    """

    def __init__(self, child: subprocess.Popen[bytes], port: int) -> None:
        self._child = child
        self._lock = threading.Lock()
        self.port = port
        self.base_url = f"http://{_HOST}:{port}/v1"
        self.pid = child.pid

    @property
    def is_running(self) -> bool:
        """Whether the child has not ended."""
        return self._child.poll() is None

    def stop(self) -> None:
        """End the child and wait for its end; calling it again does nothing."""
        with self._lock:
            _end(self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def start_simulator(settings: SimulatorSettings, port: int = 0) -> SimulatorProcess:
    """Start a simulator on the loopback address and wait until it serves.

    Args:
        settings: What is simulated. They travel through the pipe: a key among the arguments
            could be read by every user of the machine.
        port: Port to listen on, 0 for a free one.

    Raises:
        SimulatorNotStarted: If the process ends, or says nothing, before it serves.
    """
    command = [sys.executable, "-m", "tasks._llm.simulator"]
    command += ["--port", str(port), "--settings", "-", "--with-parent"]
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        try:
            # A child that is gone already shows in its missing announcement.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(settings.to_json().encode() + b"\n")  # type: ignore[union-attr]
                child.stdin.flush()  # type: ignore[union-attr]
            announced = _announced_port(child)
        except BaseException:
            _end(child)
            raise
        if announced is None:
            _end(child)
            complaints.seek(0)
            raise SimulatorNotStarted(_why(child, complaints, port))
    return SimulatorProcess(child, announced)


def _announced_port(child: subprocess.Popen[bytes]) -> int | None:
    """Return the port that the child announces, or None where it ends or stays silent."""
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = child.stdout
    if stdout is None:
        return None
    reader = threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True)
    reader.start()
    try:
        line = lines.get(timeout=_START_TIMEOUT_S)
        return int(json.loads(line)["port"])
    except (queue.Empty, ValueError, KeyError, TypeError):
        return None


def _why(child: subprocess.Popen[bytes], complaints: IO[bytes], port: int) -> str:
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it wrote no error"
    place = f"port {port}" if port else "a free port"
    return (
        f"simulator process: ended with exit code {child.returncode} before it served ({last}), "
        f"expected it to listen on {place} of {_HOST}; run python -m tasks._llm.simulator to see "
        "more"
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None and not child.stdin.closed:
        # What a broken pipe could not take is of no use to a child that is gone.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    # The end of its input asks it to end; the signals are for one that does not listen.
    for send in (None, child.terminate, child.kill):
        if send is not None:
            send()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_TIMEOUT_S)
            break
    if child.stdout is not None:
        child.stdout.close()
