import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks._llm.engine import CompletionEngine
from tests.tasks.llm.fake_server import FakeServer, Reply, ask, completion
from warehouse.ledger import Ledger

RUN = """
import sys
from tasks._llm.engine import CompletionEngine
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings
from tests.tasks.llm.fake_server import ask
from warehouse.ledger import open_ledger
engine = CompletionEngine(
    lambda: Endpoint("fake", sys.argv[1]),
    open_ledger(sys.argv[2]),
    EngineSettings(max_in_flight=8),
    load_prices(),
)
engine.complete([ask(str(i)) for i in range(300)])
"""


def test_a_killed_run_buys_no_committed_reply_again(
    make_engine: Callable[..., CompletionEngine],
    server: FakeServer,
    ledger: Ledger,
    ledger_path: Path,
) -> None:
    server.script = lambda body, n: Reply(body=completion(), latency_s=0.02)
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, server.url, str(ledger_path)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
    )
    while len(server.bodies) < 60:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()

    requests = [ask(str(i)) for i in range(300)]
    committed = ledger.held(request.key for request in requests)
    names = [str(i) for i in range(300) if requests[i].key in committed]
    left_open = ledger.totals().unanswered_attempts
    server.script = lambda body, n: Reply(body=completion())
    engine = make_engine()
    replies = engine.complete(requests)

    assert 0 < len(committed) < 300
    assert engine.tally()[:2] == (300 - len(committed), len(committed))
    assert {server.hits[name] for name in names} == {1}
    # Sends that nobody saw the end of: on record, at most as many as fit on the wire.
    assert set(server.hits.values()) <= {1, 2}
    assert sum(server.hits.values()) - 300 <= left_open <= 16
    assert [reply.is_reused for reply in replies] == [r.key in committed for r in requests]
    check = sqlite3.connect(ledger_path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    ledger.check()
