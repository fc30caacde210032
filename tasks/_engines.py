"""The completion engines of this process, one for each way of calling, opened when first needed.

All shards of a process share an engine, so that concurrency, caps and the ledger's group commit
hold across them. The embedded simulator is started with the first call that has to be bought and
stopped with its engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import Endpoint, EngineSettings, Progress, Secret
from tasks._settings import read_environment
from tasks.config import LlmConfig, SimulatorConfig
from tasks.types import CallPlan

if TYPE_CHECKING:
    from tasks._llm.engine import CompletionEngine
    from tasks._llm.simulator.process import SimulatorProcess
    from warehouse.ledger import Ledger

OFFICIAL = "https://api.openai.com/v1"

_lock = threading.Lock()
_engines: dict[str, CompletionEngine] = {}
_simulators: dict[str, SimulatorProcess] = {}
_ledgers: dict[str, Ledger] = {}
_listener: Callable[[Progress], None] | None = None


def simulator_settings(config: SimulatorConfig) -> SimulatorSettings:
    """The simulator's settings: its own defaults where the configuration is silent."""
    return SimulatorSettings(**config.model_dump(exclude_none=True))


def endpoint_address(llm: LlmConfig) -> str | None:
    """The endpoint's address, from the configuration or the environment; None: the simulator."""
    return llm.base_url


def endpoint_name(llm: LlmConfig) -> str:
    """The name under which an endpoint enters request keys.

    For a real endpoint its address without credentials; for the simulator a fingerprint of
    everything that changes its answers.
    """
    address = endpoint_address(llm)
    if address is None:
        return f"simulator-{simulator_settings(llm.simulator).fingerprint()}"
    return _without_credentials(address)


def _without_credentials(address: str) -> str:
    scheme, _, rest = address.rstrip("/").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def listen(listener: Callable[[Progress], None] | None) -> None:
    """Sends the progress of every engine of this process to ``listener``."""
    global _listener
    _listener = listener


def engine_for(plan: CallPlan) -> CompletionEngine:
    """This process's engine for a way of calling."""
    name = plan.model_dump_json()
    with _lock:
        if name not in _engines:
            _engines[name] = _open(plan)
        return _engines[name]


def close_engines() -> None:
    """Closes every engine and stops every simulator of this process."""
    with _lock:
        engines, ledgers = list(_engines.values()), list(_ledgers.values())
        _engines.clear()
        _ledgers.clear()
    # Not under the lock: an engine that is just asking for its endpoint needs it to end.
    for engine in engines:
        engine.close()
    for ledger in ledgers:
        ledger.close()
    with _lock:
        simulators = list(_simulators.values())
        _simulators.clear()
    for simulator in simulators:
        simulator.stop()


def _open(plan: CallPlan) -> CompletionEngine:
    # A run whose datasets are all there makes no calls and should not wait for these imports.
    from tasks._llm.engine import CompletionEngine
    from tasks._llm.prices import load_prices

    settings = plan.settings
    return CompletionEngine(
        endpoint=partial(_endpoint, plan),
        ledger=_ledger(plan.ledger),
        settings=EngineSettings(
            max_in_flight=settings.max_in_flight,
            timeout_s=settings.timeout_s,
            max_attempts=settings.max_attempts,
            max_calls=settings.max_calls,
            max_cost_usd=settings.max_cost_usd,
        ),
        prices=load_prices(Path(settings.prices) if settings.prices else None),
        on_progress=lambda progress: _listener(progress) if _listener else None,
    )


def _ledger(url: str) -> Ledger:
    from warehouse.ledger import open_ledger

    if url not in _ledgers:
        _ledgers[url] = open_ledger(url)
    return _ledgers[url]


def _endpoint(plan: CallPlan) -> Endpoint:
    if plan.base_url is None:
        from tasks._llm.simulator.process import start_simulator

        with _lock:
            if plan.endpoint_name not in _simulators:
                _simulators[plan.endpoint_name] = start_simulator(
                    simulator_settings(plan.simulator)
                )
            address = _simulators[plan.endpoint_name].base_url
        return Endpoint(plan.endpoint_name, address, Secret("simulated"))
    key = read_environment().openai_api_key
    return Endpoint(plan.endpoint_name, plan.base_url, Secret(key or "none"))
