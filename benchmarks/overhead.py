"""What orchestration costs: start-up, bookkeeping beside calls, memory, and a rerun of everything.

    python -m benchmarks.overhead [start] [share] [memory] [warm] [--calls N] [--json]

Works against a Prefect server and a simulated endpoint of its own, in a temporary folder. ``share``
is 16,800 verdicts at 100 ms each with 16 in flight: the judging stage of a run, and then the same
requests by the completion engine alone, with a ledger of its own but no Prefect and no warehouse.
What the stage takes longer is their bookkeeping. No client can do it in less than 105 s; between
that and the engine alone are HTTP, the ledger and the simulator's work on the same cores.
``memory`` makes ``--calls`` verdicts without latency and samples
resident memory of the run and of the Prefect server by tenths of the calls.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chain import PAGE_BYTES, free_port, wait_for
from tasks._llm.engine import CompletionEngine
from tasks._llm.prices import load_prices
from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallRequest, Endpoint, EngineSettings
from warehouse.ledger import open_ledger

ROOT = Path(__file__).resolve().parents[1]
PIECES = ("start", "share", "memory", "warm")
N_PERSONAS, N_PROMPTS, LATENCY_S, IN_FLIGHT = 84, 100, 0.1, 16
SIMULATED = "simulated"

# Only as far as the matrix: training is no bookkeeping.
_MATRIX = """
import json, sys
from tasks._settings import prepare_prefect
config = json.loads(sys.argv[1])
prepare_prefect(config["warehouse"])
from flows._console import Display
from flows.attributes import attributes
from tasks import chain
from tasks.config import AttributesConfig
with Display() as display:
    chain.watch(display.stage)
    print(json.dumps(attributes(AttributesConfig.model_validate(config), until="split")))
"""


class Place(NamedTuple):
    """A folder with its Prefect server: environment, folder, and the server's process id."""

    home: Path
    env: dict[str, str]
    server_pid: int


def main() -> None:
    """Measures what is asked for and prints it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", choices=[*PIECES, []], help="default: all")
    parser.add_argument("--calls", type=int, default=226_200, help="verdicts of the memory piece")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for piece in arguments.pieces or PIECES:
        with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as place:
            if piece == "memory":
                found[piece] = memory(place, arguments.calls)
            else:
                found[piece] = {"start": start, "share": share, "warm": warm}[piece](place)
        if not arguments.json:
            print(piece, json.dumps(found[piece], indent=1))
    if arguments.json:
        print(json.dumps(found, indent=1))


@contextmanager
def server(home: Path) -> Iterator[Place]:
    """A Prefect server as `pref server` starts it."""
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "server", "--port", str(port)],
            env=env, cwd=home, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield Place(home, env, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def start(place: Place) -> dict[str, Any]:
    """Seconds from the command to the first call on record; median of three new warehouses.

    Processor seconds of the run itself tell whether a busy machine made it slow.
    """
    took, cpu = [], []
    for number in range(3):
        warehouse = place.home / f"data-{number}"
        began = datetime.now(UTC)
        command = [sys.executable, "-m", "flows.cli", "run", "attributes", "--json"]
        process = subprocess.Popen(
            [*command, "--warehouse", str(warehouse)],
            env=place.env, cwd=place.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while (first := first_send(warehouse)) is None and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        used = os.wait4(process.pid, 0)[2]
        if first is None:
            raise SystemExit("the run made no call")
        took.append((first - began).total_seconds())
        cpu.append(used.ru_utime + used.ru_stime)
    return {
        "first_call_s": round(sorted(took)[1], 2),
        "all_s": [round(one, 2) for one in took],
        "cpu_s": round(sorted(cpu)[1], 2),
    }


def first_send(warehouse: Path) -> datetime | None:
    """When the first call of a warehouse's ledger went on record."""
    path = warehouse / "ledger.sqlite"
    if not path.is_file():
        return None
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            [[found]] = connection.execute("select min(sent_at) from attempts").fetchall()
    except sqlite3.OperationalError:
        return None
    return datetime.fromisoformat(found).replace(tzinfo=UTC) if found else None


def share(place: Place) -> dict[str, Any]:
    """Part of the judging stage that is Prefect's and the warehouse's bookkeeping."""
    calls = {"max_in_flight": IN_FLIGHT}
    simulator = {"latency_s": LATENCY_S}
    config = {"ingest": {"n_prompts": N_PROMPTS}, "calls": calls, "llm": {"simulator": simulator}}
    process = matrix(place, config)
    out, err = process.communicate()
    took_s = judging_s(process, err)
    n_calls = 2 * N_PERSONAS * N_PROMPTS
    engine_s = alone_s(place, n_calls)
    return {
        "n_calls": n_calls,
        "calls_made": json.loads(out)["calls_made"],
        "stage_s": took_s,
        "engine_alone_s": round(engine_s, 1),
        "waiting_s": n_calls * LATENCY_S / IN_FLIGHT,
        "overhead_share": round(1 - engine_s / took_s, 4),
        "task_runs_lost": lost_task_runs(place),
    }


