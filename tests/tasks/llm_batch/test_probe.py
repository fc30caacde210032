"""A probe tells apart what is honored, what is passed over, and what is refused."""

import json
from typing import Any

import pytest

from prompts.verdict import VerdictMenu
from tasks._llm.errors import AuthenticationRejected, EndpointUnreachable, ModelUnknown
from tasks._llm.probe import probe
from tasks._llm.probe_types import ABILITIES, AbilityMissing, Standing
from tasks._llm.simulator.process import SimulatorProcess
from tasks._llm.types import Endpoint, Secret
from tests.tasks.llm.fake_server import FakeServer, Reply, completion
from tests.tasks.llm_batch.conftest import KEY, StartSimulator, served

H, IGNORED, R, U = Standing.HONORED, Standing.IGNORED, Standing.REFUSED, Standing.UNCLEAR


def ask(process: SimulatorProcess, model: str = "simulated-judge", **more: Any) -> Any:
    return probe(Endpoint("simulated", process.base_url, Secret(KEY)), model, **more)


def test_the_simulator_honors_all_but_response_format(start: StartSimulator) -> None:
    process = start(is_counting=True, sloppy_rate=0, off_menu_rate=0)
    result = ask(process)
    assert tuple(one.name for one in result.findings) == ABILITIES
    lacking = {one.name for one in result.findings if one.standing is not H}
    # The judge says the same about anything that is no pair of responses.
    assert lacking == {"response_format", "seed"}
    assert result.standing("response_format") is IGNORED
    assert result.standing("seed") is U
    assert result.shutdown_date is None
    assert result.n_calls == served(process)["requests"] == 11
    assert "VERDICT" in dict((one.name, one.evidence) for one in result.findings)["judge_parses"]


def test_a_seed_is_honored_where_it_decides_between_texts(start: StartSimulator) -> None:
    result = ask(start(quirks={"has_json_mode": True}), "simulated-responder")
    assert result.standing("seed") is H
    assert result.standing("repeatable") is H
    assert result.standing("response_format") is H


def test_what_is_passed_over_in_silence_is_found_out(start: StartSimulator) -> None:
    ignores = ["logprobs", "n", "seed", "temperature", "usage", "rate_headers", "batch", "models"]
    quirks = {"ignores": ignores, "shutdown_date": "2027-01-14"}
    result = ask(start(quirks=quirks), "simulated-responder")
    for name in ("logprobs", "verdict_logprobs", "n", "seed", "repeatable", "usage"):
        assert result.standing(name) is IGNORED, name
    assert result.standing("rate_headers") is IGNORED
    assert result.standing("batch") is R
    assert result.standing("models") is R
    assert result.standing("judge_parses") is IGNORED


def test_a_run_that_needs_what_is_lacking_is_refused_in_one_line(start: StartSimulator) -> None:
    process = start(quirks={"ignores": ["logprobs"]}, sloppy_rate=0, off_menu_rate=0)
    result = ask(process)
    result.require(["judge_parses", "usage", "batch"])
    with pytest.raises(AbilityMissing, match="logprobs is ignored") as caught:
        result.require(["judge_parses", "logprobs"])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_the_shutdown_date_of_the_model_is_told(start: StartSimulator) -> None:
    result = ask(start(quirks={"shutdown_date": "2027-01-14"}))
    assert result.shutdown_date == "2027-01-14"
    assert any("2027-01-14" in line for line in result.lines())
    assert json.loads(json.dumps(result.as_json()))["shutdown_date"] == "2027-01-14"


def test_another_menu_is_parsed_by(start: StartSimulator) -> None:
    menu = VerdictMenu("VERDICT", ("A", "B"))
    assert ask(start(), menu=menu).standing("judge_parses") is IGNORED


def test_passing_faults_do_not_spoil_a_probe(start: StartSimulator) -> None:
    faults = {"status_500": 1.0, "most_per_request": 1}
    result = ask(start(faults=faults, sloppy_rate=0, off_menu_rate=0))
    assert result.standing("judge_parses") is H
    assert result.standing("logprobs") is H


def test_an_endpoint_that_cannot_be_probed_says_why(start: StartSimulator) -> None:
    process = start()
    with pytest.raises(ModelUnknown):
        ask(process, "gpt-4o")
    with pytest.raises(AuthenticationRejected) as caught:
        probe(Endpoint("simulated", process.base_url, Secret("another key")), "simulated-judge")
    assert "another key" not in str(caught.value)
    process.stop()
    with pytest.raises(EndpointUnreachable):
        ask(process)


def test_hostile_replies_reach_no_terminal(start: StartSimulator) -> None:
    server = FakeServer()
    try:
        server.script = lambda body, n: Reply(
            body=completion("\x1b[2J\x07<script>\u202e" + "x" * 5000),
            headers={"x-ratelimit-limit-requests": "1"},
        )
        result = probe(Endpoint("fake", server.url, Secret(KEY)), "m")
    finally:
        server.stop()
    for line in result.lines():
        assert line.isprintable()
        assert len(line) < 300
        assert KEY not in line
    # Everything is answered with 200 and one text: most of it must count as passed over.
    assert result.standing("n") is IGNORED
    assert result.standing("logprobs") is IGNORED
    assert result.standing("response_format") is IGNORED
    assert result.standing("max_tokens") is IGNORED
    assert result.standing("seed") is U
