"""The completion engines of this process, one for each way of calling, opened when first needed.

All shards of a process share an engine, so that concurrency, caps and the ledger's group commit
hold across them. The embedded simulator is started with the first call that has to be bought and
stopped with its engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import Endpoint, EngineSettings, Progress, Secret
from tasks._settings import read_environment, whole_ledger_url
from tasks.config import LlmConfig, SimulatorConfig
from tasks.types import CallPlan

if TYPE_CHECKING:
    from tasks._llm.batch import BatchBuyer
    from tasks._llm.engine import CompletionEngine
    from tasks._llm.prices import PriceTable
    from tasks._llm.simulator.process import SimulatorProcess
    from warehouse.ledger import Ledger

OFFICIAL = "https://api.openai.com/v1"
SIMULATOR = "simulator-"
# A batch of the embedded simulator is done in half a second; a provider's takes minutes at least.
_SIMULATED_POLL_S, _POLL_S = 0.2, 30.0

_lock = threading.Lock()
_engines: dict[str, CompletionEngine | BatchBuyer] = {}
_stores = ExitStack()
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
        return f"{SIMULATOR}{simulator_settings(llm.simulator).fingerprint()}"
    return _without_credentials(address)


def _without_credentials(address: str) -> str:
    scheme, _, rest = address.rstrip("/").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def listen(listener: Callable[[Progress], None] | None) -> None:
    """Sends the progress of every engine of this process to ``listener``."""
    global _listener
    _listener = listener


def engine_for(plan: CallPlan) -> CompletionEngine | BatchBuyer:
    """This process's engine for a way of calling: call by call, or in batches."""
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
    _stores.close()
    for ledger in ledgers:
        ledger.close()
    with _lock:
        simulators = list(_simulators.values())
        _simulators.clear()
    for simulator in simulators:
        simulator.stop()


def batch_buyer(plan: CallPlan) -> BatchBuyer:
    """This process's buyer in batches.

    Raises:
        TypeError: The plan is to call one by one.
    """
    from tasks._llm.batch import BatchBuyer

    found = engine_for(plan)
    if not isinstance(found, BatchBuyer):
        raise TypeError("batch_buyer: the plan's calls are made one by one")
    return found


def ledger_at(url: str) -> Ledger:
    """The ledger of an address, opened once a process."""
    with _lock:
        return _ledger(url)


def _open(plan: CallPlan) -> CompletionEngine | BatchBuyer:
    # A run whose datasets are all there makes no calls and should not wait for these imports.
    from tasks._llm.prices import load_prices

    prices = load_prices(Path(plan.settings.prices) if plan.settings.prices else None)
    return (
        _open_batches(plan, prices) if plan.settings.mode == "batch" else _open_sync(plan, prices)
    )


def _open_sync(plan: CallPlan, prices: PriceTable) -> CompletionEngine:
    from tasks._llm.engine import CompletionEngine

    settings = plan.settings
    return CompletionEngine(
        endpoint=partial(_endpoint, plan),
        ledger=_ledger(plan.ledger),
        settings=EngineSettings(
            max_in_flight=settings.max_in_flight,
            timeout_s=settings.timeout_s,
            max_attempts=settings.max_attempts,
            run_retries=settings.run_retries,
            requests_per_min=settings.requests_per_min,
            tokens_per_min=settings.tokens_per_min,
            max_calls=settings.max_calls,
            max_cost_usd=settings.max_cost_usd,
        ),
        prices=prices,
        on_progress=_tell,
    )


def _open_batches(plan: CallPlan, prices: PriceTable) -> BatchBuyer:
    from tasks._llm.batch import BatchBuyer
    from tasks._llm.batch_store import open_batch_store
    from tasks._llm.batch_types import BatchSettings

    settings = plan.settings
    is_simulated = plan.base_url is None
    # The ledger first: it makes its file and says what is wrong with it.
    ledger = _ledger(plan.ledger)
    return BatchBuyer(
        endpoint=partial(_endpoint, plan),
        ledger=ledger,
        store=_stores.enter_context(open_batch_store(whole_ledger_url(plan.ledger))),
        settings=BatchSettings(
            poll_s=settings.batch_poll_s or (_SIMULATED_POLL_S if is_simulated else _POLL_S),
            timeout_s=settings.timeout_s,
            max_attempts=settings.max_attempts,
            # The embedded simulator forgets its batches when its run ends, and charges nothing.
            resubmits_unknown=is_simulated,
            settle_s=0.0 if is_simulated else BatchSettings.settle_s,
            max_calls=settings.max_calls,
            max_cost_usd=settings.max_cost_usd,
        ),
        prices=prices,
        on_progress=_tell,
    )


def _tell(progress: Progress) -> None:
    if _listener is not None:
        _listener(progress)


def _ledger(url: str) -> Ledger:
    from warehouse.ledger import open_ledger

    if url not in _ledgers:
        _ledgers[url] = open_ledger(whole_ledger_url(url))
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
    endpoint = real_endpoint(plan.base_url, plan.endpoint_name)
    if plan.needs:
        # Asked where the first reply is about to be bought; a run that buys none asks nothing.
        from tasks._llm.probe import probe

        probe(endpoint, plan.judge_model, wanted=plan.needs).require(plan.needs)
    return endpoint


def real_endpoint(base_url: str, name: str | None = None) -> Endpoint:
    """An endpoint by its address, with the key of the environment.

    Args:
        base_url: Its address.
        name: Its name in request keys; None for the address without credentials.
    """
    key = read_environment().openai_api_key
    return Endpoint(name or _without_credentials(base_url), base_url, Secret(key or "none"))


def endpoint_of_name(name: str, base_url: str | None = None) -> Endpoint:
    """The endpoint that has a name in request keys, which is its address without credentials."""
    if name.startswith(SIMULATOR):
        # Only names its calls: nothing is ever sent there.
        return Endpoint(name, "http://127.0.0.1:9")
    return real_endpoint(base_url or name, name)