def alone_s(place: Place, n_calls: int) -> float:
    """Seconds the engine by itself takes for the last calls of a run's ledger, bought anew."""
    with sqlite3.connect(f"file:{place.home / 'data' / 'ledger.sqlite'}?mode=ro", uri=True) as one:
        rows = one.execute("select request_zlib from calls order by sent_at").fetchall()
    requests = [as_request(json.loads(zlib.decompress(row[0]))) for row in rows[-n_calls:]]
    simulator = start_simulator(SimulatorSettings(latency_s=LATENCY_S))
    try:
        with (
            open_ledger(place.home / "alone.sqlite") as ledger,
            CompletionEngine(
                lambda: Endpoint(SIMULATED, simulator.base_url),
                ledger,
                EngineSettings(max_in_flight=IN_FLIGHT),
                load_prices(),
            ) as engine,
        ):
            began = time.monotonic()
            engine.complete(requests)
            return time.monotonic() - began
    finally:
        simulator.stop()


def as_request(asked: dict[str, Any]) -> CallRequest:
    """A request as the ledger keeps it, for another endpoint of the same kind."""
    return CallRequest(SIMULATED, asked["model"], asked["messages"], asked["sampling"])


def matrix(place: Place, config: dict[str, Any]) -> subprocess.Popen[str]:
    """Starts a run as far as the matrix."""
    told = json.dumps({"warehouse": str(place.home / "data"), **config})
    return subprocess.Popen(
        [sys.executable, "-c", _MATRIX, told],
        env=place.env, cwd=place.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def judging_s(process: subprocess.Popen[str], err: str) -> float:
    """What the run says of its judging stage."""
    line = re.search(r"^ *judge +([0-9.]+) s", err, flags=re.MULTILINE)
    if process.returncode != 0 or line is None:
        raise SystemExit(f"the run failed:\n{err}")
    return float(line[1])


def lost_task_runs(place: Place) -> int:
    """Shards of judging whose end the server has not on record, a few seconds after the run."""
    wanted = 2 * N_PERSONAS * N_PROMPTS // 200
    body = {
        "task_runs": {"name": {"like_": "judge shard"}, "state": {"type": {"any_": ["COMPLETED"]}}}
    }
    request = urllib.request.Request(
        f"{place.env['PREFECT_API_URL']}/task_runs/count",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    for _ in range(20):
        with urllib.request.urlopen(request, timeout=10) as reply:
            n_lost = wanted - int(reply.read())
        if n_lost <= 0:
            break
        time.sleep(0.5)
    return n_lost


def memory(place: Place, n_calls: int) -> dict[str, Any]:
    """Resident megabytes of run and server, by tenths of the verdicts."""
    n_prompts = -(-n_calls // (2 * N_PERSONAS))
    prompts = place.home / "prompts.jsonl"
    lines = [{"prompt": f"Question {number}: how does one do thing {number} well?"}
             for number in range(n_prompts)]  # fmt: skip
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest = {"n_prompts": n_prompts, "prompts": str(prompts)}
    process = matrix(place, {"ingest": ingest})
    client: list[int] = []
    prefect: list[int] = []
    with (place.home / "errors.log").open("w") as log:
        while process.poll() is None:
            if done_calls(place) >= (len(client) + 1) * n_calls / 10:
                client.append(resident_mb(process.pid))
                prefect.append(sum(map(resident_mb, family(place.server_pid))))
            time.sleep(0.25)
        out, err = process.communicate()
        log.write(err)
    took_s = judging_s(process, err)
    return {
        "calls_made": json.loads(out)["calls_made"],
        "judging_s": took_s,
        "run_mb_by_tenths": client,
        "server_mb_by_tenths": prefect,
    }


def done_calls(place: Place) -> int:
    """Replies in the ledger."""
    path = place.home / "data" / "ledger.sqlite"
    if not path.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("select max(rowid) from calls").fetchone()[0] or 0)
    except sqlite3.OperationalError:
        return 0


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def resident_mb(pid: int) -> int:
    """Resident memory of a process, 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES // 1_000_000
    except (OSError, IndexError):
        return 0


def warm(place: Place) -> dict[str, Any]:
    """Wall seconds of a whole run, and of the same command again."""
    command = [sys.executable, "-m", "flows.cli", "run", "attributes", "--json"]
    command += ["--warehouse", str(place.home / "data")]
    walls = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run(command, env=place.env, cwd=place.home, capture_output=True)
        walls.append(round(time.monotonic() - began, 1))
        if done.returncode:
            raise SystemExit(done.stderr.decode())
    return {"first_s": walls[0], "again_s": walls[1:]}


if __name__ == "__main__":
    main()
