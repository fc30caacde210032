"""Runs `pref` in forked children, each killed by SIGKILL at a chosen point of a chosen stage.

    python fork_server.py WAREHOUSE PROGRESS_FILE

Reads a line of JSON for each run. With ``"at": [stage, number]`` the run dies at that step of that
stage, or at the end of the stage where it has fewer steps; with ``"clock": [stage, number,
seconds]`` its clock jumps there. Answers with a line of JSON: the child's exit status (-9 for the
kill) and the steps that each stage has gone through. A step is a touch of the warehouse's disk or
the progress of a call.

Everything is imported before the first fork, so that forty runs take seconds each, not minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WAREHOUSE, PROGRESS = sys.argv[1], Path(sys.argv[2])

from tasks._settings import prepare_prefect  # noqa: E402

# Before Prefect's first import, as in `pref run`.
prepare_prefect(WAREHOUSE)

import torch  # noqa: E402, F401
import transformers  # noqa: E402, F401

import flows._console  # noqa: E402
import flows.attributes  # noqa: E402
import flows.cli  # noqa: E402
import flows.own  # noqa: E402
import flows.prism  # noqa: E402
import warehouse.ledger  # noqa: E402, F401
from warehouse.paths import HashingFile  # noqa: E402

_NAMED = ("open", "os.mkdir", "shutil.rmtree")
_ANY = ("os.rename", "os.remove", "os.rmdir")


class Steps:
    """Counts the steps of each stage and kills this process at one of them."""

    def __init__(self, at: tuple[str, int] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._at = at
        self._stage = "start"
        self._lock = threading.RLock()

    def install(self) -> None:
        display: Any = flows._console.Display
        display.stage = self._before(display.stage, self._on_stage)
        display.calls = self._before(display.calls, lambda *_: self.take())
        HashingFile.write = self._before(  # type: ignore[method-assign]
            HashingFile.write, lambda *_: self.take()
        )
        sys.addaudithook(self._on_audit)

    def take(self) -> None:
        with self._lock:
            self.counts[self._stage] += 1
            if self._at == (self._stage, self.counts[self._stage]):
                os.kill(os.getpid(), signal.SIGKILL)

    def _on_stage(self, _: object, event: Any) -> None:
        if event.calls is None:
            with self._lock:
                self._stage = event.stage
        elif self._at is not None and event.stage == self._at[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_audit(self, event: str, found: tuple[Any, ...]) -> None:
        if event in _ANY or (event in _NAMED and str(found[0]).startswith(WAREHOUSE)):
            self.take()

    @staticmethod
    def _before(call: Callable[..., Any], first: Callable[..., None]) -> Callable[..., Any]:
        def both(*words: Any) -> Any:
            first(*words)
            return call(*words)

        return both

    def set_clock(self, stage: str, number: int, jump_s: float) -> None:
        """Lets the clock that our own modules read jump at a step of a stage."""

        def offset_s() -> float:
            order = list(self.counts)
            is_past = self._stage == stage and self.counts[stage] >= number
            is_later = stage in order and self._stage in order[order.index(stage) + 1 :]
            return jump_s if is_past or is_later else 0.0

        class Moment(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=offset_s())

        clock = SimpleNamespace(**vars(time))
        clock.time = lambda: time.time() + offset_s()
        clock.time_ns = lambda: time.time_ns() + int(offset_s() * 1e9)
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in ("flows", "tasks", "warehouse"):
                if getattr(module, "datetime", None) is datetime:
                    module.datetime = Moment  # type: ignore[attr-defined]
                if getattr(module, "time", None) is time:
                    module.time = clock  # type: ignore[attr-defined]


def run(words: list[str], at: tuple[str, int] | None, clock: tuple[str, int, float] | None) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = Steps(at)
    code = 1
    try:
        log = os.open(PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        steps.install()
        if clock is not None:
            steps.set_clock(*clock)
        sys.argv = ["pref", *words]
        flows.cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        PROGRESS.with_suffix(".steps").write_text(json.dumps(steps.counts))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        told = PROGRESS.with_suffix(".steps")
        told.unlink(missing_ok=True)
        code = run(asked["words"], tuple(asked["at"] or ()) or None, asked.get("clock"))
        counts = json.loads(told.read_text()) if told.is_file() else {}
        print(json.dumps({"code": code, "steps": counts}), flush=True)


if __name__ == "__main__":
    main()
