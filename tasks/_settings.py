"""The only reader of environment variables. It decides nothing that could change a dataset."""

from __future__ import annotations

import os
from typing import NamedTuple

from warehouse.paths import local_root

# What every Prefect server that we start or document needs. The defaults write 16 to 19 task runs
# a second and drop what the queue cannot hold; with these none of 300 was lost in 2 s.
PREFECT_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Task logs go to the Prefect UI; the terminal belongs to the progress display.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # The task that ends a temporary server's records belongs to no flow.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


class Environment(NamedTuple):
    """What the process was told through its environment. Secrets stay here and in the client."""

    openai_api_key: str | None
    openai_base_url: str | None
    warehouse: str | None
    ledger_url: str | None
    tiktoken_cache: str | None
    openlineage: str | None = None


def read_environment() -> Environment:
    """Reads the variables this product knows; an empty value counts as absent."""

    def get(name: str) -> str | None:
        return os.environ.get(name) or None

    return Environment(
        openai_api_key=get("OPENAI_API_KEY"),
        openai_base_url=get("OPENAI_BASE_URL"),
        warehouse=get("PREF_WAREHOUSE"),
        ledger_url=get("PREF_LEDGER_URL"),
        tiktoken_cache=get("TIKTOKEN_CACHE_DIR") or get("DATA_GYM_CACHE_DIR"),
        openlineage=get("PREF_OPENLINEAGE"),
    )


def without_password(url: str) -> str:
    """A ledger's URL without password and options; a path stays as it is.

    This is what plans carry, because Prefect keeps what tasks and flows are given.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.startswith("sqlite"):
        return url
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path.partition('?')[0]}"


def whole_ledger_url(planned: str) -> str:
    """The ledger's URL as the environment has it, where a plan means that ledger."""
    url = read_environment().ledger_url
    return url if url is not None and without_password(url) == planned else planned


def prepare_server(api_url: str) -> None:
    """Sets what a Prefect server that we start must know; the user's own settings win."""
    os.environ.update({**PREFECT_DEFAULTS, **os.environ})
    os.environ["PREFECT_SERVER_UI_API_URL"] = api_url


def temporary_server_environment() -> dict[str, str]:
    """What a run's temporary server needs: no UI, no schedules, and its faults in its log."""
    return {
        **os.environ,
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
    }


def use_server(api_url: str) -> None:
    """Makes this process, and those it starts, use a Prefect server from now on."""
    os.environ["PREFECT_API_URL"] = api_url


def worker_environment(warehouse: str) -> dict[str, str]:
    """What a worker's process needs: Prefect's settings, and results beside the data."""
    return {**PREFECT_DEFAULTS, "PREFECT_LOCAL_STORAGE_PATH": _results(warehouse)}


def _results(warehouse: str) -> str:
    return str(local_root(warehouse).resolve() / ".prefect" / "results")


def prepare_prefect(warehouse: str) -> None:
    """Sets what Prefect must know before its first import; the user's own settings win.

    Task results (small JSON references) live in the warehouse, beside the data they name, so
    that the cache survives a new Prefect database and a moved folder.

    Args:
        warehouse: Folder of the warehouse.
    """
    os.environ.update({**PREFECT_DEFAULTS, **os.environ})
    os.environ["PREFECT_LOCAL_STORAGE_PATH"] = _results(warehouse)
    # Weights are named by path or found in the local cache unless the user says otherwise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # An encoder's batches come in hundreds of shapes, and torch's CPU kernels keep one with its
    # memory for each of the last 1,024: at 450 texts 50 MB more, and no faster.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
