"""Prefect's temporary server, kept from outliving a run that is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

from tasks._guard import Guard
from tasks._settings import prepare_server
from tasks._settings import worker_environment as worker_environment
from tasks.errors import InputRejected


def start_server() -> None:
    """Starts Prefect's temporary server, unless a server of the user's own is configured.

    Prefect stops it when this process ends in order; it would be left behind for ever by
    ``kill -9``, so a guard ends it then.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    # The server takes seconds to answer; a kill in that time must not orphan it either.
    threading.Thread(target=_protect, args=(server, Guard()), daemon=True).start()
    server.start()


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


def run_server(host: str, port: int) -> int:
    """Runs ``prefect server start`` with the settings that keep task runs from being lost.

    Args:
        host: Address to listen on.
        port: Port; the UI is told of it, which Prefect alone would not do.

    Returns:
        The server's exit code.
    """
    prepare_server(f"http://{host}:{port}/api")
    command = [sys.executable, "-m", "prefect", "server", "start"]
    return subprocess.call([*command, "--host", host, "--port", str(port)])


def _protect(server: Any, guard: Guard) -> None:
    for _ in range(600):
        if server.server_process is not None:
            guard.protect(server.server_process.pid)
            return
        time.sleep(0.05)
