"""Growth past one process: shards on Dask and Ray, and servers that lose no task run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import (
    Pref,
    attributes_words,
    free_port,
    parquet_bytes,
    post,
    serving,
)
from tests.flows.test_disturbed import finish
from tests.flows.test_restart import undisturbed as undisturbed
from tests.postgres import fresh_database, postgres_server
from tests.s3 import s3_server

pytestmark = pytest.mark.slow

Known = tuple[dict[str, bytes], dict[str, Any]]
# More than Prefect's default recorder has written by the end of such a flow.
N_TASKS = 300
MANY_TASKS = """
from tasks._settings import prepare_prefect
prepare_prefect("data")
import sys
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from tasks.server import prefect_server

@task(cache_policy=NO_CACHE)
def one(number):
    return number

@flow
def many(n):
    return sum(future.result() for future in [one.submit(number) for number in range(n)])

n = int(sys.argv[1])
with prefect_server() as wait_for_server:
    wait_for_server()
    assert many(n) == n * (n - 1) // 2
"""

KILL_THE_SERVER = """
import os, signal, subprocess
children = ["ps", "--no-headers", "-o", "pid,args", "--ppid", str(os.getpid())]
for line in subprocess.check_output(children, text=True).splitlines():
    if "prefect.server" in line:
        os.kill(int(line.split()[0]), signal.SIGKILL)
        print("killed")
"""


def test_stopping_pref_server_leaves_nothing_that_listens(tmp_path: Path) -> None:
    with serving(tmp_path, free_port()) as url:
        pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/health", timeout=5)


def run_python(pref: Pref, code: str, *words: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=pref.env["HOME"],
        env={**pref.env, **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(url: str, name: str) -> int:
    wanted = {"task_runs": {"name": {"like_": name}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(post(url, "/task_runs/count", wanted))


def assert_none_is_lost(pref: Pref, url: str) -> None:
    before = recorded(url, "one-")
    run_python(pref, MANY_TASKS, str(N_TASKS))
    for _ in range(60):
        if recorded(url, "one-") == before + N_TASKS:
            return
        time.sleep(0.5)
    raise AssertionError(f"{recorded(url, 'one-') - before} of {N_TASKS} task runs on record")


def test_the_server_of_pref_server_records_every_task_run(pref: Pref, prefect_server: str) -> None:
    assert_none_is_lost(pref, prefect_server)


def test_the_temporary_server_of_a_run_records_every_task_run(
    pref_without_server: Pref, tmp_path: Path
) -> None:
    # Ended at once, as a machine too busy to write down what it holds in memory would be.
    code = MANY_TASKS + KILL_THE_SERVER
    assert run_python(pref_without_server, code, str(N_TASKS)) == "killed\n"
    # What the temporary server left in its database is seen by the next server on it.
    with serving(tmp_path, free_port()) as url:
        assert recorded(url, "one-") == N_TASKS


def test_a_server_on_postgresql_records_every_task_run(tmp_path: Path) -> None:
    if importlib.util.find_spec("asyncpg") is None:
        pytest.skip("Prefect's driver for PostgreSQL, asyncpg, is not installed")
    with postgres_server() as one:
        url = fresh_database(one).replace("+psycopg", "+asyncpg")
        env = {"PREFECT_API_DATABASE_CONNECTION_URL": url}
        with serving(tmp_path, free_port(), "--host", "127.0.0.1", **env) as api:
            assert_none_is_lost(Pref(tmp_path, api), api)


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_two_worker_processes_give_the_same_bytes_as_one(
    runner: str, undisturbed: Known, prefect_server: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"the extra `{runner}` is not installed")
    expected, found = undisturbed
    warehouse = tmp_path / "data"
    with postgres_server() as one:
        env = {"PREF_LEDGER_URL": fresh_database(one), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        words = ("--set", f"calls.runner={runner}", "--set", "calls.workers=2")
        done = Pref(tmp_path, prefect_server).attributes(warehouse, *words, **env)
        assert done.code == 0, done.err
        assert not (warehouse / "ledger.sqlite").exists()
    assert done.found["calls_made"] == found["calls_made"]
    assert done.found["datasets"] == found["datasets"]
    assert parquet_bytes(warehouse) == expected


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    with s3_server() as env:
        yield env


def test_two_machines_on_one_bucket_and_ledger_agree_and_buy_each_reply_once(
    undisturbed: Known, prefect_server: str, bucket: dict[str, str], tmp_path: Path
) -> None:
    expected, found = undisturbed
    machines = []
    for name in ("one", "other", "third"):
        (tmp_path / name).mkdir()
        machines.append(Pref(tmp_path / name, prefect_server))
    with postgres_server() as server:
        env = {**bucket, "PREF_LEDGER_URL": fresh_database(server)}
        words = attributes_words(Path("s3:"), "--warehouse", "s3://team/data")
        processes = [machine.start(*words, **env) for machine in machines[:2]]
        ended = [finish(process) for process in processes]
        assert [done.code for done in ended] == [0, 0], [done.err for done in ended]
        assert sum(done.found["calls_made"] for done in ended) == found["calls_made"]
        # A machine that was not there finds everything, and its copies are the same bytes.
        late = machines[2].run(*words, **env)
        assert late.code == 0, late.err
        assert late.found["calls_made"] == 0
        audited = machines[2].run("audit", "--warehouse", "s3://team/data", **env)
        assert audited.code == 0, audited.out + audited.err
    for done in (*ended, late):
        assert done.found["datasets"] == found["datasets"]
    [copies] = (tmp_path / "third" / ".cache" / "pref" / "warehouses").iterdir()
    assert parquet_bytes(copies) == expected
    counted = machines[0].run(
        *("sql", "select count(*) as n from judgments", "--warehouse", "s3://team/data", "--json"),
        **env,
    )
    assert json.loads(counted.out) == [{"n": 480}]


def test_money_is_not_spent_where_the_ledger_stays_on_this_machine(
    pref: Pref, bucket: dict[str, str]
) -> None:
    words = attributes_words(Path("s3:"), "--warehouse", "s3://team/data")
    done = pref.run(*words, "--llm-base-url", "http://127.0.0.1:9/v1", **bucket)
    assert done.code == 2
    assert "PREF_LEDGER_URL" in done.line


def test_a_cap_that_several_processes_cannot_hold_is_refused(pref: Pref, tmp_path: Path) -> None:
    words = ("--set", "calls.runner=dask", "--max-calls", "10")
    done = pref.attributes(tmp_path / "data", *words)
    assert done.code == 2
    assert "calls.runner: dask with a cap" in done.line
