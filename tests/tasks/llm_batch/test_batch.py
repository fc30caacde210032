"""Batch mode against the simulator's Files and Batches, over HTTP."""

import threading
from typing import Any

import pytest

from tasks._llm.batch_store import BatchStore
from tasks._llm.batch_types import (
    BatchCancelled,
    BatchRejected,
    BatchUnknown,
    BatchUnsupported,
)
from tasks._llm.errors import (
    AuthenticationRejected,
    BudgetReached,
    EngineStopped,
    ModelUnknown,
    RequestInvalid,
)
from tasks._llm.prices import Price, PriceTable
from tasks._llm.simulator.judge import judge_truth
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallReply, CallRequest, Progress
from tests.tasks.llm_batch.conftest import (
    MakeBuyer,
    StartSimulator,
    ask,
    sdk,
    served,
)
from warehouse.ledger import Ledger

TRUTH = SimulatorSettings(seed=7)


def truths(n: int) -> list[str]:
    return [judge_truth(ask(str(i)).messages, TRUTH).reply for i in range(n)]


def texts(replies: list[CallReply]) -> list[str | None]:
    return [reply.text for reply in replies]


def test_replies_come_in_the_order_of_the_requests_whatever_order_the_file_has(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger, store: BatchStore
) -> None:
    process = start()
    buyer = make_buyer(process)
    requests = [ask(str(i)) for i in range(30)]
    replies = buyer.complete([*requests, requests[3]])
    assert texts(replies) == [*truths(30), truths(30)[3]]
    assert [reply.is_reused for reply in replies] == [False] * 30 + [True]
    assert buyer.tally()[:2] == (30, 1)
    assert ledger.totals().calls == ledger.totals().attempts == 30
    assert ledger.totals().unanswered_attempts == 0
    ledger.check()
    assert store.waiting(request.key for request in requests) == set()
    output = sdk(process).batches.list().data[0].output_file_id
    lines = sdk(process).files.content(str(output)).text.splitlines()
    order = [line.split('"custom_id": "')[1][:64] for line in lines]
    assert set(order) == {request.key for request in requests}
    assert order != [request.key for request in requests]


