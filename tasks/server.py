"""The Prefect server of a run: the user's own, or a temporary one that ends with the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from tasks._guard import Guard
from tasks._settings import prepare_server, temporary_server_environment, use_server
from tasks._settings import worker_environment as worker_environment
from tasks.errors import InputRejected, ServerFailed

# A busy server of one's own answers late; none at all refuses at once.
_ANSWER_S = 20.0
# The longest that a finished run waits for its records; a second is usual.
_RECORDS_S = 60.0
# As Prefect itself starts a temporary server.
_SERVER = [
    *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--host", "127.0.0.1", "--log-level", "error", "--lifespan", "on"),
]


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """A Prefect server to run flows on: the user's own where one is configured, or a temporary one.

    Yields a function that returns when the server answers: a temporary one takes seconds to start,
    in which a flow can be loaded. It ends when this process has ended, in whatever way, and after
    all that Prefect still sends it then. What the flows inside did is on its record when this
    context is left.

    Raises:
        InputRejected: The configured server does not answer.
        ServerFailed: A temporary server does not start; raised by what is yielded.
    """
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url:
        _require_answer(url)
        yield _nothing
        return
    server = _Temporary()
    try:
        yield server.wait
    except Exception:
        if server.is_up:
            _keep_records()
        raise
    _keep_records()


class _Temporary:
    """A server on this machine for as long as this process lives, on the user's own database.

    Prefect would start one by itself, but first load all of the server into this process too: 3 s
    and 80 MB.

    Attributes:
        is_up: It has answered once.
    """

    def __init__(self) -> None:
        from prefect.context import refresh_global_settings_context
        from prefect.settings import PREFECT_HOME

        self.is_up = False
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/api"
        self._log = Path(PREFECT_HOME.value()) / "temporary-server.log"
        guard = Guard()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_SERVER, "--port", str(port)],
                env=temporary_server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the run, which then has its end written down.
                start_new_session=True,
            )
        guard.protect(self._process.pid)
        use_server(self._url)
        refresh_global_settings_context()

    def wait(self) -> None:
        """Returns when the server answers.

        Raises:
            ServerFailed: It ended instead, or took too long.
        """
        from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

        most_s = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        until = time.monotonic() + most_s
        while not self._answers():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > until:
                found = f"no answer in {most_s:.0f} s" if ended is None else f"ended with {ended}"
                raise ServerFailed(
                    f"Prefect's temporary server: {found}, expected an answer at {self._url};"
                    f" see {self._log}, or start one with `pref server` and set PREFECT_API_URL"
                )
            time.sleep(0.05)
        self.is_up = True

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=_ANSWER_S):
                return True
        except OSError:
            return False


def require_server() -> None:
    """Refuses what needs a Prefect server that outlives this process, where none is named.

    Raises:
        InputRejected: No server is configured.
    """
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise InputRejected(
            "Prefect server: none is configured, expected PREFECT_API_URL; start one with"
            " `pref server` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )


def become_server(host: str, port: int) -> NoReturn:
    """Becomes ``prefect server start``, with the settings that keep task runs from being lost.

    The process is replaced, so that whoever stops it stops the server.

    Args:
        host: Address to listen on.
        port: Port; the UI is told of it, which Prefect alone would not do.
    """
    prepare_server(f"http://{host}:{port}/api")
    command = [sys.executable, "-m", "prefect", "server", "start"]
    os.execv(command[0], [*command, "--host", host, "--port", str(port)])


def lost_server_line(error: BaseException) -> str | None:
    """What to say where an error means that the Prefect server is gone; None where it does not."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if not kinds & {"httpx", "httpcore"} and not str(error).startswith("Failed to reach API"):
        return None
    return (
        f"Prefect server: no answer any more ({str(error) or type(error).__name__}), expected the"
        " one at PREFECT_API_URL; see that it runs, and run the same command again"
    )


def _keep_records() -> None:
    # A run that is done stays done, whatever of Prefect's records is lost with its server.
    with suppress(Exception):
        _wait_until_recorded()


def _wait_until_recorded() -> None:
    """Waits until the server has written down every task run of this process.

    Task runs reach a server as events, in order, and wait in its memory to be written; Prefect
    stops its temporary server once they are sent, and on a busy machine a quarter of 300 was
    lost. So one more task run follows all others, and we wait until that one is on record.
    """
    from prefect import get_client, task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId

    last = task(name="end of records", cache_policy=NO_CACHE)(_nothing)
    sent = last(return_state=True).state_details.task_run_id
    if sent is None:
        return
    wanted = TaskRunFilter(id=TaskRunFilterId(any_=[sent]))
    until = time.monotonic() + _RECORDS_S
    with get_client(sync_client=True) as client:
        while time.monotonic() < until:
            found = client.read_task_runs(task_run_filter=wanted)
            if any(one.state is not None and one.state.is_final() for one in found):
                return
            time.sleep(0.1)


def _nothing() -> None:
    pass


def _require_answer(url: str) -> None:
    try:
        # A proxy of the environment and a key of Prefect Cloud are the client's to know.
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_S):
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputRejected(
            f"Prefect server {url}: no answer ({reason}), expected the one that PREFECT_API_URL"
            " names; start it with `pref server`, or unset the variable"
        ) from None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
