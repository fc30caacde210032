import socket
import sqlite3
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.engine import CompletionEngine
from tasks._llm.errors import (
    AuthenticationRejected,
    CallFailed,
    EndpointUnreachable,
    LlmError,
    ModelUnknown,
    QuotaExhausted,
)
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings
from tests.tasks.llm.fake_server import (
    PLANTED_KEY,
    FakeServer,
    Reply,
    ask,
    completion,
    error_body,
)
from warehouse.ledger import Ledger, open_ledger
from warehouse.ledger_errors import LedgerError

MakeEngine = Callable[..., CompletionEngine]


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        (Reply(429, error_body("slow"), {"retry-after-ms": "5"}), "rate_limited"),
        (Reply(429, b""), "rate_limited"),
        (Reply(500, b"oops"), "server_error"),
        (Reply(503, b"", {"retry-after": "0.01"}), "server_error"),
        (Reply(408, b""), "server_error"),
        (Reply(200, completion()[:-20]), "not_json"),
        (Reply(200, b"<html>gateway</html>", {"content-type": "text/html"}), "not_json"),
        (Reply(200, completion(choices=[])), "no_choices"),
        (Reply(trick="drop"), "connection_lost"),
        (Reply(trick="reset"), "connection_lost"),
        (Reply(200, b"\x00\x1b[2J\x07" * 50), "not_json"),
        (Reply(200, b"\xff\xfe\xfa" * 50), "not_json"),
        (Reply(200, b""), "not_json"),
        (Reply(200, b'{"error": {"message": "upstream"}}'), "no_choices"),
        (Reply(529, b"overloaded"), "server_error"),
        (Reply(200, completion(), trick="half"), "connection_lost"),
        (Reply(200, completion(), trick="drip"), "timeout"),
        (Reply(200, completion(), latency_s=3.0), "timeout"),
        (Reply(200, b"not gzip", {"content-encoding": "gzip"}), "connection_lost"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.status}{value.trick}",
)
def test_passing_faults_are_retried_and_recorded(
    make_engine: MakeEngine, server: FakeServer, ledger_path: Path, first: Reply, fault: str
) -> None:
    server.script = lambda body, n: first if n == 0 else Reply(body=completion())
    engine = make_engine(timeout_s=0.4 if fault == "timeout" else 5.0)
    [reply] = engine.complete([ask("x")])
    engine.close()
    assert reply.text == "VERDICT: 1"
    assert engine.tally().retries == 1
    assert rows(ledger_path, "SELECT outcome, fault FROM attempts ORDER BY id") == [
        ("fault", fault),
        ("reply", None),
    ]


@pytest.mark.parametrize(
    ("reply", "error", "exit_code"),
    [
        (Reply(429, error_body("no credit", "insufficient_quota")), QuotaExhausted, 1),
        (Reply(402, error_body("pay")), QuotaExhausted, 1),
        (Reply(401, error_body(f"bad key {PLANTED_KEY}")), AuthenticationRejected, 2),
        (Reply(403, error_body("not allowed")), AuthenticationRejected, 2),
        (Reply(404, error_body("model gpt-4o-mini not found")), ModelUnknown, 2),
        (Reply(404, b"<h1>404</h1>"), EndpointUnreachable, 2),
        (Reply(307, b"", {"location": "http://127.0.0.1:9/"}), EndpointUnreachable, 2),
        (Reply(400, error_body("bad\x1b[2J\n field" + "!" * 10_000)), CallFailed, 1),
    ],
    ids=lambda value: f"{value.status}" if isinstance(value, Reply) else None,
)
def test_lasting_faults_stop_the_run_at_once_with_one_line(
    make_engine: MakeEngine,
    server: FakeServer,
    reply: Reply,
    error: type[LlmError],
    exit_code: int,
) -> None:
    server.script = lambda body, n: reply
    engine = make_engine()
    with pytest.raises(error) as caught:
        engine.complete([ask(str(i)) for i in range(50)])
    line = str(caught.value)
    assert caught.value.exit_code == exit_code
    assert len(server.bodies) == 1
    assert line.isprintable()
    assert len(line) < 700
    assert server.url in line
    assert "gpt-4o-mini" in line
    assert "PLANTED" not in line.upper()
    with pytest.raises(error):
        engine.complete([ask("another")])
    assert len(server.bodies) == 1