def test_the_ledger_is_asked_first_and_no_endpoint_is_needed(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    requests = [ask(str(i)) for i in range(5)]
    make_buyer(start()).complete(requests)
    buyer = make_buyer(None)
    assert all(reply.is_reused for reply in buyer.complete(requests))
    assert buyer.tally()[:2] == (0, 5)


def test_files_are_split_by_count_by_size_and_by_model(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start()
    requests = [ask(str(i)) for i in range(10)]
    make_buyer(process, max_lines=4).complete(requests)
    sizes = [batch.request_counts for batch in sdk(process).batches.list()]
    assert sorted(one.total for one in sizes if one) == [2, 4, 4]
    more = [ask(f"more {i}") for i in range(4)] + [ask("x", model="simulated-responder")]
    size = 2 * len(more[0].body()) + 500
    make_buyer(process, max_bytes=size).complete(more)
    files = [file for file in sdk(process).files.list(limit=100) if file.purpose == "batch"]
    assert all(file.bytes <= size for file in files[:3])
    assert len(files) == 3 + 3
    assert set(served(process)["batch_lines"].values()) == {1}


def test_lines_that_expired_failed_or_are_missing_are_sent_again_and_only_those(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start(
        is_counting=True,
        batch={
            "duration_s": 0.1,
            "seed": 2,
            "expire_share": 0.5,
            "line_error_share": 0.2,
            "missing_share": 0.1,
        },
    )
    requests = [ask(str(i)) for i in range(60)]
    buyer = make_buyer(process, max_lines=10)
    assert texts(buyer.complete(requests)) == truths(60)
    counts = served(process)
    assert buyer.tally().made == 60
    assert buyer.tally().retries == sum(counts["batch_lines"].values()) - 60 > 0
    # A line answered once is in no further batch: nothing was paid for twice.
    assert {answers for _, answers in counts["calls"].values()} == {1}
    assert ledger.totals().calls == 60
    assert ledger.totals().unanswered_attempts == 0


def test_a_batch_reply_costs_the_batch_price(start: StartSimulator, make_buyer: MakeBuyer) -> None:
    prices = PriceTable("today", {"simulated-judge": Price(2.0, 1.0, 8.0, 0.5)})
    buyer = make_buyer(start(), prices=prices)
    [reply] = buyer.complete([ask("x")])
    assert reply.prompt_tokens is not None
    assert reply.completion_tokens is not None
    full_usd = (reply.prompt_tokens * 2.0 + reply.completion_tokens * 8.0) / 1e6
    assert reply.cost_usd == pytest.approx(full_usd / 2)
    assert buyer.tally().cost_usd == pytest.approx(full_usd / 2)


def test_a_second_buyer_waits_for_the_batch_that_is_out(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start(batch={"duration_s": 0.6})
    requests = [ask(str(i)) for i in range(10)]
    first = make_buyer(process)
    first.submit(requests)
    first.close()
    second = make_buyer(process)
    assert texts(second.complete([*requests[5:], ask("new")]))[:5] == truths(10)[5:]
    assert set(served(process)["batch_lines"].values()) == {1}
    assert len(served(process)["batch_lines"]) == 11


def test_threads_with_common_requests_send_each_once(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start()
    buyer = make_buyer(process)
    results: list[bool] = []

    def work(shift: int) -> None:
        replies = buyer.complete([ask(str((i + shift) % 30)) for i in range(20)])
        expected = truths(30)
        results.append(texts(replies) == [expected[(i + shift) % 30] for i in range(20)])

    threads = [threading.Thread(target=work, args=(7 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
    assert set(served(process)["batch_lines"].values()) == {1}


def test_a_refused_call_ends_the_run_after_the_others_are_kept(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start()
    good = [ask(str(i)) for i in range(5)]
    buyer = make_buyer(process)
    with pytest.raises(ModelUnknown, match="no-such-model") as caught:
        buyer.complete([*good, ask("x", model="no-such-model")])
    assert "\n" not in str(caught.value)
    assert ledger.totals().calls == 5
    assert texts(buyer.complete(good)) == truths(5)


def test_a_cancelled_batch_is_not_sent_again_in_this_run_but_in_the_next(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start(batch={"duration_s": 5})
    buyer = make_buyer(process)
    requests = [ask(str(i)) for i in range(5)]
    buyer.submit(requests)
    [view] = buyer.list_batches(is_open=True)
    assert (view.n_lines, view.is_open) == (5, True)
    assert view.batch_id is not None
    assert buyer.cancel(view.batch_id) == "cancelling"
    with pytest.raises(BatchCancelled, match="calls left"):
        buyer.complete(requests)
    [view] = buyer.list_batches()
    assert (view.status, view.is_open) == ("cancelled", False)
    again = make_buyer(start())
    assert len(again.complete(requests)) == 5


def test_a_batch_refused_as_a_whole_says_why(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start(batch={"max_lines": 3})
    with pytest.raises(BatchRejected, match="too_many_tasks"):
        make_buyer(process).complete([ask(str(i)) for i in range(5)])
    assert ledger.totals().unanswered_attempts == 0


def test_a_full_queue_is_waited_for_and_a_file_too_large_for_it_is_halved(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start(is_counting=True, batch={"max_open_lines": 5, "duration_s": 0.1})
    requests = [ask(str(i)) for i in range(14)]
    assert texts(make_buyer(process).complete(requests)) == truths(14)
    counts = served(process)
    assert {answers for _, answers in counts["calls"].values()} == {1}


PRICES = PriceTable("today", {"simulated-judge": Price(1.0, 1.0, 1.0, 0.5)})


def worst_usd(request: CallRequest) -> float:
    return (len(request.body()) + 2 * 16 + 16) * 0.5 / 1e6


def test_caps_send_what_fits_and_a_rerun_goes_on(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start()
    requests = [ask(str(i)) for i in range(10)]
    with pytest.raises(BudgetReached, match="Cap of 4 calls"):
        make_buyer(process, max_calls=4).complete(requests)
    assert ledger.totals().calls == 4
    # A reply that tells no tokens keeps counting with the most it can cost.
    silent = start(quirks={"ignores": ["usage"]})
    cap_usd = 3.5 * worst_usd(requests[9])
    with pytest.raises(BudgetReached, match="Cap of US"):
        make_buyer(silent, max_cost_usd=cap_usd, prices=PRICES).complete(requests)
    assert ledger.totals().calls == 7
    assert texts(make_buyer(process).complete(requests)) == truths(10)


def test_what_batches_cost_less_than_they_could_is_spent_on_further_ones(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start()
    requests = [ask(str(i)) for i in range(12)]
    cap_usd = 5.5 * worst_usd(requests[11])
    cost_usd = make_buyer(process, prices=PRICES).buy(lambda: requests[:1]).cost_usd
    # Eleven calls cost less than the cap, and six of them could cost more.
    assert 11 * cost_usd < 0.9 * cap_usd
    buyer = make_buyer(process, max_cost_usd=cap_usd, prices=PRICES)
    assert buyer.buy(lambda: requests).made == 11
    more = [ask(f"more {i}") for i in range(40)]
    with pytest.raises(BudgetReached, match="Cap of US"):
        buyer.buy(lambda: more)
    assert 0.7 * cap_usd < buyer.tally().cost_usd <= cap_usd
    assert ledger.totals().calls == 1 + buyer.tally().made


def test_a_closed_buyer_stops_waiting_and_says_how_to_go_on(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    process = start(batch={"duration_s": 60})
    buyer = make_buyer(process)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            buyer.complete([ask("x")])
        except EngineStopped as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not make_buyer(process).list_batches(is_open=True):
        pass
    buyer.close()
    thread.join(20)
    assert "run again to collect" in str(caught[0])


def test_a_batch_that_the_endpoint_forgot_is_bought_again_only_on_request(
    start: StartSimulator, make_buyer: MakeBuyer
) -> None:
    requests = [ask(str(i)) for i in range(3)]
    first = make_buyer(start(batch={"duration_s": 60}))
    first.submit(requests)
    fresh = start()
    careful = make_buyer(fresh)
    with pytest.raises(BatchUnknown, match="forget the batch"):
        careful.complete(requests)
    [view] = careful.list_batches(is_open=True)
    assert view.status == "unknown to the endpoint"
    assert served(fresh)["batch_lines"] == {}
    assert texts(make_buyer(fresh, resubmits_unknown=True).complete(requests)) == truths(3)


def test_a_forgotten_batch_frees_its_calls(start: StartSimulator, make_buyer: MakeBuyer) -> None:
    requests = [ask(str(i)) for i in range(3)]
    make_buyer(start(batch={"duration_s": 60})).submit(requests)
    fresh = make_buyer(start())
    [view] = fresh.list_batches()
    assert fresh.forget(str(view.batch_id)) == 3
    assert texts(fresh.complete(requests)) == truths(3)
    with pytest.raises(BatchUnknown, match="pref batch list"):
        fresh.cancel("batch_nowhere")


def test_what_cannot_work_is_said_in_one_line(start: StartSimulator, make_buyer: MakeBuyer) -> None:
    without = start(quirks={"ignores": ["batch"]})
    stranger = start(api_key="another")
    cases: list[tuple[Any, Any, type[Exception]]] = [
        (without, {}, BatchUnsupported),
        (stranger, {}, AuthenticationRejected),
        (stranger, {"max_bytes": 100}, RequestInvalid),
    ]
    for number, (process, settings, kind) in enumerate(cases):
        with pytest.raises(kind) as caught:
            make_buyer(process, **settings).complete([ask(f"x{number}")])
        assert "\n" not in str(caught.value)
        assert "sk-planted" not in str(caught.value)
    with pytest.raises(RequestInvalid, match="other"):
        make_buyer(without).complete([ask("x", endpoint_name="other")])


def test_progress_reaches_the_total(start: StartSimulator, make_buyer: MakeBuyer) -> None:
    seen: list[Progress] = []
    make_buyer(start(), on_progress=seen.append).complete([ask(str(i)) for i in range(4)])
    assert seen[-1][:4] == (4, 4, 4, 0)
