"""A planted key and password are sent where they belong, and are found nowhere else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url

from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tests.flows.conftest import Finished, Pref
from tests.postgres import postgres_server
from warehouse.ledger import open_ledger

KEY = "sk-planted-4e1f0c9b7a6d5e3f2a1b0c9d"
PASSWORD = "planted-password-77aa55cc33ee11"
MARKUP = "<script>alert(1)</script>"


def everything_left(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file, and what compressed ones hold."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if path.suffix == ".parquet":
            yield f"rows of {path}", repr(pq.read_table(path).to_pylist()).encode()
        if path.name == "ledger.sqlite":
            with open_ledger(path) as ledger:
                for call in ledger.iter_calls():
                    yield f"call {call.reply.request_key}", call.request + call.reply.body


def assert_kept(done: Finished, *folders: Path) -> None:
    told = [("stdout", done.out.encode()), ("stderr", done.err.encode())]
    n_files = 0
    for name, data in [*told, *(one for folder in folders for one in everything_left(folder))]:
        n_files += 1
        for secret in (KEY, PASSWORD):
            at = data.find(secret.encode())
            assert at < 0, f"{name}: ...{data[max(at - 80, 0) : at + 80]!r}"
    assert n_files > 2


@contextmanager
def echo_server(status: int) -> Iterator[str]:
    """Answers every request with what it was sent, key and all."""

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            said = f"you sent {self.headers.get('authorization')} <b>\x1b[31m"
            body = json.dumps({"error": {"message": said, "code": "odd"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-echo", str(self.headers.get("authorization")))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(Echo) as url:
        yield url


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server_home(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Prefect server keeps its database, with the artifacts and run parameters."""
    return next(
        path
        for path in tmp_path_factory.getbasetemp().glob("server*")
        if list(path.rglob("prefect.db"))
    )


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@contextmanager
def hostile_server() -> Iterator[str]:
    """Verdicts and texts wrapped in markup, control characters and bytes that are no UTF-8."""

    class Hostile(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length", 0)))
            verdict = 1 + hashlib.sha256(asked).digest()[0] % 2
            text = f"{MARKUP} \x1b[31m\x07\x00 \u202e VERDICT: {verdict}"
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
            body = json.dumps({"choices": choices, "usage": usage, "note": "~"}).encode()
            body = body.replace(b"~", b"\xff\xfe\xed\xa0\x80")
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(Hostile) as url:
        yield url


@pytest.mark.slow
def test_hostile_replies_reach_neither_terminal_nor_page_unescaped(
    pref: Pref, tmp_path: Path
) -> None:
    with hostile_server() as url:
        done = pref.attributes(tmp_path / "data", "--set", f"llm.base_url={url}")
    assert done.code == 0, done.err
    pages = list((tmp_path / "data").rglob("report.html"))
    assert pages
    shown = [done.out, done.err, *(page.read_text("utf-8") for page in pages)]
    for text in shown:
        assert MARKUP not in text
        assert not set("\x00\x07\x1b\u202e") & set(text)


@pytest.mark.slow
def test_a_whole_run_leaves_its_key_nowhere(pref: Pref, tmp_path: Path, server_home: Path) -> None:
    settings = SimulatorSettings.from_mapping({"api_key": KEY})
    with start_simulator(settings) as simulator:
        address = f"llm.base_url={simulator.base_url}"
        done = pref.attributes(tmp_path / "data", "--set", address, OPENAI_API_KEY=KEY)
    assert done.code == 0, done.err
    assert_kept(done, tmp_path, server_home)


@pytest.mark.slow
def test_a_whole_run_leaves_the_password_of_its_ledger_nowhere(
    pref: Pref, tmp_path: Path, server_home: Path, postgres_url: str
) -> None:
    ledger = make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)
    done = pref.attributes(tmp_path / "data", PREF_LEDGER_URL=ledger)
    assert done.code == 0, done.err
    assert_kept(done, tmp_path, server_home)


def test_an_address_with_a_password_in_it_is_refused_and_kept_nowhere(
    pref: Pref, tmp_path: Path, server_home: Path
) -> None:
    address = f"llm.base_url=http://planted:{PASSWORD}@127.0.0.1:9/v1"
    done = pref.attributes(tmp_path / "data", "--set", address)
    assert done.code == 2
    assert "OPENAI_API_KEY" in done.line
    assert_kept(done, tmp_path, server_home)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_a_server_echoes_in_an_error_gets_nowhere(
    pref: Pref, tmp_path: Path, server_home: Path, status: int
) -> None:
    settings = ("calls.max_attempts=2", "calls.timeout_s=5")
    with echo_server(status) as url:
        words = [word for one in (f"llm.base_url={url}", *settings) for word in ("--set", one)]
        done = pref.attributes(tmp_path / "data", *words, OPENAI_API_KEY=KEY)
    assert done.code in (1, 2), (done.out, done.err)
    assert "[secret]" in done.line
    assert "\x1b[31m" not in done.err
    assert_kept(done, tmp_path, server_home)
