"""`pref probe`, and runs that are refused because the endpoint lacks what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tests.flows.conftest import Pref

pytestmark = pytest.mark.slow


@pytest.fixture
def silent() -> Iterator[SimulatorProcess]:
    """An endpoint that passes over a request for log probabilities without a word."""
    quirks: Any = {"ignores": ["logprobs"]}
    process = start_simulator(SimulatorSettings(quirks=quirks))
    yield process
    process.stop()


def test_a_probe_tells_what_is_ignored(pref_without_server: Pref, silent: SimulatorProcess) -> None:
    done = pref_without_server.run("probe", silent.base_url, "--model", "simulated-judge", "--json")
    abilities = json.loads(done.out)["abilities"]
    assert abilities["logprobs"]["standing"] == "ignored"
    assert abilities["judge_parses"]["standing"] == "honored"
    assert abilities["batch"]["standing"] == "honored"
    lines = pref_without_server.run("probe", silent.base_url, "--model", "simulated-judge").out
    assert "logprobs" in lines


def test_a_soft_run_is_refused_before_it_buys_where_log_probabilities_are_ignored(
    pref: Pref, tmp_path: Path, silent: SimulatorProcess
) -> None:
    done = pref.attributes(
        tmp_path / "data", "--llm-base-url", silent.base_url, "--set", "judge.is_soft=true"
    )
    assert done.code == 2
    assert "verdict_logprobs is ignored" in done.line
    assert not list((tmp_path / "data").glob("responses/version=*"))


def test_soft_verdicts_reach_the_matrix_as_probabilities(pref: Pref, tmp_path: Path) -> None:
    done = pref.attributes(tmp_path / "data", "--set", "judge.is_soft=true")
    assert done.code == 0, done.err
    query = (
        "select prob_origin, count(*) n, min(prefers_a_prob) low, max(prefers_a_prob) high"
        " from judgments group by 1 order by 1"
    )
    rows = json.loads(pref.run("sql", query, "--warehouse", str(tmp_path / "data"), "--json").out)
    by_origin = {row["prob_origin"]: row for row in rows}
    assert by_origin["logprobs"]["n"] > 400
    assert 0 < by_origin["logprobs"]["low"] < by_origin["logprobs"]["high"] < 1
