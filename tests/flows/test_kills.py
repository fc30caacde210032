"""Drill: `kill -9` at seeded points of every stage; the same command then finishes the run.

One warehouse a flow is killed again and again, each time by the next run on it, so that every
kill but the first hits a run that is itself resuming. Points are steps of a stage: a touch of the
disk or the progress of a call, drawn by seed from as many as an undisturbed run took.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tasks.planning import OWN_STAGES, PRISM_STAGES, STAGES
from tests.flows.conftest import ROOT, SMALL, Pref, ask, free_port, parquet_bytes
from tests.tasks.own.data import own_rows, write_own
from tests.tasks.stages.prism_rows import write_prism

pytestmark = pytest.mark.slow

FORK_SERVER = ROOT / "tests" / "flows" / "fork_server.py"
IN_FLIGHT = 16
# Stages that make calls or train are killed more often: most can go wrong there.
OFTEN = {"respond": 2, "judge": 3, "win": 2, "revise": 2, "tune": 2}
KILLED = -9


class Server(NamedTuple):
    """A simulator that outlives the runs and counts what it was asked."""

    url: str

    def answers(self) -> dict[str, int]:
        served = self.url.replace("/v1", "/simulator/served")
        with urllib.request.urlopen(served, timeout=10) as reply:
            return {name: counts[1] for name, counts in json.loads(reply.read())["calls"].items()}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("endpoint")
    port = free_port()
    words = ["simulate", "--port", str(port)]
    words += ["--set", "is_counting=true", "--set", "latency_s=0.02"]
    process = Pref(home, None).start(*words)
    server = Server(f"http://127.0.0.1:{port}/v1")
    for _ in range(300):
        try:
            server.answers()
            break
        except OSError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    yield server
    process.terminate()
    process.communicate(timeout=30)


class Runs:
    """Runs of `pref` on one warehouse, forked from a process that has everything imported."""

    def __init__(self, home: Path, api_url: str) -> None:
        self.warehouse = home / "data"
        self._log = home / "log"
        self._process = subprocess.Popen(
            [sys.executable, str(FORK_SERVER), str(self.warehouse), str(self._log)],
            cwd=home,
            env={**Pref(home, api_url).env, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        words: list[str],
        at: tuple[str, int] | None = None,
        clock: tuple[str, int, float] | None = None,
    ) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"words": words, "at": at, "clock": clock}) + "\n")
        self._process.stdin.flush()
        found = dict(json.loads(self._process.stdout.readline()))
        found["said"] = self._log.read_text("utf-8", "replace")
        return found

    def close(self) -> None:
        self._process.communicate(timeout=30)


def points(steps: dict[str, int], seed: int, stages: set[str]) -> list[tuple[str, int]]:
    """Where the runs die: in the order of the stages, at drawn steps of each."""
    draw = random.Random(seed)
    return [
        (stage, draw.randint(1, steps[stage]))
        for stage in steps
        for _ in range(OFTEN.get(stage, 1))
        if stage in stages
    ]


def open_sends(warehouse: Path) -> int:
    """Sends on record without an outcome: what the runs that died may have had in flight."""
    ledger = warehouse / "ledger.sqlite"
    if not ledger.is_file():
        return 0
    asked = "select count(*) from attempts where outcome is null"
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return int(connection.execute(asked).fetchone()[0])


class Drill(NamedTuple):
    """A flow, and the stages in which its runs are killed: these at least, or these alone."""

    flow: str
    words: list[str]
    stages: set[str]
    seed: int
    is_all: bool = True


def drill(one: Drill, home: Path, api_url: str, server: Server | None) -> int:
    """Kills runs at drawn points, lets the last one finish, and compares with one left alone.

    Returns:
        How many runs were killed.
    """
    runs = Runs(home, api_url)
    words = ["run", one.flow, "--warehouse", str(runs.warehouse), *one.words, "--json"]
    asked = server.answers if server else dict
    try:
        known = asked()
        alone = runs.run(words)
        assert alone["code"] == 0, alone["said"]
        assert one.stages <= set(alone["steps"])
        expected, before = parquet_bytes(runs.warehouse), asked()
        # The same place again, since it is in the words: only empty.
        runs.warehouse.rename(home / "undisturbed")
        stages = set(alone["steps"]) if one.is_all else one.stages
        at = points(alone["steps"], one.seed, stages)
        n_lost = 0
        for point in at:
            killed = runs.run(words, point)
            assert killed["code"] == KILLED, (point, killed["said"])
            n_open = open_sends(runs.warehouse)
            # On the wire, or on record for the next free slot.
            assert n_open - n_lost <= 2 * IN_FLIGHT, point
            n_lost = n_open
        done = runs.run(words)
        assert done["code"] == 0, done["said"]
    finally:
        runs.close()
    assert parquet_bytes(runs.warehouse) == expected
    assert not list(runs.warehouse.glob("*/.tmp-*"))
    after = asked()
    mine = {name for name in before if before[name] > known.get(name, 0)}
    assert {name for name in after if after[name] > before.get(name, 0)} == mine
    n_again = sum(after[name] - before[name] - 1 for name in mine)
    assert n_again <= n_lost
    audited = Pref(home, api_url).run("audit", "--warehouse", str(runs.warehouse))
    assert audited.code == 0, audited.out + audited.err
    return len(at)


def sets(*settings: str) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def asking(server: Server) -> list[str]:
    models = ["--responder-model", "simulated-responder", "--judge-model", "simulated-judge"]
    return ["--llm-base-url", server.url, *models, *sets(f"calls.max_in_flight={IN_FLIGHT}")]


def test_a_run_killed_in_every_stage_ends_with_the_same_bytes_and_buys_nothing_twice(
    prefect_server: str, endpoint: Server, tmp_path: Path
) -> None:
    words = sets(
        *SMALL,
        "design.control_share=0.1",
        "evaluate.draws=1000",
        "backbone.is_trained=true",
        "backbone.steps=6",
        "backbone.batch_size=4",
        "training.checkpoint_every=2",
        "encoder.max_tokens=48",
    )
    stages = {"start", *(stage.name for stage in STAGES), "win_rates", "report"}
    one = Drill("attributes", [*asking(endpoint), *words], stages, seed=7)
    assert drill(one, tmp_path, prefect_server, endpoint) >= 30
    latest = {"artifacts": {"key": {"any_": ["tune-progress"]}}}
    (bar,) = ask(prefect_server, "artifacts/latest", latest)
    assert bar["data"] == 100.0


def test_a_run_on_prism_killed_in_its_own_stages_ends_with_the_same_bytes(
    prefect_server: str, endpoint: Server, tmp_path: Path
) -> None:
    data = write_prism(tmp_path / "prism")
    words = sets(
        "ingest.n_personas=20",
        "ingest.fill_personas=20",
        "ingest.fill_openings=24",
        "rate.min_rating=1",
        "choose.n_prompts=8",
        "design.personas_per_pair=10",
        "win.pool_size=2",
        "win.n_answers=3",
        "win.also_answers=[1]",
        "adapt.answers=[1,3]",
        "evaluate.draws=1000",
        "fit.d=2",
        "fit.steps=20",
        "calls.shard_size=20",
    )
    stages = {stage.name for stage in PRISM_STAGES} - {stage.name for stage in STAGES}
    words = ["--prism", str(data), *asking(endpoint), *words]
    one = Drill("prism", words, stages | {"check"}, seed=8, is_all=False)
    assert drill(one, tmp_path, prefect_server, endpoint) >= 6


def test_a_run_on_a_team_s_data_killed_in_every_stage_ends_with_the_same_bytes(
    prefect_server: str, tmp_path: Path
) -> None:
    data = write_own(tmp_path / "team", own_rows(15, 6), "csv")
    words = ["--data", str(data), *sets("fit.d=2", "fit.steps=40", "adapt.answers=[0,1,2]")]
    stages = {"start", *(stage.name for stage in OWN_STAGES), "report_own"}
    one = Drill("own", words, stages, seed=9)
    assert drill(one, tmp_path, prefect_server, None) >= len(stages)
