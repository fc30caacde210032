"""A real Prefect server for the whole session, and `pref` run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tasks.server import free_port as free_port

ROOT = Path(__file__).resolve().parents[2]
# Small, but with every stage in it: 20 users, 12 prompts, 480 verdicts.
SMALL = (
    "ingest.n_prompts=12",
    "ingest.n_personas=20",
    "win.pool_size=4",
    "win.n_answers=5",
    "win.also_answers=[2]",
    "fit.steps=50",
    "calls.shard_size=40",
)


class Finished(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def found(self) -> dict[str, Any]:
        """The JSON object on standard output, which holds nothing else."""
        return dict(json.loads(self.out))

    @property
    def line(self) -> str:
        """The one line that says what was wrong."""
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("pref: "), self.err
        return last


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Pref:
    """The command line in an environment of its own."""

    def __init__(self, home: Path, api_url: str | None) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PYTHONPATH": str(ROOT),
            "DO_NOT_TRACK": "1",
        }
        if api_url:
            self.env["PREFECT_API_URL"] = api_url

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=self.env["HOME"],
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts us in the background ignores SIGINT, and children inherit that.
            preexec_fn=_hear_interrupts,
        )

    def run(self, *words: str, **env: str) -> Finished:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=300)
        return Finished(process.returncode, out, err)

    def attributes(self, warehouse: Path, *words: str, **env: str) -> Finished:
        return self.run(*attributes_words(warehouse, *words), **env)


def attributes_words(warehouse: Path, *words: str) -> list[str]:
    settings = [word for one in SMALL for word in ("--set", one)]
    return ["run", "attributes", "--warehouse", str(warehouse), *settings, "--json", *words]


def post(api: str, path: str, body: dict[str, Any]) -> Any:
    """What Prefect's API answers; asked again, as its clients do, where its database was busy."""
    until = time.monotonic() + 60
    while True:
        request = urllib.request.Request(
            f"{api}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until:
                raise
        time.sleep(1)


def ask(api: str, what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of Prefect's API that a filter finds."""
    return list(post(api, f"/{what}/filter", body))


@contextmanager
def serving(home: Path, port: int, *words: str, **env: str) -> Iterator[str]:
    """A server as `pref server` starts it, with its database under ``home``; its API's URL."""
    log = (home / "server.log").open("a")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "server", "--port", str(port), *words],
        cwd=home,
        env={**Pref(home, None).env, **env},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(900):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        # One signal to one process, as an init system sends it, must be enough.
        process.terminate()
        process.wait(timeout=30)
        log.close()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), free_port()) as url:
        yield url


@pytest.fixture
def pref(prefect_server: str, tmp_path: Path) -> Pref:
    return Pref(tmp_path, prefect_server)


@pytest.fixture
def pref_without_server(tmp_path: Path) -> Pref:
    return Pref(tmp_path, None)


def parquet_bytes(warehouse: Path) -> dict[str, bytes]:
    """Every committed file but the manifests, which hold times and run ids."""
    return {
        str(path.relative_to(warehouse)): path.read_bytes()
        for path in sorted(warehouse.glob("*/version=*/**/*"))
        if path.is_file() and path.name != "manifest.json"
    }