def test_what_is_on_the_wire_when_the_run_stops_is_kept(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    def script(body: dict[str, Any], n: int) -> Reply:
        if len(server.bodies) == 8:
            return Reply(401, error_body("revoked"))
        return Reply(body=completion(), latency_s=0.1)

    server.script = script
    engine = make_engine(max_in_flight=4)
    failed: list[BaseException] = []

    def other_caller() -> None:
        try:
            engine.complete([ask(str(i)) for i in range(100, 150)])
        except AuthenticationRejected as error:
            failed.append(error)

    other = threading.Thread(target=other_caller)
    other.start()
    with pytest.raises(AuthenticationRejected) as caught:
        engine.complete([ask(str(i)) for i in range(50)])
    other.join()
    assert len(failed) == 1
    assert failed[0] is not caught.value
    totals = ledger.totals()
    assert totals.calls == len(server.bodies) - 1
    assert totals.unanswered_attempts == 0


def test_a_call_that_keeps_failing_ends_the_run_after_its_attempts(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    def script(body: dict[str, Any], n: int) -> Reply:
        is_bad = body["messages"][-1]["content"] == "5"
        return Reply(500, b"boom") if is_bad else Reply(body=completion())

    server.script = script
    with pytest.raises(CallFailed, match="after 3 sends"):
        make_engine(max_attempts=3).complete([ask(str(i)) for i in range(10)])
    assert server.hits["5"] == 3
    assert ledger.totals().calls == len(server.hits) - 1


def test_rate_limits_do_not_use_up_attempts_but_patience(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    limit = Reply(429, error_body("slow"), {"retry-after-ms": "1"})
    server.script = lambda body, n: limit if n < 12 else Reply(body=completion())
    assert make_engine(max_attempts=2).complete([ask("x")])[0].text == "VERDICT: 1"
    server.script = lambda body, n: Reply(429, b"", {"retry-after": "3600"})
    with pytest.raises(CallFailed, match="rate_limited"):
        make_engine().complete([ask("y")])
    assert server.hits["y"] == 1


def test_a_stated_pause_holds_for_all_calls(make_engine: MakeEngine, server: FakeServer) -> None:
    stamps: dict[str, list[float]] = {}

    def script(body: dict[str, Any], n: int) -> Reply:
        name = body["messages"][-1]["content"]
        stamps.setdefault(name, []).append(server._loop.time())
        if name == "0" and n == 0:
            return Reply(429, b"", {"retry-after": "0.5"})
        return Reply(body=completion())

    server.script = script
    make_engine(max_in_flight=1).complete([ask(str(i)) for i in range(5)])
    refused = stamps["0"][0]
    assert min(stamps[str(i)][-1] for i in range(5)) >= refused + 0.45


def test_a_content_filter_is_stored_like_any_answer(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: Reply(400, error_body("filtered", "content_filter"))
    [first] = make_engine().complete([ask("x")])
    [second] = make_engine().complete([ask("x")])
    assert (first.status, first.text, first.finish_reason) == (400, None, "content_filter")
    assert second == first._replace(is_reused=True)
    assert len(server.bodies) == ledger.totals().calls == 1


@pytest.mark.parametrize("fault", ["unreachable", "name_unknown"])
def test_an_unreachable_endpoint_is_told_within_seconds(
    make_engine: MakeEngine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def no_such_host(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    host = "127.0.0.1" if fault == "unreachable" else "model.invalid"
    if fault == "name_unknown":
        monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    url = f"http://{host}:{port}/v1"
    with pytest.raises(EndpointUnreachable, match=fault) as caught:
        make_engine(url=url).complete([ask(str(i)) for i in range(100)])
    assert caught.value.exit_code == 2
    assert url in str(caught.value)
    assert str(caught.value).isprintable()
    assert ledger.totals().attempts == 3


def test_a_failing_ledger_stops_the_run(server: FakeServer, ledger_path: Path) -> None:
    with (
        open_ledger(ledger_path, busy_timeout_s=0.2) as ledger,
        CompletionEngine(
            lambda: Endpoint("fake", server.url), ledger, EngineSettings(), load_prices()
        ) as engine,
    ):
        lock = sqlite3.connect(ledger_path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process holds it"):
            engine.complete([ask(str(i)) for i in range(20)])
        lock.close()
    assert server.bodies == []


def test_the_key_is_sent_and_appears_nowhere_else(
    make_engine: MakeEngine,
    server: FakeServer,
    ledger: Ledger,
    ledger_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")

    def script(body: dict[str, Any], n: int) -> Reply:
        name = body["messages"][-1]["content"]
        echoed = f"you sent {PLANTED_KEY}"
        if name == "answer":
            return Reply(body=completion(echoed))
        if name == "filter":
            return Reply(400, error_body(echoed, "content_filter"))
        return Reply(500 if n == 0 else 400, error_body(echoed))

    server.script = script
    engine = make_engine()
    replies = engine.complete([ask("answer"), ask("filter")])
    with pytest.raises(CallFailed) as caught:
        engine.complete([ask("fault")])
    engine.close()
    assert server.headers[0]["Authorization"] == f"Bearer {PLANTED_KEY}"
    told = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    kept = b"".join(call.request + call.reply.body for call in ledger.iter_calls())
    ledger.close()
    raw = b"".join(path.read_bytes() for path in ledger_path.parent.iterdir())
    assert "[secret]" in str(caught.value)
    assert replies[0].text == "you sent [secret]"
    for text in (told, repr(replies), caplog.text, kept.decode(), raw.decode("latin-1")):
        assert PLANTED_KEY not in text


def test_a_reply_of_50_mb_is_kept_whole_and_shown_short(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    large = completion("\x1b[2J" + "x" * 50_000_000)
    server.script = lambda body, n: Reply(body=large)
    [reply] = make_engine(timeout_s=60.0).complete([ask("x")])
    assert reply.body == large
    assert reply.text is not None
    assert len(reply.text) > 50_000_000
    assert ledger.lookup([reply.key])[reply.key].body == large


def test_an_error_of_50_mb_is_one_short_line(make_engine: MakeEngine, server: FakeServer) -> None:
    server.script = lambda body, n: Reply(400, b"<b>\x1b[31m\xff" + b"y" * 50_000_000)
    with pytest.raises(CallFailed) as caught:
        make_engine(timeout_s=60.0).complete([ask("x")])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_odd_bytes_in_an_answer_are_read_and_kept_as_they_came(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    odd = completion("VERDICT: 1").replace(b"VERDICT", b"\xff\x07VERDICT")
    server.script = lambda body, n: Reply(body=odd)
    [reply] = make_engine().complete([ask("x")])
    assert reply.text == "\ufffd\x07VERDICT: 1"
    assert reply.body == odd


def test_a_run_stops_when_its_retries_are_used_up(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: Reply(500, b"no") if n < 2 else Reply(body=completion())
    with pytest.raises(CallFailed, match="Retry budget of the run") as caught:
        make_engine(run_retries=20, run_retry_share=0.1).complete([ask(str(i)) for i in range(200)])
    assert str(caught.value).isprintable()
    assert "server_error" in str(caught.value)
    totals = ledger.totals()
    assert 20 < totals.attempts < 200
    assert totals.unanswered_attempts == 0


def test_a_fifth_of_faults_is_borne_and_every_key_is_answered_once(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    faults = [
        Reply(429, b"", {"retry-after-ms": "5"}),
        Reply(500, b"oops"),
        Reply(trick="reset"),
        Reply(200, b"<html>"),
        Reply(200, completion(), trick="half"),
    ]

    def script(body: dict[str, Any], n: int) -> Reply:
        draw = hash((body["messages"][-1]["content"], n, 7)) % 25
        text = body["messages"][-1]["content"]
        return faults[draw] if draw < 5 else Reply(body=completion(text))

    server.script = script
    texts = [str(i) for i in range(400)]
    replies = make_engine().complete([ask(text) for text in texts])
    assert [reply.text for reply in replies] == texts
    assert ledger.totals().calls == 400
    assert ledger.totals().unanswered_attempts == 0


def test_a_server_with_a_limit_is_used_nearly_fully(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    """The whole engine; the exact bounds are measured by benchmarks/engine.py."""
    stamps: deque[float] = deque()

    def script(body: dict[str, Any], n: int) -> Reply:
        now_s = server._loop.time()
        while stamps and now_s - stamps[0] >= 1.0:
            stamps.popleft()
        if len(stamps) >= 40:
            return Reply(429, error_body("slow down"))
        stamps.append(now_s)
        return Reply(body=completion())

    server.script = script
    start_s = time.monotonic()
    make_engine(backoff_s=0.5, max_in_flight=32).complete([ask(str(i)) for i in range(400)])
    goodput = 400 / (time.monotonic() - start_s)
    assert goodput > 0.5 * 40
    assert ledger.totals().attempts - 400 < 0.3 * 400
