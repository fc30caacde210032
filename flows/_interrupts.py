"""Ctrl-C while modules are loaded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted() -> Iterator[None]:
    """An interrupt that arrives inside is raised at the latest when this context is left.

    Python raises it wherever the main thread happens to be, and an import is not safe from losing
    it: the import system's own callbacks cannot raise, and libraries try an optional import and
    catch whatever comes. An interrupt that this process was told to ignore stays ignored.

    Raises:
        KeyboardInterrupt: One arrived.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard = False

    def note(number: int, frame: Any) -> None:
        nonlocal heard
        heard = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt
