"""Prefect's temporary server, kept from outliving a run that is killed."""

from __future__ import annotations

import threading
import time
from typing import Any

from tasks._guard import Guard


def start_server() -> None:
    """Starts Prefect's temporary server, unless a server of the user's own is configured.

    Prefect stops it when this process ends in order; it would be left behind for ever by
    ``kill -9``, so a guard ends it then.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    server = SubprocessASGIServer()
    # The server takes seconds to answer; a kill in that time must not orphan it either.
    threading.Thread(target=_protect, args=(server, Guard()), daemon=True).start()
    server.start()


def _protect(server: Any, guard: Guard) -> None:
    for _ in range(600):
        if server.server_process is not None:
            guard.protect(server.server_process.pid)
            return
        time.sleep(0.05)
