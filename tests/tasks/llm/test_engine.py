import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.engine import CompletionEngine
from tasks._llm.errors import BudgetReached, EngineStopped, PriceUnknown, RequestInvalid
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings, Progress
from tests.tasks.llm.fake_server import FakeServer, Reply, ask, completion
from warehouse.ledger import Ledger, open_ledger

MakeEngine = Callable[..., CompletionEngine]
COST_USD = (1000 * 0.15 + 10 * 0.60) / 1e6


def echo(body: dict[str, Any], n: int) -> Reply:
    return Reply(body=completion(body["messages"][-1]["content"]))


def test_replies_keep_the_order_of_the_requests(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(
        latency_s=0.03 * (int(body["messages"][-1]["content"]) % 3)
    )
    texts = [str(i) for i in range(30)]
    replies = make_engine().complete([ask(text) for text in texts])
    assert [reply.text for reply in replies] == texts
    assert [reply.key for reply in replies] == [ask(text).key for text in texts]
    assert make_engine().complete([]) == []


def test_what_is_sent_is_the_request_and_what_is_kept_is_the_raw_reply(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: Reply(body=completion("hello \u00e9") + b"  ")
    request = ask("x", repeat=3)
    [reply] = make_engine().complete([request])
    [call] = ledger.iter_calls()
    assert server.bodies[0] == {
        "model": "gpt-4o-mini",
        "messages": list(request.messages),
        "temperature": 0,
        "max_tokens": 16,
    }
    assert call.request == request.identity()
    assert call.reply.body == reply.body == completion("hello \u00e9") + b"  "
    assert (reply.text, reply.finish_reason, reply.is_reused) == ("hello \u00e9", "stop", False)
    assert reply.cost_usd == pytest.approx(COST_USD)


def test_a_rerun_makes_no_call_and_never_asks_for_the_endpoint(
    make_engine: MakeEngine, server: FakeServer, ledger_path: Path
) -> None:
    requests = [ask(str(i)) for i in range(5)]
    first = make_engine().complete(requests)

    def no_endpoint() -> Endpoint:
        raise AssertionError("the endpoint was asked for")

    with (
        open_ledger(ledger_path) as other,
        CompletionEngine(no_endpoint, other, EngineSettings(), load_prices()) as engine,
    ):
        second = engine.complete(requests)
        tally = engine.tally()
    assert len(server.bodies) == 5
    assert second == [reply._replace(is_reused=True) for reply in first]
    assert (tally.made, tally.reused, tally.cost_usd) == (0, 5, 0.0)
    assert tally.reused_cost_usd == pytest.approx(5 * COST_USD)


def test_duplicates_in_a_batch_are_bought_once(make_engine: MakeEngine, server: FakeServer) -> None:
    engine = make_engine()
    replies = engine.complete([ask("a"), ask("b"), ask("a"), ask("a")])
    assert server.hits == {"a": 1, "b": 1}
    assert [reply.is_reused for reply in replies] == [False, False, True, True]
    tally = engine.tally()
    assert tally[:4] == (2, 2, 2000, 20)
    assert (tally.cost_usd, tally.reused_cost_usd) == pytest.approx((2 * COST_USD, 2 * COST_USD))
    assert (tally.retries, tally.unpriced) == (0, 0)


def test_duplicates_across_threads_are_bought_once(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=0.05)
    engine = make_engine(max_in_flight=3)
    results: list[bool] = []

    def work(shift: int) -> None:
        texts = [str((i + shift) % 20) for i in range(20)]
        replies = engine.complete([ask(text) for text in texts])
        results.append([reply.text for reply in replies] == texts)

    threads = [threading.Thread(target=work, args=(7 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results)
    assert len(results) == 4
    assert set(server.hits.values()) == {1}
    assert server.most_in_flight <= 3
    assert engine.tally()[:2] == (20, 60)


def test_a_send_is_on_record_before_it_leaves(
    make_engine: MakeEngine, server: FakeServer, ledger_path: Path
) -> None:
    lock = sqlite3.connect(ledger_path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    worker = threading.Thread(target=make_engine().complete, args=([ask("x")],))
    worker.start()
    worker.join(0.3)
    assert server.bodies == []
    lock.execute("COMMIT")
    worker.join()
    assert len(server.bodies) == 1
    lock.close()


def test_a_reply_is_committed_before_it_is_returned(
    make_engine: MakeEngine, server: FakeServer, ledger_path: Path
) -> None:
    lock = sqlite3.connect(ledger_path, isolation_level=None, check_same_thread=False)

    def lock_then_answer(body: dict[str, Any], n: int) -> Reply:
        lock.execute("BEGIN IMMEDIATE")
        return echo(body, n)

    server.script = lock_then_answer
    worker = threading.Thread(target=make_engine().complete, args=([ask("x")],))
    worker.start()
    worker.join(0.4)
    assert len(server.bodies) == 1
    assert worker.is_alive()
    lock.execute("COMMIT")
    worker.join()
    assert lock.execute("SELECT count(*) FROM calls").fetchone() == (1,)
    lock.close()


def test_a_send_that_never_came_back_stays_visible(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: Reply(body=completion(), latency_s=30)
    engine = make_engine(drain_s=0.1, timeout_s=60)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            engine.complete([ask("x")])
        except EngineStopped as error:
            caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while not server.bodies:
        time.sleep(0.01)
    engine.close()
    worker.join()
    assert len(caught) == 1
    totals = ledger.totals()
    assert (totals.calls, totals.attempts, totals.unanswered_attempts) == (0, 1, 1)


def test_an_interrupted_caller_keeps_what_is_on_the_wire_and_buys_no_more(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=0.15)

    def interrupt(progress: Progress) -> None:
        if progress.made:
            raise KeyboardInterrupt

    engine = make_engine(max_in_flight=2, on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.complete([ask(str(i)) for i in range(50)])
    bought = len(server.bodies)
    assert 0 < bought < 50
    assert ledger.totals().calls == bought
    assert ledger.totals().unanswered_attempts == 0
    engine._on_progress = None
    engine.complete([ask(str(i)) for i in range(10)])
    assert set(server.hits.values()) == {1}


def test_progress_counts_up_to_the_total(make_engine: MakeEngine, server: FakeServer) -> None:
    server.script = lambda body, n: echo(body, n)._replace(latency_s=0.1)
    seen: list[Progress] = []
    engine = make_engine(max_in_flight=2, on_progress=seen.append)
    engine.complete([ask(str(i)) for i in range(10)])
    engine.complete([ask(str(i)) for i in range(12)])
    assert seen == sorted(seen, key=lambda progress: progress.done)
    assert seen[-1][:4] == (22, 22, 12, 10)
    assert seen[-1].cost_usd == pytest.approx(12 * COST_USD)
    assert any(0 < progress.done < 10 for progress in seen)
    assert len(seen) < 12


def test_a_request_for_another_endpoint_is_refused(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    with pytest.raises(RequestInvalid, match="other"):
        make_engine().complete([ask("x", endpoint_name="other")])
    assert server.bodies == []


def test_a_closed_engine_says_so(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.complete([ask("x")])
    engine.close()
    engine.close()
    with pytest.raises(EngineStopped, match="closed"):
        engine.complete([ask("x")])


def test_a_failing_endpoint_callable_reaches_the_caller_and_may_be_tried_again(
    server: FakeServer, ledger: Ledger
) -> None:
    tries = iter([OSError("no simulator"), None])

    def endpoint() -> Endpoint:
        error = next(tries)
        if error:
            raise error
        return Endpoint("fake", server.url)

    with CompletionEngine(endpoint, ledger, EngineSettings(), load_prices()) as engine:
        with pytest.raises(OSError, match="no simulator"):
            engine.complete([ask("x")])
        assert engine.complete([ask("x")])[0].text == "VERDICT: 1"


def test_a_cap_of_calls_is_never_passed_and_a_rerun_goes_on(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    requests = [ask(str(i)) for i in range(20)]
    with pytest.raises(BudgetReached, match="Cap of 7 calls") as caught:
        make_engine(max_calls=7).complete(requests)
    assert caught.value.exit_code == 1
    assert len(server.bodies) == ledger.totals().calls == 7
    engine = make_engine(max_calls=13)
    assert len(engine.complete(requests)) == 20
    assert engine.tally()[:2] == (13, 7)
    assert set(server.hits.values()) == {1}


def test_replies_in_the_ledger_are_served_when_the_cap_is_used_up(make_engine: MakeEngine) -> None:
    engine = make_engine(max_calls=1)
    engine.complete([ask("x")])
    with pytest.raises(BudgetReached):
        engine.complete([ask("y")])
    assert engine.complete([ask("x")])[0].is_reused
    with pytest.raises(BudgetReached):
        engine.complete([ask("x"), ask("z")])


def test_a_cap_of_money_is_never_passed(
    make_engine: MakeEngine, server: FakeServer, ledger: Ledger
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    server.script = lambda body, n: Reply(body=completion(usage=usage))
    requests = [ask(str(i)) for i in range(40)]
    cap_usd = 10.5 * (100 * 0.15 + 10 * 0.60) / 1e6
    with pytest.raises(BudgetReached, match="Cap of US"):
        make_engine(max_cost_usd=cap_usd, max_in_flight=16).complete(requests)
    totals = ledger.totals()
    assert 5 <= totals.calls <= 10
    assert totals.cost_usd <= cap_usd
    assert len(server.bodies) == totals.calls


def test_a_cap_of_money_counts_the_worst_case_where_the_bill_is_unknown(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    server.script = lambda body, n: Reply(body=completion(usage=None))
    worst_usd = (len(ask("10").body()) + 2 * 16) * 0.15e-6 + 16 * 0.60e-6
    with pytest.raises(BudgetReached):
        make_engine(max_cost_usd=3.5 * worst_usd).complete([ask(str(i)) for i in range(10, 30)])
    assert len(server.bodies) == 3


def test_a_cap_of_money_without_a_price_is_refused_before_any_call(
    make_engine: MakeEngine, server: FakeServer
) -> None:
    with pytest.raises(PriceUnknown, match="unheard-of") as caught:
        make_engine(max_cost_usd=1.0).complete([ask("x", model="unheard-of")])
    assert caught.value.exit_code == 2
    assert server.bodies == []


def test_a_model_without_a_price_has_no_cost_rather_than_zero(
    make_engine: MakeEngine, ledger: Ledger
) -> None:
    engine = make_engine()
    [reply] = engine.complete([ask("x", model="unheard-of")])
    assert reply.cost_usd is None
    assert engine.tally().unpriced == 1
    assert ledger.totals().unpriced_calls == 1
