"""An interrupt while modules load: noted, raised at the latest afterwards, and one line."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows._interrupts import noted
from tests.flows.conftest import Finished, Pref, attributes_words

# A module that loses what is raised while it is imported, as optional imports in libraries do.
CARELESS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except BaseException:
    pass
"""
# The command line in a process where looking for one module loses an interrupt.
CARELESS_FINDER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Careless:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                print("lost", flush=True)

where = sys.argv.pop(1)
sys.meta_path.insert(0, Careless())
from flows import cli
cli.main()
"""


@pytest.fixture(autouse=True)
def hearing() -> Iterator[None]:
    # A shell that starts the tests in the background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def careless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"careless_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CARELESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_an_interrupt_that_an_import_swallows_is_raised_afterwards(careless: str) -> None:
    with pytest.raises(KeyboardInterrupt), noted():
        importlib.import_module(careless)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_is_raised_at_once_where_nothing_swallows_it() -> None:
    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt), noted():
        interrupted()


def test_without_an_interrupt_nothing_happens_and_the_handler_is_as_before() -> None:
    with noted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noted():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("where", ["typer", "tasks.preflight"])
def test_a_run_that_loses_an_interrupt_while_it_starts_stops_all_the_same(
    where: str, pref: Pref, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CARELESS_FINDER, where, *attributes_words(tmp_path / "data")],
        cwd=tmp_path,
        env=pref.env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    told = Finished(done.returncode, done.stdout, done.stderr)
    assert told.out == "lost\n"
    assert told.code == 1
    assert "interrupted" in told.line
    assert "Traceback" not in told.err
    assert not list(tmp_path.glob("data/*/version=*"))
