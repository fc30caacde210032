"""Ends processes that would outlive us: started by a run, orphaned when the run is killed.

A temporary Prefect server is an ordinary child, and ``kill -9`` of the run leaves it behind.
This small process holds a pipe to the run and, when the pipe breaks, ends what it was told of.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys


class Guard:
    """A watcher process; `protect` names the processes that must not outlive this one.

    The pipe breaks when this process ends, in whatever way; the watcher then ends by itself.
    """

    def __init__(self) -> None:
        self._watcher = subprocess.Popen(
            [sys.executable, "-c", _WATCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def protect(self, pid: int) -> None:
        """Ends ``pid`` once this process has ended."""
        stdin = self._watcher.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(f"{pid}\n")
                stdin.flush()


# Whoever does not end when asked to is made to.
_WATCHER = """
import os, signal, sys, time

def ends(one, how):
    try:
        os.kill(one, how)
    except ProcessLookupError:
        return True
    return False

waiting = [int(line) for line in sys.stdin if line.strip()]
waiting = [one for one in waiting if not ends(one, signal.SIGTERM)]
until = time.monotonic() + 10
while waiting and time.monotonic() < until:
    time.sleep(0.1)
    waiting = [one for one in waiting if not ends(one, 0)]
for one in waiting:
    ends(one, signal.SIGKILL)
"""
