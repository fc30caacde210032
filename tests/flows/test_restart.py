"""Drills: a run is killed, interrupted, starved of disk; the same command then finishes it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Pref, attributes_words, parquet_bytes

pytestmark = pytest.mark.slow

# Slow replies and few at once, so that judging takes seconds and a kill lands in the middle.
UNHURRIED = (
    *("--set", "llm.simulator.latency_s=0.1"),
    *("--set", "calls.max_in_flight=16"),
)


@pytest.fixture(scope="module")
def undisturbed(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], dict[str, Any]]:
    home = tmp_path_factory.mktemp("undisturbed")
    done = Pref(home, prefect_server).attributes(home / "data", *UNHURRIED)
    assert done.code == 0, done.err
    return parquet_bytes(home / "data"), done.found


def committed_calls(warehouse: Path) -> int:
    ledger = warehouse / "ledger.sqlite"
    if not ledger.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from calls").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def wait_until_judging(warehouse: Path, process: subprocess.Popen[str], calls: int) -> None:
    for _ in range(3000):
        if committed_calls(warehouse) >= calls:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("the run made no calls")


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_is_finished_by_the_same_command_and_buys_nothing_twice(
    seed: int,
    undisturbed: tuple[dict[str, bytes], dict[str, Any]],
    prefect_server: str,
    tmp_path: Path,
) -> None:
    expected, found = undisturbed
    warehouse = tmp_path / "data"
    pref = Pref(tmp_path, prefect_server)
    # 24 calls write responses; the 480 after them are verdicts.
    at = 24 + random.Random(seed).randrange(20, 440)
    process = pref.start(*attributes_words(warehouse, *UNHURRIED))
    wait_until_judging(warehouse, process, at)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = committed_calls(warehouse)
    assert not list(warehouse.glob("judgments/version=*"))
    done = pref.attributes(warehouse, *UNHURRIED)
    assert done.code == 0, done.err
    assert done.found["calls_made"] == found["calls_made"] - kept
    assert done.found["datasets"] == found["datasets"]
    assert parquet_bytes(warehouse) == expected


@pytest.mark.alone
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_stops_soon_and_can_be_resumed(
    name: str,
    undisturbed: tuple[dict[str, bytes], dict[str, Any]],
    prefect_server: str,
    tmp_path: Path,
) -> None:
    expected, found = undisturbed
    warehouse = tmp_path / "data"
    pref = Pref(tmp_path, prefect_server)
    process = pref.start(*attributes_words(warehouse, *UNHURRIED))
    wait_until_judging(warehouse, process, 100)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=5)
    assert process.returncode != 0
    kept = committed_calls(warehouse)
    done = pref.attributes(warehouse, *UNHURRIED)
    assert done.code == 0, done.err
    assert done.found["calls_made"] == found["calls_made"] - kept
    assert parquet_bytes(warehouse) == expected


def test_a_killed_run_leaves_no_server_and_no_simulator_behind(
    pref_without_server: Pref, tmp_path: Path
) -> None:
    pref, warehouse = pref_without_server, tmp_path / "data"
    process = pref.start(*attributes_words(warehouse, *UNHURRIED))
    wait_until_judging(warehouse, process, 60)
    children = descendants(process.pid)
    assert any("uvicorn" in words for words in children.values())
    assert any("simulator" in words for words in children.values())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(100):
        alive = [words for pid, words in children.items() if command(pid) == words]
        if not alive:
            return
        time.sleep(0.1)
    raise AssertionError(alive)


def test_caps_stop_cleanly_and_the_run_goes_on_without_them(
    undisturbed: tuple[dict[str, bytes], dict[str, Any]], prefect_server: str, tmp_path: Path
) -> None:
    expected, found = undisturbed
    warehouse = tmp_path / "data"
    pref = Pref(tmp_path, prefect_server)
    capped = pref.attributes(warehouse, *UNHURRIED, "--set", "calls.max_calls=200")
    assert capped.code == 1
    assert "Traceback" not in capped.err
    assert committed_calls(warehouse) == 200
    done = pref.attributes(warehouse, *UNHURRIED)
    assert done.found["calls_made"] == found["calls_made"] - 200
    assert parquet_bytes(warehouse) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("size_kb", [600, 1200])
def test_a_full_disk_is_one_line_and_with_more_space_the_same_command_finishes(
    size_kb: int,
    undisturbed: tuple[dict[str, bytes], dict[str, Any]],
    prefect_server: str,
    tmp_path: Path,
) -> None:
    expected, found = undisturbed
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        pref = Pref(tmp_path, prefect_server)
        done = pref.attributes(disk / "data", *UNHURRIED)
        assert done.code == 1, done.err
        assert "Traceback" not in done.err
        assert "space" in done.line
        for path in (disk / "data").glob("*/version=*"):
            assert (path / "manifest.json").is_file()
        kept = committed_calls(disk / "data")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        done = pref.attributes(disk / "data", *UNHURRIED)
        assert done.code == 0, done.err
        assert done.found["calls_made"] == found["calls_made"] - kept
        assert parquet_bytes(disk / "data") == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def descendants(pid: int) -> dict[int, str]:
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        children = subprocess.run(
            ["ps", "--no-headers", "-o", "pid", "--ppid", str(waiting.pop())],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        for child in map(int, children):
            found[child] = command(child)
            waiting.append(child)
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
