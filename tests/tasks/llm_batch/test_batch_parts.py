"""The parts of batch mode on their own: files, plans, the store, leases."""

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._llm.batch import BatchBuyer
from tasks._llm.batch_files import input_line, read_lines, request_of
from tasks._llm.batch_plan import groups_of
from tasks._llm.batch_store import BatchStore, NewLine, open_batch_store
from tasks._llm.batch_types import BatchSettings, BatchStoreError
from tasks._llm.engine import CompletionEngine
from tasks._llm.errors import CallInBatch, LlmError, RequestInvalid
from tasks._llm.prices import PriceTable, load_prices
from tasks._llm.types import Endpoint, EngineSettings, Secret
from tests.postgres import postgres_server
from tests.tasks.llm_batch.conftest import FAST, KEY, MakeBuyer, StartSimulator, ask, served
from tests.tasks.llm_batch.test_batch import texts, truths
from warehouse.ledger import Ledger, open_ledger


def new_line(text: str) -> NewLine:
    request = ask(text)
    n_bytes = len(input_line(request.key, request.body()))
    return NewLine(request.key, "simulated", request.model, request.identity(), n_bytes)


def test_a_request_comes_back_from_its_identity() -> None:
    for request in (ask("x"), ask("Ü \ud83d", repeat=3, sampling={"temperature": 1.0, "seed": 7})):
        assert request_of(request.identity()).key == request.key
        assert request_of(request.identity()).body() == request.body()


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), max_size=60),
    st.integers(1, 9),
    st.integers(50, 120),
)
def test_every_line_is_in_one_file_and_no_file_is_too_large(
    sizes: list[tuple[str, int]], max_lines: int, max_bytes: int
) -> None:
    lines = [(model, f"{i:03}", size) for i, (model, size) in enumerate(sorted(sizes))]
    size_of = {key: size for _, key, size in lines}
    model_of = {key: model for model, key, _ in lines}
    groups = list(groups_of(lines, max_lines, max_bytes))
    assert [key for _, keys in groups for key in keys] == [key for _, key, _ in lines]
    for model, keys in groups:
        assert 1 <= len(keys) <= max_lines
        assert sum(size_of[key] for key in keys) <= max_bytes
        assert {model_of[key] for key in keys} == {model}


def test_lines_that_are_no_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    good = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": "\xff\x1b"}}}'
    odd = [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"[1]",
        b'{"custom_id": 7}',
        b"\xff\xfe\x00",
        b'{"custom_id": "b", "response": {"status_code": "200"}, "error": null}',
        b'{"custom_id": "c", "response": null, "error": {"code": "batch_expired"}}',
    ]
    path.write_bytes(b"\n".join([*odd, good]))
    found = {line.custom_id: line for line in read_lines(path)}
    assert set(found) == {"a", "b", "c"}
    assert (found["a"].status, found["b"].status, found["c"].code) == (200, None, "batch_expired")
    assert found["b"].code == "no_response"


def test_a_line_is_in_one_submission_only(store: BatchStore) -> None:
    lines = [new_line(str(i)) for i in range(5)]
    keys = [line.request_key for line in lines]
    assert store.add_lines(lines) == set(keys)
    assert store.add_lines(lines) == set()
    first = store.plan("simulated", "simulated-judge", keys[:3], "one")
    second = store.plan("simulated", "simulated-judge", keys, "two")
    assert store.plan("simulated", "simulated-judge", keys, "three") is None
    assert first is not None
    assert second is not None
    assert {line.request_key for line in store.lines(first)} == set(keys[:3])
    assert {line.request_key for line in store.lines(second)} == set(keys[3:])
    assert [one.n_lines for one in store.submissions("simulated", is_open=True)] == [3, 2]
    assert store.finish(first, "expired", keys[:1], is_try=True)
    assert not store.finish(first, "expired", keys[:1], is_try=True)
    assert [key for _, key, _ in store.pending("simulated")] == keys[:1]
    assert store.waiting(keys) == {keys[0], *keys[3:]}


def test_of_two_that_would_send_only_one_may(store: BatchStore) -> None:
    store.add_lines([new_line("x")])
    name = store.plan("simulated", "simulated-judge", [new_line("x").request_key], "planner")
    [seen] = store.submissions("simulated", is_open=True)
    assert name is not None
    assert store.take(seen, "one", 60) is not None
    # The other read the row before: it comes too late, and its later steps have no effect.
    assert store.take(seen, "two", 60) is None
    assert not store.set_uploaded(name, "two", "file-2")
    assert store.set_uploaded(name, "one", "file-1")
    assert store.set_sent(name, "one", "batch-1")
    [sent] = store.submissions("simulated", is_open=True)
    assert (sent.state, sent.batch_id, sent.holder) == ("sent", "batch-1", None)


