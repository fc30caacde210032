"""What can be told before a run starts, so that a wrong request fails in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks._engines import listen as _listen
from tasks._engines import real_endpoint
from tasks._runs import warehouse_at
from tasks._settings import read_environment
from tasks._stages.configs import stage_configs
from tasks._stages.ingest import read_prompt_file
from tasks._stages.own_files import read_own
from tasks.config import AnyFlowConfig, AttributesConfig, CallSettings, FlowConfig, OwnConfig
from tasks.errors import InputRejected
from warehouse.paths import is_url


def check(config: AnyFlowConfig) -> None:
    """Refuses a run whose input files, templates, encoder or warehouse cannot be used.

    Raises:
        InputRejected, LlmError, PromptError, ModelError, WarehouseError: One line of what is wrong.
    """
    stage_configs(config)
    if isinstance(config, FlowConfig):
        _check_caps(config.calls)
        _check_ledger(config)
    if isinstance(config, FlowConfig) and config.llm.base_url is not None:
        # An address with a password in it must not get into the record of a run.
        real_endpoint(config.llm.base_url)
    if isinstance(config, AttributesConfig) and config.ingest.prompts is not None:
        read_prompt_file(Path(config.ingest.prompts))
    if isinstance(config, OwnConfig) and config.ingest.data is not None:
        read_own(config.ingest.data)
    with warehouse_at(config.warehouse).lock():
        pass


def _check_caps(calls: CallSettings) -> None:
    """A cap is one process's to hold: workers of a cluster come, go and are restarted."""
    is_capped = bool(calls.max_calls) or calls.max_cost_usd is not None
    if calls.runner != "threads" and calls.mode == "sync" and is_capped:
        raise InputRejected(
            f"calls.runner: {calls.runner} with a cap on calls or money, which several processes"
            " cannot hold together; expected threads where there is a cap; drop one of the two"
        )


def _check_ledger(config: FlowConfig) -> None:
    """Replies that cost money must outlive this machine where the data do."""
    if is_url(config.warehouse) and config.llm.base_url and not read_environment().ledger_url:
        raise InputRejected(
            f"warehouse {config.warehouse}: no ledger that other machines see, so that they would"
            " buy the same replies again; expected PREF_LEDGER_URL=postgresql+psycopg://...;"
            " set it"
        )


def listen(listener: Callable[[Any], None] | None) -> None:
    """Sends the progress of calls to ``listener``."""
    _listen(listener)
