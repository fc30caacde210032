"""Times the whole chain as a user runs it: fresh, again, and again with a running server.

    python benchmarks/chain.py [--prompts FILE] [--json]

Prints wall time, calls, peak memory of all processes together, AUC, win rate and what the judge
audit recovered of the simulator's known settings. Works in a temporary folder with a HOME of its
own and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Runs the three cases and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", help="prompt file; default: the shipped prompts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.prompts)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, case in found.items():
        print(name)
        for key, value in case.items():
            print(f"  {key:<24} {value}")


def measure(home: Path, prompts: str | None) -> dict[str, dict[str, Any]]:
    """Wall seconds and figures of a fresh run, a repeated one, and one with a running server."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, "-m", "flows.cli", "run", "attributes", "--json"]
    command += ["--warehouse", str(home / "data")]
    if prompts:
        command += ["--prompts", str(Path(prompts).resolve())]
    fresh = timed(command, env, home)
    warm = timed(command, env, home)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "server", "--port", str(port)],
        env=env,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health")
        served = {**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        with_server = [timed(command, served, home) for _ in range(3)]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    return {
        "fresh run, nothing started": {**facts(fresh), **figures(fresh["found"])},
        "again, temporary server": facts(warm),
        "again, running server (median of 3)": facts(
            sorted(with_server, key=lambda one: float(one["wall_s"]))[1]
        ),
    }


def timed(command: list[str], env: dict[str, str], cwd: Path) -> dict[str, Any]:
    """Runs a command; wall seconds from start to end of the process, and peak memory."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = Peak(process.pid)
    out, err = process.communicate()
    wall = time.monotonic() - started
    peak.stop()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{err}")
    return {
        "wall_s": round(wall, 1),
        "peak_mb": round(peak.n_bytes / 1e6),
        "found": json.loads(out),
        "err": err,
    }


def facts(run: dict[str, Any]) -> dict[str, Any]:
    """Time, memory and calls of a run."""
    found = run["found"]
    return {
        "wall_s": run["wall_s"],
        "peak_memory_mb": run["peak_mb"],
        "calls_made": found["calls_made"],
        "calls_reused": found["calls_reused"],
    }


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """What the chain must reach: AUC gap, win rate, judge audit."""
    auc = {name: by_count["10"]["mean"] for name, by_count in found["auc"].items()}
    win, audit = found["win_rate"]["pref"], found["judge_audit"]
    return {
        "auc_at_10": {name: round(value, 3) for name, value in auc.items()},
        "auc_gap_to_classic": round(auc["pref"] - auc["classic"], 3),
        "win_rate": [round(win[part], 3) for part in ("mean", "low", "high")],
        "position_bias_logit": [
            round(audit[f"position_bias_{part}logit"], 3) for part in ("", "low_", "high_")
        ],
        "true_position_bias": audit["true_position_bias_logit"],
        "sloppy, unusable": [audit["n_tolerated"], audit["n_unparsed"]],
    }


class Peak:
    """Largest sum of resident memory over a process and its descendants, sampled 5 times/s."""

    def __init__(self, pid: int) -> None:
        self.n_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            parents, sizes = {}, {}
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    parents[int(folder.name)] = int(fields[1])
                    sizes[int(folder.name)] = int(fields[21]) * PAGE_BYTES
                except OSError:
                    continue
            ours = [pid for pid in parents if self._is_ours(pid, parents)]
            self.n_bytes = max(self.n_bytes, sum(sizes[pid] for pid in ours))

    def _is_ours(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents:
            if pid == self._pid:
                return True
            pid = parents[pid]
        return False


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(url: str) -> None:
    """Waits until a server answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


if __name__ == "__main__":
    main()
