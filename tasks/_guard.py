"""Ends processes that would outlive us: started by a run, orphaned when the run is killed.

Prefect's temporary server is an ordinary child; ``kill -9`` of the run leaves it behind for ever.
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


_WATCHER = """
import os, signal, sys
for one in [int(line) for line in sys.stdin if line.strip()]:
    try:
        os.kill(one, signal.SIGTERM)
    except ProcessLookupError:
        pass
"""
