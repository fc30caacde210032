"""Engines and ledgers that close themselves, and the server they talk to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.engine import CompletionEngine
from tasks._llm.prices import load_prices
from tasks._llm.types import Endpoint, EngineSettings, Secret
from tests.postgres import fresh_database, postgres_server
from tests.tasks.llm.fake_server import PLANTED_KEY, FakeServer
from warehouse.ledger import Ledger, open_ledger

FAST: dict[str, Any] = {"backoff_s": 0.001, "backoff_cap_s": 0.02, "timeout_s": 5.0, "drain_s": 5.0}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where two processes share a ledger, in either kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "shared.sqlite")
    return fresh_database(request.getfixturevalue("postgres_url"))


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
