"""Batch mode from the command line, against a simulator that plays a provider."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tests.flows.conftest import Finished, Pref, attributes_words, parquet_bytes

pytestmark = pytest.mark.slow

KEY = "sk-planted-batch-0123456789abcdef"
# Batches expire, lose lines and fail lines; their answers come in an order of their own.
TROUBLE = {
    "duration_s": 0.3,
    "seed": 3,
    "expire_share": 0.3,
    "line_error_share": 0.05,
    "missing_share": 0.05,
}


def provider(**batch: Any) -> SimulatorProcess:
    return start_simulator(SimulatorSettings(seed=5, api_key=KEY, is_counting=True, batch=batch))  # type: ignore[arg-type]


def served(process: SimulatorProcess) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}/simulator/served",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    with opener.open(request) as reply:
        return dict(json.loads(reply.read()))


class Team:
    """One warehouse, one key, one provider."""

    def __init__(self, home: Path, server: str, process: SimulatorProcess) -> None:
        self.pref = Pref(home, server)
        self.pref.env["OPENAI_API_KEY"] = KEY
        self.warehouse = home / "data"
        self.words = ("--llm-base-url", process.base_url, "--set", "calls.batch_poll_s=0.2")

    def run(self, *words: str) -> Finished:
        return self.pref.attributes(self.warehouse, *self.words, *words)

    def batch(self, *words: str) -> Finished:
        return self.pref.run("batch", *words, "--warehouse", str(self.warehouse))

    def listed(self) -> list[dict[str, Any]]:
        return list(json.loads(self.batch("list", "--json").out))


@pytest.fixture(scope="module")
def troubled() -> Iterator[SimulatorProcess]:
    process = provider(**TROUBLE)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def in_batches(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory, troubled: SimulatorProcess
) -> tuple[Team, Finished, dict[str, Any]]:
    team = Team(tmp_path_factory.mktemp("batches"), prefect_server, troubled)
    done = team.run("--mode", "batch")
    assert done.code == 0, done.err
    return team, done, served(troubled)


def test_batches_give_the_very_datasets_that_single_calls_give(
    in_batches: tuple[Team, Finished, dict[str, Any]],
    prefect_server: str,
    tmp_path: Path,
    troubled: SimulatorProcess,
) -> None:
    team, done, _ = in_batches
    alone = Team(tmp_path, prefect_server, troubled)
    single = alone.run()
    assert single.code == 0, single.err
    assert done.found["datasets"] | {"report": ""} == single.found["datasets"] | {"report": ""}
    assert done.found["calls_made"] == single.found["calls_made"]
    mine, theirs = parquet_bytes(team.warehouse), parquet_bytes(alone.warehouse)
    same = {name for name in theirs if not name.startswith("report/")}
    assert same
    assert {name: mine[name] for name in same} == {name: theirs[name] for name in same}


def test_no_call_of_a_batch_run_was_answered_twice(
    in_batches: tuple[Team, Finished, dict[str, Any]],
) -> None:
    _, done, counts = in_batches
    assert answered_twice(counts) == 0
    # One more: whether the endpoint has batches is asked before anything depends on it.
    assert len(counts["calls"]) == done.found["calls_made"] + 1
    assert sum(counts["batch_lines"].values()) > done.found["calls_made"]


def test_after_a_batch_run_a_single_run_buys_nothing(
    in_batches: tuple[Team, Finished, dict[str, Any]],
) -> None:
    team, done, _ = in_batches
    again = team.run()
    assert again.found["calls_made"] == 0
    assert again.found["calls_reused"] == done.found["calls_made"]
    assert all(not one["is_open"] for one in team.listed())


def test_a_killed_batch_run_is_collected_and_never_sent_again(
    in_batches: tuple[Team, Finished, dict[str, Any]], prefect_server: str, tmp_path: Path
) -> None:
    _, done, _ = in_batches
    process = provider(duration_s=4.0)
    try:
        team = Team(tmp_path, prefect_server, process)
        words = attributes_words(team.warehouse, *team.words, "--mode", "batch")
        run = team.pref.start(*words)
        wait_for_lines(process, run, 400)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        open_ = [one for one in team.listed() if one["is_open"]]
        assert [one["calls"] for one in open_] == [480]
        single = team.run()
        assert single.code == 2
        assert "--mode batch" in single.line
        assert "batch forget" in single.line
        finished = team.run("--mode", "batch")
        assert finished.code == 0, finished.err
        counts = served(process)
        # The same probe came before both runs.
        assert answered_twice(counts) == 1
        assert set(counts["batch_lines"].values()) == {1}
        assert finished.found["calls_made"] == done.found["calls_made"] - 24
    finally:
        process.stop()


def test_a_cancelled_batch_keeps_what_it_finished_and_frees_the_rest(
    prefect_server: str, tmp_path: Path
) -> None:
    process = provider(duration_s=25.0)
    try:
        team = Team(tmp_path, prefect_server, process)
        run = team.pref.start(*attributes_words(team.warehouse, *team.words, "--mode", "batch"))
        wait_for_lines(process, run, 24)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)
        assert run.returncode == 1
        [batch] = [one["batch"] for one in team.listed() if one["is_open"]]
        cancelled = team.batch("cancel", batch)
        assert "cancel" in cancelled.out, cancelled.err
        for _ in range(30):
            # The endpoint says "cancelling" for a while.
            collected = team.batch("collect")
            assert collected.code == 0, collected.err
            if not any(one["is_open"] for one in team.listed()):
                break
        assert team.batch("forget", batch).code == 0
        # Nothing holds the calls any more: they may be bought one by one.
        assert team.run().code == 0
        assert answered_twice(served(process)) == 0
        unknown = team.batch("cancel", "no-such-batch")
        assert unknown.code == 2
        assert "pref batch list" in unknown.line
    finally:
        process.stop()


def answered_twice(counts: dict[str, Any]) -> int:
    """Requests that were answered, and hence paid for, more than once."""
    return sum(answers > 1 for _, answers in counts["calls"].values())


def wait_for_lines(process: SimulatorProcess, run: Any, n_lines: int) -> None:
    """Waits until a batch with so many lines more than the first stage's is at the endpoint."""
    for _ in range(1500):
        counts = served(process)
        if len(counts["batch_lines"]) >= n_lines:
            return
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    raise AssertionError("no batch was sent")
