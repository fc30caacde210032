"""Two buyers on one ledger: each key is bought once, whatever happens to one of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.engine import CompletionEngine
from tasks._llm.errors import CallInBatch
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings
from tests.tasks.llm.fake_server import FakeServer, Reply, ask, completion
from warehouse.ledger import Ledger, open_ledger
from warehouse.ledger_owner import batch_owner, is_surely_gone, new_owner
from warehouse.ledger_rows import AttemptRow

MakeEngine = Callable[..., CompletionEngine]
RUN = """
import sys
from tasks._llm.engine import CompletionEngine
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings
from tests.tasks.llm.fake_server import ask
from warehouse.ledger import open_ledger
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
with open_ledger(sys.argv[2], lease_s=float(sys.argv[4])) as ledger:
    settings = EngineSettings(max_in_flight=16)
    endpoint = Endpoint("fake", sys.argv[1])
    with CompletionEngine(lambda: endpoint, ledger, settings, load_prices()) as engine:
        replies = engine.complete([ask(str(i)) for i in range(int(sys.argv[3]))])
        tally = engine.tally()
print(tally.made, tally.reused, len({reply.text for reply in replies}))
"""


@pytest.fixture
def start(server: FakeServer, ledger_url: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    children: list[subprocess.Popen[str]] = []

    def run(n: int, lease_s: float = 20.0, *, is_held: bool = False) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, server.url, ledger_url, str(n), str(lease_s)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": "."},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        if not is_held:
            let_go(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def let_go(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def echo(body: dict[str, Any], n: int) -> Reply:
    return Reply(body=completion(body["messages"][-1]["content"]), latency_s=0.02)


def test_two_processes_on_one_ledger_buy_every_key_once(
    server: FakeServer, start: Callable[..., "subprocess.Popen[str]"], ledger_url: str
) -> None:
    server.script = echo
    children = [start(400, is_held=True), start(400, is_held=True)]
    for child in children:
        assert child.stderr is not None
        assert child.stderr.readline() == "ready\n"
    for child in children:
        let_go(child)
    outs = [child.communicate(timeout=60)[0].split() for child in children]
    assert set(server.hits.values()) == {1}
    assert len(server.hits) == 400
    made = [int(out[0]) for out in outs]
    assert sum(made) == 400
    assert [int(out[0]) + int(out[1]) for out in outs] == [400, 400]
    assert [out[2] for out in outs] == ["400", "400"]
    # They share the work rather than wait in line.
    assert min(made) > 0
    with open_ledger(ledger_url) as ledger:
        totals = ledger.totals()
        assert (totals.calls, totals.attempts, totals.unanswered_attempts) == (400, 400, 0)


def test_the_keys_of_a_killed_process_are_taken_over_at_once(
    server: FakeServer, start: Callable[..., "subprocess.Popen[str]"], ledger_url: str
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=60.0 if n == 0 else 0.0)
    winner = start(8, lease_s=600.0)
    wait_for(lambda: len(server.hits) >= 1)
    time.sleep(0.8)
    first = dict(server.hits)
    winner.send_signal(signal.SIGKILL)
    winner.wait()
    server.script = lambda body, n: echo(body, n)._replace(latency_s=0.0)
    with open_ledger(ledger_url) as ledger:
        open_sends = ledger.totals().unanswered_attempts
        replies = complete(server, ledger, 8)
        assert [reply.text for reply in replies] == [str(i) for i in range(8)]
        # What was on the wire is bought again and stays visible as a possible second bill.
        assert ledger.totals().unanswered_attempts == open_sends >= len(first)
    assert all(server.hits[name] == 2 for name in first)


def test_the_keys_of_a_process_that_stands_still_are_taken_over_when_its_claim_expires(
    server: FakeServer, start: Callable[..., "subprocess.Popen[str]"], ledger_url: str
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=1.5 if n == 0 else 0.0)
    winner = start(1, lease_s=2.0)
    wait_for(lambda: len(server.hits) == 1)
    winner.send_signal(signal.SIGSTOP)
    with open_ledger(ledger_url) as ledger:
        [reply] = complete(server, ledger, 1)
        assert reply.text == "0"
        assert server.hits["0"] == 2
        winner.send_signal(signal.SIGCONT)
        # It uses the reply that was there first, and says that it, too, has paid.
        assert winner.communicate(timeout=30)[0].split()[2] == "1"
        assert ledger.totals().calls == 1
        assert ledger.totals().attempts == 2


def test_a_claim_is_renewed_as_long_as_the_call_takes(
    server: FakeServer, start: Callable[..., "subprocess.Popen[str]"], ledger_url: str
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=2.5)
    winner = start(1, lease_s=0.8)
    wait_for(lambda: len(server.hits) == 1)
    with open_ledger(ledger_url) as ledger:
        [reply] = complete(server, ledger, 1)
        assert reply.is_reused
    assert winner.wait(30) == 0
    assert server.hits == {"0": 1}


def test_two_engines_of_one_process_and_one_ledger_buy_every_key_once(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    server.script = echo
    engines = [make_engine(max_in_flight=8) for _ in range(2)]
    threads = [
        threading.Thread(target=engine.complete, args=([ask(str(i)) for i in range(100)],))
        for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(server.hits.values()) == {1}
    assert sum(engine.tally().made for engine in engines) == 100


def test_a_run_that_stops_lets_its_keys_go(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: Reply(400, b'{"error": {"message": "no"}}')
    with pytest.raises(Exception, match="refused"):
        make_engine().complete([ask(str(i)) for i in range(5)])
    keys = [ask(str(i)).key for i in range(5)]
    assert ledger.standing(keys) == ({}, {})


def test_a_call_that_an_open_batch_holds_is_not_sent_but_told(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    attempt = AttemptRow(ledger.new_attempt_id(), ask("1").key, datetime.now(UTC))
    ledger.claim([attempt], batch_owner("b17"), 3600.0).result()
    with pytest.raises(CallInBatch, match=r"batch b17.*--mode batch.*pref batch forget b17"):
        make_engine().complete([ask("0"), ask("1")])
    assert not ledger.held([ask("1").key])
    # What was on the wire before the batch was seen is kept; the held call was never sent.
    assert ledger.totals().attempts == 1 + ledger.totals().calls


def test_an_owner_of_another_place_is_never_surely_gone() -> None:
    owner = new_owner()
    assert not is_surely_gone(owner + "/0")
    place, _, start, rest = owner.split("/")
    assert is_surely_gone(f"{place}/999999999/{start}/{rest}")
    assert is_surely_gone(f"{place}/{os.getpid()}/1/{rest}")
    assert not is_surely_gone(f"elsewhere/999999999/{start}/{rest}")
    assert not is_surely_gone("whatever")


def complete(server: FakeServer, ledger: Ledger, n: int) -> list[Any]:
    settings = EngineSettings(max_in_flight=16)
    with CompletionEngine(
        lambda: Endpoint("fake", server.url), ledger, settings, load_prices()
    ) as engine:
        return engine.complete([ask(str(i)) for i in range(n)])


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)
