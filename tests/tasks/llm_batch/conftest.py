"""Simulators with a Batches endpoint, and buyers that close themselves."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from prompts.catalog import load_template
from tasks._llm.batch import BatchBuyer
from tasks._llm.batch_store import BatchStore, open_batch_store
from tasks._llm.batch_types import BatchSettings
from tasks._llm.prices import PriceTable, load_prices
from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallRequest, Endpoint, Secret
from warehouse.ledger import Ledger, open_ledger

KEY = "sk-planted-0123456789abcdefghij"
FAST: dict[str, Any] = {
    "poll_s": 0.05,
    "backoff_s": 0.01,
    "backoff_cap_s": 0.05,
    "settle_s": 0.2,
    "requeue_s": 0.1,
    "timeout_s": 5.0,
}

MakeBuyer = Callable[..., BatchBuyer]
StartSimulator = Callable[..., SimulatorProcess]


def ask(text: str, **changes: Any) -> CallRequest:
    messages = load_template("judge_attributes").render(
        persona="likes polite answers",
        prompt=text,
        response_1=f"Thank you. {text}",
        response_2=f"{text}, please, kindly.",
    )
    fields: dict[str, Any] = {
        "endpoint_name": "simulated",
        "model": "simulated-judge",
        "messages": messages,
        "sampling": {"temperature": 0, "max_tokens": 16},
        **changes,
    }
    return CallRequest(**fields)


def served(process: SimulatorProcess) -> dict[str, Any]:
    """What the simulator counted."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        f"http://127.0.0.1:{process.port}/simulator/served",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    with opener.open(request) as reply:
        counts: dict[str, Any] = json.loads(reply.read())
        return counts


def sdk(process: SimulatorProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=process.base_url, api_key=KEY, max_retries=0)


@pytest.fixture
def start() -> Iterator[StartSimulator]:
    started: list[SimulatorProcess] = []

    def begin(**settings: Any) -> SimulatorProcess:
        batch = {"duration_s": 0.2, **settings.pop("batch", {})}
        values = {"api_key": KEY, "seed": 7, **settings, "batch": batch}
        started.append(start_simulator(SimulatorSettings(**values)))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite"


@pytest.fixture
def ledger(ledger_path: Path) -> Iterator[Ledger]:
    with open_ledger(ledger_path) as opened:
        yield opened


@pytest.fixture
def store(ledger_path: Path, ledger: Ledger) -> Iterator[BatchStore]:
    with open_batch_store(ledger_path) as opened:
        yield opened


@pytest.fixture
def prices() -> PriceTable:
    return load_prices()


@pytest.fixture
def make_buyer(ledger: Ledger, store: BatchStore, prices: PriceTable) -> Iterator[MakeBuyer]:
    buyers: list[BatchBuyer] = []

    def make(process: SimulatorProcess | None, **settings: Any) -> BatchBuyer:
        def endpoint() -> Endpoint:
            assert process is not None, "no endpoint was due"
            return Endpoint("simulated", process.base_url, Secret(KEY))

        on_progress = settings.pop("on_progress", None)
        table = settings.pop("prices", prices)
        values = BatchSettings(**{**FAST, **settings})
        buyers.append(BatchBuyer(endpoint, ledger, store, values, table, on_progress))
        return buyers[-1]

    yield make
    for buyer in buyers:
        buyer.close()
