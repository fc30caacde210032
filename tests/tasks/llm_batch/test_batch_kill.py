"""Killed at any point, a buyer is followed by one that makes no second batch for any key."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.llm_batch.conftest import MakeBuyer, StartSimulator, ask, served
from tests.tasks.llm_batch.test_batch import texts, truths
from warehouse.ledger import Ledger

# The child ends itself by SIGKILL around the n-th call of one method.
RUN = """
import os, signal, sys
from tasks._llm.batch import BatchBuyer
from tasks._llm.batch_client import BatchClient
from tasks._llm.batch_reader import BatchReader
from tasks._llm.batch_sender import BatchSender
from tasks._llm.batch_store import BatchStore, open_batch_store
from tasks._llm.batch_types import BatchSettings
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, Secret
from tests.tasks.llm_batch.conftest import FAST, KEY, ask
from warehouse.ledger import Ledger, open_ledger

url, path, owner, method, when, nth = sys.argv[1:7]
kind = {one.__name__: one for one in (BatchClient, BatchReader, BatchStore, Ledger)}[owner]
original, calls = getattr(kind, method), []
def deadly(self, *args, **kwargs):
    calls.append(1)
    is_due = len(calls) == int(nth)
    if is_due and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, *args, **kwargs)
    if is_due:
        if hasattr(result, "result"):
            result.result()
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(kind, method, deadly)
buyer = BatchBuyer(
    lambda: Endpoint("simulated", url, Secret(KEY)),
    open_ledger(path),
    open_batch_store(path),
    BatchSettings(**{**FAST, "max_lines": 8}),
    load_prices(),
)
buyer.complete([ask(str(i)) for i in range(20)])
"""

POINTS = [
    ("BatchStore", "add_lines", "after", 1),
    ("BatchStore", "plan", "after", 2),
    ("Ledger", "claim", "after", 2),
    ("BatchClient", "upload", "before", 1),
    ("BatchClient", "upload", "after", 2),
    ("BatchStore", "set_uploaded", "after", 2),
    ("BatchStore", "begin_create", "after", 2),
    ("BatchClient", "create", "after", 1),
    ("BatchClient", "create", "after", 3),
    ("BatchStore", "set_sent", "after", 3),
    ("BatchClient", "retrieve", "before", 2),
    ("BatchClient", "download", "after", 1),
    ("BatchReader", "_store_group", "after", 1),
    ("BatchReader", "_sort_out", "after", 2),
    ("BatchStore", "finish", "after", 1),
]


def kill_at(url: str, path: Path, point: tuple[str, str, str, int]) -> None:
    child = subprocess.run(
        [sys.executable, "-c", RUN, url, str(path), *map(str, point)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(map(str, point)))
def test_a_killed_buyer_leaves_no_key_to_be_sent_twice(
    start: StartSimulator,
    make_buyer: MakeBuyer,
    ledger: Ledger,
    ledger_path: Path,
    point: tuple[str, str, str, int],
) -> None:
    process = start(is_counting=True)
    kill_at(process.base_url, ledger_path, point)
    buyer = make_buyer(process, max_lines=8)
    assert texts(buyer.complete([ask(str(i)) for i in range(20)])) == truths(20)
    counts = served(process)
    assert len(counts["batch_lines"]) == 20
    assert set(counts["batch_lines"].values()) == {1}
    assert {answers for _, answers in counts["calls"].values()} == {1}
    assert ledger.totals().calls == 20
    ledger.check()


def test_a_creation_whose_answer_was_never_seen_is_found_again(
    start: StartSimulator, make_buyer: MakeBuyer, ledger: Ledger
) -> None:
    process = start(is_counting=True, batch={"create_hang_s": 1.5})
    # The answer takes longer than the client waits, so it asks the list of batches.
    buyer = make_buyer(process, timeout_s=0.3)
    requests = [ask(str(i)) for i in range(5)]
    assert texts(buyer.complete(requests)) == truths(5)
    counts = served(process)
    assert set(counts["batch_lines"].values()) == {1}
    assert len(counts["batch_lines"]) == 5
    assert ledger.totals().unanswered_attempts == 0


@pytest.mark.slow
def test_a_buyer_killed_while_the_batch_is_being_created_finds_it(
    start: StartSimulator, make_buyer: MakeBuyer, ledger_path: Path, ledger: Ledger
) -> None:
    process = start(is_counting=True, batch={"create_hang_s": 60, "duration_s": 0.1})
    point = ("BatchClient", "retrieve", "before", 1)
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, process.base_url, str(ledger_path), *map(str, point)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
    )
    try:
        while not served(process)["batch_lines"]:
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    buyer = make_buyer(process, max_lines=8, timeout_s=0.5)
    assert texts(buyer.complete([ask(str(i)) for i in range(20)])) == truths(20)
    assert set(served(process)["batch_lines"].values()) == {1}
    # Put on record by the one that was killed, answered to the one that followed.
    assert ledger.totals().unanswered_attempts == 0
