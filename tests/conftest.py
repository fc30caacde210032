"""What every test gets: no network beyond loopback, no settings of the person who runs them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

_connect = socket.socket.connect


def _connect_to_loopback(self: socket.socket, address: Any) -> None:
    host = address[0] if isinstance(address, tuple) else "unix"
    if host not in ("unix", "127.0.0.1", "::1", "localhost"):
        raise PermissionError(f"a test tried to connect to {host}; tests use loopback only")
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    socket.socket.connect = _connect_to_loopback  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "PREF_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def alpaca_instructions() -> Path:
    path = SHARED / "data" / "alpaca_eval" / "instructions.parquet"
    if not path.is_file():
        pytest.skip("the real AlpacaEval instructions are not beside this checkout")
    return path
