"""Engines and ledgers that close themselves, and the server they talk to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.engine import CompletionEngine
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings, Secret
from tests.tasks.llm.fake_server import PLANTED_KEY, FakeServer
from warehouse.ledger import Ledger, open_ledger

FAST = {"backoff_s": 0.001, "backoff_cap_s": 0.02, "timeout_s": 5.0, "drain_s": 5.0}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite"


@pytest.fixture
def ledger(ledger_path: Path) -> Iterator[Ledger]:
    with open_ledger(ledger_path) as opened:
        yield opened


@pytest.fixture
def make_engine(server: FakeServer, ledger: Ledger) -> Iterator[Callable[..., CompletionEngine]]:
    engines: list[CompletionEngine] = []

    def make(
        *, url: str | None = None, on_progress: Any = None, **settings: Any
    ) -> CompletionEngine:
        engine = CompletionEngine(
            lambda: Endpoint("fake", url or server.url, Secret(PLANTED_KEY)),
            ledger,
            EngineSettings(**{**FAST, **settings}),
            load_prices(),
            on_progress,
        )
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
