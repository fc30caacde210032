import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from warehouse.errors import WarehouseBusy
from warehouse.store import Warehouse, open_warehouse

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from warehouse.store import open_warehouse
with open_warehouse(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"held\n"
            yield child
        finally:
            child.kill()


def test_the_second_process_gets_one_line_about_the_first(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path)
    with holder(tmp_path) as child, pytest.raises(WarehouseBusy) as caught, warehouse.lock():
        pass
    line = str(caught.value)
    assert re.search(rf"in use by process {child.pid} on \S+ since 20\d\d-\S+Z", line)
    assert str(tmp_path) in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


def test_a_killed_holder_frees_the_warehouse(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with open_warehouse(tmp_path).lock():
            pass


def test_a_second_holder_in_the_same_process_is_refused_too(warehouse: Warehouse) -> None:
    busy = pytest.raises(WarehouseBusy, match=f"process {os.getpid()}")
    with warehouse.lock(), busy, warehouse.lock():
        pass
    with warehouse.lock():
        pass


def test_who_only_looks_turns_no_run_away(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path)
    with holder(tmp_path) as child:
        assert child.stdin is not None
        ending = threading.Timer(0.1, child.stdin.close)
        ending.start()
        with warehouse.lock(patience_s=30.0):
            assert child.wait() == 0


def test_a_free_lock_names_nobody(warehouse: Warehouse) -> None:
    with warehouse.lock():
        assert str(os.getpid()) in (warehouse.root / ".lock").read_text()
    assert (warehouse.root / ".lock").read_text() == ""


def test_an_error_inside_frees_the_lock(warehouse: Warehouse) -> None:
    with pytest.raises(KeyError), warehouse.lock():
        raise KeyError
    with warehouse.lock():
        pass


def test_readers_need_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path):
        assert open_warehouse(tmp_path, create=False).current() == {}
