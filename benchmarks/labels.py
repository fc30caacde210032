"""What to do with ties, soft labels and unequal numbers of verdicts: each choice against the other.

    python benchmarks/labels.py [--json] [--seeds 10]

Known worlds: 67 users, 100 pairs (80 to train on), four base rewards, 20 features that carry them
with noise. A judge answers each cell by the true probability. The measure is the mean over users
of the AUC on the 20 new pairs against the true order, and its paired difference over worlds with
a 95 % interval (normal quantile).

ties: two verdicts a cell, ties used as 1/2 against ties dropped.
soft: the judge's own probability, with noise on its logit, against one hard verdict drawn by it.
weights: 2, 4, 8 or 16 verdicts a cell by chance, weighted by their number against all alike.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from pref_model.fit import fit_reward_model
from pref_model.metrics import auc_per_user
from pref_model.model import FitConfig, RunConfig
from pref_model.types import Preferences, make_preferences

N_USERS, N_PAIRS, N_SEEN, D, WIDTH = 67, 100, 80, 4, 20


def cells(
    labels: NDArray[np.float64], weights: NDArray[np.float64], pairs: NDArray[np.int64]
) -> Preferences:
    """Cells of all users and some pairs."""
    user, place = np.divmod(np.arange(N_USERS * pairs.size), pairs.size)
    pair = pairs[place]
    return make_preferences(user, pair, labels[user, pair], weights[user, pair])


def measured(
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    world: tuple[NDArray[np.float64], NDArray[np.float64]],
    seed: int,
    ties: Any = "half",
) -> float:
    """Mean AUC of seen users on new pairs after a fit to these labels."""
    differences, margins = world
    model = fit_reward_model(
        differences,
        cells(labels, weights, np.arange(N_SEEN)),
        N_USERS,
        FitConfig(d=D, ties=ties, head_l2=(3.0,), steps=200),
        RunConfig(seed=seed),
        cells(labels, weights, np.arange(N_SEEN, N_PAIRS)),
    )
    found = model.user_weights @ model.pair_features(differences[N_SEEN:]).T
    return float(np.nanmean(auc_per_user(found, (margins[:, N_SEEN:] > 0).astype(float))))


def one_world(seed: int) -> dict[str, tuple[float, float]]:
    """AUC with each comparison's first and second choice."""
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((N_USERS, D)) + np.array([1.0, 0.0, 0.0, 0.0])
    differences = rng.standard_normal((N_PAIRS, WIDTH))
    margins = users @ (rng.standard_normal((D, WIDTH)) / np.sqrt(WIDTH)) @ differences.T
    world = differences + 0.3 * rng.standard_normal(differences.shape), margins
    chance, alike = expit(margins), np.ones(margins.shape)
    two = rng.binomial(2, chance) / 2.0
    told = expit(logit(chance) + 0.5 * rng.standard_normal(margins.shape))
    hard = (rng.random(margins.shape) < told).astype(float)
    count = rng.choice([2, 4, 8, 16], margins.shape)
    uneven = rng.binomial(count, chance) / count
    return {
        "ties: half against dropped": (
            measured(two, alike, world, seed),
            measured(two, alike, world, seed, ties="drop"),
        ),
        "labels: soft against hard": (
            measured(told, alike, world, seed),
            measured(hard, alike, world, seed),
        ),
        "weights: by verdicts against equal": (
            measured(uneven, count / 2.0, world, seed),
            measured(uneven, alike, world, seed),
        ),
    }


def main() -> None:
    """Compare over all worlds and print one line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    worlds = [one_world(seed) for seed in range(given.seeds)]
    found = {}
    for name in worlds[0]:
        pairs = np.array([world[name] for world in worlds])
        apart = pairs[:, 0] - pairs[:, 1]
        half = 1.96 * apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.inf
        found[name] = {
            "first_auc": round(float(pairs[:, 0].mean()), 4),
            "second_auc": round(float(pairs[:, 1].mean()), 4),
            "difference": round(float(apart.mean()), 4),
            "low": round(float(apart.mean() - half), 4),
            "high": round(float(apart.mean() + half), 4),
        }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, row in found.items():
        print(
            f"{name:36} {row['first_auc']:.4f} {row['second_auc']:.4f}"
            f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        )


if __name__ == "__main__":
    main()
