"""Prefect's temporary server, kept from outliving a run that is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks._guard import Guard


@contextmanager
def guarded_server() -> Iterator[None]:
    """While open, a temporary Prefect server ends with this process, however that ends.

    Does nothing when a server of the user's own is configured.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        yield
        return
    server = SubprocessASGIServer()
    guard = Guard()
    # The server takes seconds to answer; a kill in that time must not orphan it either.
    threading.Thread(target=_protect, args=(server, guard), daemon=True).start()
    try:
        server.start()
        yield
    finally:
        server.stop()
        guard.close()


def _protect(server: Any, guard: Guard) -> None:
    for _ in range(600):
        if server.server_process is not None:
            guard.protect(server.server_process.pid)
            return
        time.sleep(0.05)
