"""Drills: server restarted, ledger locked, clock set wrong, two runs at once, stopped early."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Finished, Pref, free_port, parquet_bytes, serving
from tests.flows.test_kills import Runs
from tests.flows.test_restart import UNHURRIED, committed_calls, wait_until_judging
from tests.flows.test_restart import attributes_words as words_for
from tests.flows.test_restart import undisturbed as undisturbed

pytestmark = pytest.mark.slow

Known = tuple[dict[str, bytes], dict[str, Any]]


def finish(process: subprocess.Popen[str], timeout_s: float = 500) -> Finished:
    out, err = process.communicate(timeout=timeout_s)
    return Finished(process.returncode, out, err)


def assert_same_command_finishes(pref: Pref, warehouse: Path, known: Known, kept: int) -> None:
    expected, found = known
    done = pref.attributes(warehouse, *UNHURRIED)
    assert done.code == 0, done.err
    assert done.found["calls_made"] == found["calls_made"] - kept
    assert done.found["datasets"] == found["datasets"]
    assert parquet_bytes(warehouse) == expected


def test_a_prefect_server_restarted_in_the_middle_costs_no_reply(
    undisturbed: Known, tmp_path: Path
) -> None:
    warehouse, home, port = tmp_path / "data", tmp_path / "server", free_port()
    home.mkdir()
    with serving(home, port) as url:
        pref = Pref(tmp_path, url)
        process = pref.start(*words_for(warehouse, *UNHURRIED))
        wait_until_judging(warehouse, process, 100)
    time.sleep(2)
    with serving(home, port):
        done = finish(process)
        if done.code != 0:
            assert done.code == 1
            assert "Traceback" not in done.err
            assert "Prefect server" in done.line
        kept = committed_calls(warehouse)
        assert kept >= 100
        if done.code == 0:
            assert parquet_bytes(warehouse) == undisturbed[0]
        else:
            assert_same_command_finishes(pref, warehouse, undisturbed, kept)


def test_a_locked_ledger_ends_the_run_in_one_line_and_loses_no_reply(
    undisturbed: Known, prefect_server: str, tmp_path: Path
) -> None:
    warehouse, pref = tmp_path / "data", Pref(tmp_path, prefect_server)
    process = pref.start(*words_for(warehouse, *UNHURRIED))
    wait_until_judging(warehouse, process, 100)
    with closing(sqlite3.connect(warehouse / "ledger.sqlite", timeout=10)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        done = finish(process)
        other.execute("ROLLBACK")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "locked" in done.line or "another process" in done.line
    # What was on the wire came back while nobody could write: it is bought again, and no more.
    kept = committed_calls(warehouse)
    assert kept >= 100
    assert_same_command_finishes(pref, warehouse, undisturbed, kept)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_by_a_day_changes_nothing(
    jump_s: float, undisturbed: Known, prefect_server: str, tmp_path: Path
) -> None:
    expected, found = undisturbed
    runs = Runs(tmp_path, prefect_server)
    words = words_for(runs.warehouse, *UNHURRIED)
    try:
        killed = runs.run(words, ("judge", 60))
        assert killed["code"] == -signal.SIGKILL
        done = runs.run(words, clock=("judge", 60, jump_s))
        assert done["code"] == 0, done["said"]
        # The clock is right again: what the other day wrote is found, and is what is current.
        again = runs.run(words)
        assert again["code"] == 0, again["said"]
        assert '"calls_made": 0,' in again["said"]
    finally:
        runs.close()
    assert parquet_bytes(runs.warehouse) == expected
    assert committed_calls(runs.warehouse) == found["calls_made"]
    audited = Pref(tmp_path, prefect_server).run("audit", "--warehouse", str(runs.warehouse))
    assert audited.code == 0, audited.out + audited.err


def test_of_two_runs_at_once_one_works_and_the_other_says_so(
    undisturbed: Known, prefect_server: str, tmp_path: Path
) -> None:
    warehouse = tmp_path / "data"
    one, other = (Pref(tmp_path / name, prefect_server) for name in ("one", "other"))
    for pref in (one, other):
        Path(pref.env["HOME"]).mkdir()
    processes = [pref.start(*words_for(warehouse, *UNHURRIED)) for pref in (one, other)]
    ended = [finish(process) for process in processes]
    assert sorted(done.code for done in ended) == [0, 2]
    [refused] = [done for done in ended if done.code == 2]
    assert f"warehouse {warehouse}: in use by process" in refused.line
    assert parquet_bytes(warehouse) == undisturbed[0]


def test_two_runs_at_once_that_may_wait_end_alike_and_share_every_reply(
    undisturbed: Known, prefect_server: str, tmp_path: Path
) -> None:
    expected, found = undisturbed
    warehouse, pref = tmp_path / "data", Pref(tmp_path, prefect_server)
    waiting = ("--set", "calls.wait_for_warehouse_s=200")
    processes = [pref.start(*words_for(warehouse, *UNHURRIED, *waiting)) for _ in range(2)]
    ended = [finish(process) for process in processes]
    assert [done.code for done in ended] == [0, 0], [done.err for done in ended]
    assert sorted(done.found["calls_made"] for done in ended) == [0, found["calls_made"]]
    assert ended[0].found["datasets"] == ended[1].found["datasets"] == found["datasets"]
    assert parquet_bytes(warehouse) == expected


@pytest.mark.alone
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("after_s", [0.3, 1.5, 3.0, 6.0])
def test_a_signal_at_any_time_stops_a_run_within_five_seconds(
    name: str, after_s: float, prefect_server: str, tmp_path: Path
) -> None:
    process = Pref(tmp_path, prefect_server).start(*words_for(tmp_path / "data", *UNHURRIED))
    time.sleep(after_s)
    process.send_signal(getattr(signal, name))
    done = finish(process, timeout_s=5)
    assert done.code != 0
    assert "Traceback" not in done.err, done.err


def test_a_temporary_server_that_cannot_start_is_one_line_that_names_its_log(
    pref_without_server: Pref, tmp_path: Path
) -> None:
    nowhere = f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/prefect.db"
    env = {"PREFECT_API_DATABASE_CONNECTION_URL": nowhere}
    done = pref_without_server.attributes(tmp_path / "data", **env)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "temporary server: ended with" in done.line
    log = re.search(r"see (\S+),", done.line)
    assert log
    assert "unable to open database file" in Path(log[1]).read_text()


def test_a_prefect_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    done = Pref(tmp_path, url).attributes(tmp_path / "data")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert f"Prefect server {url}: no answer" in done.line
