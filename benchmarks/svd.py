"""Times the SVD start of Algorithm 1 at two sizes, each in a process of its own.

    python benchmarks/svd.py [--json] [--threads 1]

1,500 x 2,262 with 3.3 % of the cells (limit 2 s), and 100,000 x 20,000 with 0.1 % (limits 60 s and
2 GB). Peak memory is that of the whole process, libraries and input included. The correlation is
with the true margins of random cells, nearly all of them never observed. The matrix library gets
one thread: the products are narrow, and on a busy machine its threads mostly wait for one another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SIZES = {
    "prism": {"users": 1500, "pairs": 2262, "coverage": 0.033, "d": 6, "limit_s": 2, "limit_gb": 2},
    "large": {
        "users": 100_000,
        "pairs": 20_000,
        "coverage": 0.001,
        "d": 8,
        "limit_s": 60,
        "limit_gb": 2,
    },
}


def measure(users: int, pairs: int, coverage: float, d: int) -> dict[str, float]:
    """Factor one planted matrix; wall and processor seconds, peak memory, recovery."""
    import numpy as np
    from scipy.special import expit

    from pref_model.svd import svd_start
    from pref_model.types import make_preferences

    rng = np.random.default_rng(0)
    taste, feature = rng.standard_normal((users, d)), rng.standard_normal((pairs, d))
    taste[:, 0] += 1.0
    cell = np.unique(rng.integers(0, users * pairs, int(coverage * users * pairs)))
    user, pair = cell // pairs, cell % pairs
    chance = expit(np.einsum("nd,nd->n", taste[user], feature[pair]))
    cells = make_preferences(user, pair, (rng.random(cell.size) < chance).astype(float))
    wall, cpu = time.perf_counter(), time.process_time()
    start = svd_start(cells, users, pairs, d)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    i, j = rng.integers(0, users, 200_000), rng.integers(0, pairs, 200_000)
    found = np.einsum("nd,nd->n", start.user_weights[i], start.pair_features[j])
    true = np.einsum("nd,nd->n", taste[i], feature[j])
    return {
        "cells": int(cell.size),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "refills": start.n_refills,
        "correlation": round(float(np.corrcoef(found, true)[0, 1]), 3),
    }


def main() -> None:
    """Runs both sizes and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of the matrix library")
    parser.add_argument("--size", choices=sorted(SIZES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size:
        size = {k: v for k, v in SIZES[arguments.size].items() if not k.startswith("limit")}
        print(json.dumps(measure(**size)))  # type: ignore[arg-type]
        return
    found = {}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(arguments.threads)
    for name, size in SIZES.items():
        command = [sys.executable, __file__, "--size", name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        one = json.loads(done.stdout)
        is_within = one["wall_s"] < size["limit_s"] and one["peak_memory_gb"] < size["limit_gb"]
        found[name] = {**size, "threads": arguments.threads, **one, "is_within_limits": is_within}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, one in found.items():
        print(name, *(f"{key}={value}" for key, value in one.items()))


if __name__ == "__main__":
    main()
