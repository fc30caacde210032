"""Twenty thousand judge calls through the engine, a fifth of the sends spoiled."""

import json
import sqlite3
import threading
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prompts.catalog import load_template
from prompts.verdict import parse_verdict
from tasks._llm.engine import CompletionEngine
from tasks._llm.errors import QuotaExhausted
from tasks._llm.prices import load_prices
from tasks._llm.replies import Answer, read_reply
from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.server import reply_body
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallRequest, Endpoint, EngineSettings
from warehouse.ledger import Ledger, open_ledger

N_CALLS = 20_000
SHARD_CALLS = 200
THREADS = 4
# A fifth of all sends brings no answer; a few more bring one in an odd shape.
FAULTS: dict[str, Any] = {
    "seed": 5,
    "hang_s": 8.0,
    "huge_bytes": 100_000,
    "retry_after_s": 0.05,
    "rate_limited_s": 0.005,
    "rate_limited_ms": 0.005,
    "rate_limited_bare": 0.005,
    "status_500": 0.005,
    "status_502": 0.02,
    "status_503": 0.02,
    "reset": 0.035,
    # Rightly ends a run; the next one goes on where it stopped.
    "quota": 0.0002,
    "hang": 0.002,
    "slow_body": 0.002,
    "truncated_json": 0.02,
    "cut_body": 0.031,
    "html": 0.02,
    "garbage": 0.015,
    "no_choices": 0.015,
    "no_usage": 0.01,
    "huge": 0.005,
    "bad_utf8": 0.005,
}

_NO_FAULTS = {"seed", "retry_after_s", "hang_s", "huge_bytes"}
_STILL_ANSWERS = {"no_usage", "huge", "bad_utf8"}


def requests() -> list[CallRequest]:
    template = load_template("judge_attributes")
    return [
        CallRequest(
            "simulated",
            "simulated-judge",
            template.render(
                persona="likes polite and concise answers",
                prompt=f"Question {i}",
                response_1=f"Thank you for question {i}. Gladly.",
                response_2=f"{i}? Look it up, there is plenty to read about it.",
            ),
            {"temperature": 0, "max_tokens": 16},
        )
        for i in range(N_CALLS)
    ]


def served(process: SimulatorProcess) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{process.port}/simulator/served") as reply:
        counts: dict[str, Any] = json.loads(reply.read())
        return counts


def run(url: str, ledger: Ledger, wanted: list[CallRequest]) -> tuple[dict[str, str | None], int]:
    """One run from several threads, which may end early for lack of quota.

    Returns:
        Texts by key of the shards that were finished, and how many replies were bought.
    """
    texts: dict[str, str | None] = {}
    errors: list[BaseException] = []
    settings = EngineSettings(timeout_s=4.0, backoff_s=0.02, backoff_cap_s=0.5, max_in_flight=64)
    with CompletionEngine(
        lambda: Endpoint("simulated", url), ledger, settings, load_prices()
    ) as engine:

        def work(first: int) -> None:
            try:
                for start in range(first * SHARD_CALLS, N_CALLS, THREADS * SHARD_CALLS):
                    shard = wanted[start : start + SHARD_CALLS]
                    for request, reply in zip(shard, engine.complete(shard), strict=True):
                        assert reply.key == request.key
                        texts[reply.key] = reply.text
            except QuotaExhausted:
                pass
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        return texts, engine.tally().made


@pytest.mark.slow
def test_a_fifth_of_faults_changes_no_judgment_and_leaves_every_key_once(tmp_path: Path) -> None:
    settings = SimulatorSettings.from_mapping({"seed": 7, "faults": FAULTS})
    wanted = requests()
    bought = n_runs = 0
    texts: dict[str, str | None] = {}
    with start_simulator(settings) as process, open_ledger(tmp_path / "calls.sqlite") as ledger:
        while len(texts) < N_CALLS:
            n_runs += 1
            assert n_runs < 30
            found, made = run(process.base_url, ledger, wanted)
            texts.update(found)
            bought += made
        counts = served(process)
        totals = ledger.totals()
        stored = sorted(call.reply.request_key for call in ledger.iter_calls())
        ledger.check()
    with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as connection:
        query = "SELECT count(*) FROM attempts WHERE outcome <> 'not_sent'"
        (n_sends,) = connection.execute(query).fetchone()

    assert stored == sorted({request.key for request in wanted})
    assert len(stored) == len(texts) == N_CALLS == bought
    menu = load_template("judge_attributes").menu
    assert menu is not None
    for request in wanted:
        clean = read_reply(200, reply_body(request.body(), settings, "")[1])
        assert isinstance(clean, Answer)
        assert texts[request.key] == clean.text
        verdict = parse_verdict(clean.text or "", menu)
        assert parse_verdict(texts[request.key] or "", menu) == verdict
    # Every send is on record, and each of them ended one way or the other.
    assert n_sends == counts["requests"]
    assert totals.unanswered_attempts == 0
    assert set(counts["faults"]) == set(FAULTS) - _NO_FAULTS
    assert 1 < n_runs <= 1 + counts["faults"]["quota"]
    spoiled = sum(n for fault, n in counts["faults"].items() if fault not in _STILL_ANSWERS)
    assert spoiled / counts["requests"] == pytest.approx(0.2, abs=0.01)
