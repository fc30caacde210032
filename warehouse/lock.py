"""One run at a time on a warehouse, by a lock that the kernel frees when its holder dies."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from warehouse.errors import WarehouseBusy
from warehouse.manifest import utc_text
from warehouse.paths import disk_errors

# Opening a warehouse and checking a request hold the lock for a moment each; a run holds it for
# long. A run must not be turned away by somebody who only looked.
MOMENT_S = 0.5
_POLL_S = 0.01


@contextmanager
def hold_lock(path: Path, started_at: datetime, patience_s: float = MOMENT_S) -> Iterator[None]:
    """Hold a lock file, with the holder's process and start written into it.

    Args:
        path: The lock file, directly in the warehouse folder.
        started_at: When the holder started, UTC.
        patience_s: How long to wait for another holder.

    Raises:
        WarehouseBusy: Someone else holds it all that time; the line names their process and start.
    """
    with disk_errors("the lock file", path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end_s = time.monotonic() + patience_s
        while not _is_locked(descriptor):
            if time.monotonic() >= end_s:
                raise WarehouseBusy(_busy_line(path, descriptor))
            time.sleep(_POLL_S)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": utc_text(started_at, "started_at"),
        }
        with disk_errors("the lock file", path.parent):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # an unlocked file must name nobody
            # Explicitly, since a forked child may hold a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy_line(path: Path, descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = f"process {holder['pid']} on {holder['host']} since {holder['started_at']}"
    except (ValueError, KeyError, TypeError):
        who = "a process that has just started or ended"
    return (
        f"warehouse {path.parent}: in use by {who}, expected no other run; wait for it, stop it, "
        "or give another --warehouse"
    )
