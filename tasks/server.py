"""Prefect's temporary server, kept from outliving a run that is killed."""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from tasks._guard import Guard
from tasks._settings import prepare_server
from tasks._settings import worker_environment as worker_environment
from tasks.errors import InputRejected

# A busy server of one's own answers late; none at all refuses at once.
_ANSWER_S = 20.0
# The longest that a finished run waits for its records; a second is usual.
_RECORDS_S = 60.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """A Prefect server to run flows on: the user's own where one is configured, or a temporary one.

    The temporary server stops when this process ends, and a guard ends it after ``kill -9``. What
    the flows inside did is on its record when this context is left.

    Raises:
        InputRejected: The configured server does not answer.
    """
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url:
        _require_answer(url)
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    # The server takes seconds to answer; a kill in that time must not orphan it either.
    threading.Thread(target=_protect, args=(server, Guard()), daemon=True).start()
    server.start()
    try:
        yield
    except Exception:
        _keep_records()
        raise
    _keep_records()


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


def _protect(server: Any, guard: Guard) -> None:
    for _ in range(600):
        if server.server_process is not None:
            guard.protect(server.server_process.pid)
            return
        time.sleep(0.05)