def test_a_store_that_cannot_be_opened_says_so_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database, but long enough to be read as a damaged one" * 40)
    for place in ("nonsense://x", tmp_path, broken):
        with pytest.raises(BatchStoreError) as caught:
            open_batch_store(place)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "values", [{"max_lines": 0}, {"max_lines": 50_001}, {"poll_s": -1}, {"max_tries": 0}]
)
def test_a_setting_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match=next(iter(values))):
        BatchSettings(**values)


def test_single_calls_and_batches_never_buy_one_key_twice(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start(is_counting=True, latency_s=0.3)
    requests = [ask(str(i)) for i in range(12)]
    with CompletionEngine(
        lambda: Endpoint("simulated", process.base_url, Secret(KEY)),
        ledger,
        EngineSettings(max_in_flight=4),
        load_prices(),
    ) as engine:
        results: list[list[str | None]] = []

        def buy_one_by_one() -> None:
            # Whatever the batch was first to claim is told of, and never sent.
            with suppress(CallInBatch):
                results.append(texts(engine.complete(requests[:8])))

        single = threading.Thread(target=buy_one_by_one)
        single.start()
        while not ledger.totals().attempts:
            time.sleep(0.01)
        assert texts(make_buyer(process).complete(requests[4:])) == truths(12)[4:]
        single.join()
    assert results in ([], [truths(8)])
    assert texts(make_buyer(process).complete(requests[:8])) == truths(8)
    assert {answers for _, answers in served(process)["calls"].values()} == {1}
    assert ledger.totals().calls == 12


def test_a_planted_key_is_in_no_file_no_row_and_no_traceback(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger, ledger_path: Path
) -> None:
    process = start()
    make_buyer(process).complete([ask(str(i)) for i in range(3)])
    stranger = start(api_key="another")
    try:
        make_buyer(stranger).complete([ask("y")])
    except LlmError:
        shown = traceback.format_exc()
    ledger.close()
    assert KEY not in shown
    for path in ledger_path.parent.iterdir():
        assert KEY.encode() not in path.read_bytes()


@pytest.fixture
def other_store(ledger_path: Path) -> Iterator[BatchStore]:
    with open_batch_store(ledger_path) as opened:
        yield opened


def test_two_processes_share_what_is_to_be_sent(
    start: StartSimulator,
    make_buyer: MakeBuyer,
    ledger: Ledger,
    other_store: BatchStore,
    prices: PriceTable,
) -> None:
    process = start(is_counting=True, batch={"expire_share": 0.5, "duration_s": 0.1})
    other = BatchBuyer(
        lambda: Endpoint("simulated", process.base_url, Secret(KEY)),
        ledger,
        other_store,
        BatchSettings(**{**FAST, "max_lines": 5}),
        prices,
    )
    results: list[bool] = []

    def work(buyer: BatchBuyer) -> None:
        results.append(texts(buyer.complete([ask(str(i)) for i in range(40)])) == truths(40))

    pair = [threading.Thread(target=work, args=(one,)) for one in (make_buyer(process), other)]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join()
    other.close()
    assert results == [True, True]
    assert {answers for _, answers in served(process)["calls"].values()} == {1}
    assert ledger.totals().calls == 40


@pytest.mark.slow
def test_batches_are_remembered_in_postgresql_too(
    start: StartSimulator, prices: PriceTable
) -> None:
    process = start(is_counting=True, batch={"expire_share": 0.3, "missing_share": 0.1})
    with (
        postgres_server() as url,
        open_ledger(url) as ledger,
        open_batch_store(url) as store,
    ):
        buyer = BatchBuyer(
            lambda: Endpoint("simulated", process.base_url, Secret(KEY)),
            ledger,
            store,
            BatchSettings(**{**FAST, "max_lines": 7}),
            prices,
        )
        replies = buyer.complete([ask(str(i)) for i in range(20)])
        assert all(not view.is_open for view in buyer.list_batches())
        buyer.close()
    assert texts(replies) == truths(20)
    assert {answers for _, answers in served(process)["calls"].values()} == {1}
