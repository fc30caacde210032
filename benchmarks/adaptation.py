"""Times the adaptation of new users (eq 6) against scikit-learn called once a user.

    python benchmarks/adaptation.py [--users 100000] [--answers 20] [--d 8] [--json]

Users, answers and pair features are drawn from a Gaussian world. scikit-learn's
LogisticRegression solves the same ridge problem without an intercept, with its default solver,
timed at its default tolerance and compared at 1e-12 too.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pref_model.adapt import UserPrior, adapt_users
from pref_model.types import Floats

BETA = 1.0


def main() -> None:
    """Prints the timings as a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--d", type=int, default=8)
    parser.add_argument("--scikit-users", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(
        arguments.users, arguments.answers, arguments.d, arguments.scikit_users, arguments.repeats
    )
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        print(f"{key:<32} {value}")


def measure(
    n_users: int, n_answers: int, d: int, n_scikit: int, repeats: int
) -> dict[str, float | int]:
    """Seconds of both, seconds a user, and how far their optima are apart."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_users, n_answers, d))
    users = rng.standard_normal((n_users, d))
    chance = expit(np.einsum("ukd,ud->uk", features, users))
    labels = (rng.random(chance.shape) < chance).astype(float)
    weights, prior = np.ones_like(labels), UserPrior.ridge(d, BETA)
    walls, cpus = [], []
    for _ in range(repeats):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        posterior = adapt_users(features, labels, weights, prior)
        walls.append(time.perf_counter() - begin)
        cpus.append(time.process_time() - begin_cpu)
    both = [one for one in range(n_users) if 0.0 < labels[one].mean() < 1.0][:n_scikit]
    begin = time.perf_counter()
    default = np.stack([scikit(features[one], labels[one]) for one in both])
    scikit_s = (time.perf_counter() - begin) / len(both)
    exact = np.stack([scikit(features[one], labels[one], tol=1e-12) for one in both])
    ours_s = min(walls) / n_users
    return {
        "users": n_users,
        "answers": n_answers,
        "d": d,
        "newton_steps": posterior.n_iterations,
        "wall_s": round(min(walls), 3),
        "wall_s_median": round(float(np.median(walls)), 3),
        "cpu_s": round(min(cpus), 3),
        "wall_us_per_user": round(1e6 * ours_s, 2),
        "scikit_us_per_user": round(1e6 * scikit_s, 1),
        "times_faster": round(scikit_s / ours_s, 1),
        "scikit_users": len(both),
        "largest_difference_default": float(np.abs(default - posterior.mean[both]).max()),
        "largest_difference_tol_1e-12": float(np.abs(exact - posterior.mean[both]).max()),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def scikit(features: Floats, labels: Floats, tol: float = 1e-4) -> Floats:
    """One user's weights by scikit-learn: the default solver at tolerance `tol`."""
    fitted = LogisticRegression(C=1.0 / BETA, fit_intercept=False, tol=tol, max_iter=10_000)
    result: Floats = fitted.fit(features, labels).coef_[0]
    return result


if __name__ == "__main__":
    main()
