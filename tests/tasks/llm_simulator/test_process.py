"""The simulator's process: same bytes every time, and never outlives whoever started it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks._llm.simulator.errors import SimulatorNotStarted
from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.settings import SimulatorSettings

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0


def post(base_url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as reply:
        return bytes(reply.read())


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_closed(port: int) -> bool:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if not is_listening(port):
            return True
        time.sleep(0.02)
    return False


def test_two_processes_give_the_same_bytes(
    ask_answer: Callable[..., list[Any]], ask_verdict: Callable[..., list[Any]]
) -> None:
    bodies = [
        {"model": "simulated-responder", "messages": ask_answer("Why is the sky blue?", "polite")},
        {"model": "simulated-responder", "messages": ask_answer("Why is the sky blue?"), "n": 3},
        {
            "model": "simulated-judge",
            "messages": ask_verdict("likes polite answers", "Hi", "Thank you.", "No."),
            "logprobs": True,
            "top_logprobs": 2,
        },
    ]
    settings = SimulatorSettings(seed=5)
    with start_simulator(settings) as one, start_simulator(settings) as other:
        assert one.port != other.port
        for body in bodies:
            assert post(one.base_url, body) == post(other.base_url, body)
            assert post(one.base_url, body) == post(one.base_url, body)


def test_stopping_twice_is_stopping_once() -> None:
    process = start_simulator(SimulatorSettings())
    assert process.is_running
    process.stop()
    process.stop()
    assert not process.is_running
    assert not is_listening(process.port)


def test_a_killed_parent_takes_its_simulator_along() -> None:
    script = (
        "from tasks._llm.simulator.process import start_simulator\n"
        "from tasks._llm.simulator.settings import SimulatorSettings\n"
        "import time\n"
        "print(start_simulator(SimulatorSettings()).port, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            port = int(parent.stdout.readline())
            assert is_listening(port)
        finally:
            parent.kill()
    assert wait_until_closed(port)


def test_a_taken_port_gives_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SimulatorNotStarted, match="cannot listen") as caught:
            start_simulator(SimulatorSettings(), port=taken.getsockname()[1])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_standing_alone_it_ends_on_a_signal(stop_signal: signal.Signals) -> None:
    command = [sys.executable, "-m", "tasks._llm.simulator", "--settings", '{"seed": 1}']
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        announced = json.loads(process.stdout.readline())
        assert announced["is_simulation"] is True
        assert is_listening(announced["port"])
        os.kill(process.pid, stop_signal)
        assert process.wait(DEADLINE_S) == 0
    assert not is_listening(announced["port"])


def test_a_wrong_setting_ends_the_program_with_one_line() -> None:
    command = [sys.executable, "-m", "tasks._llm.simulator", "--settings", '{"noise": 1}']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "unknown name 'noise'" in result.stderr
