"""Compares the rules that choose questions: seconds a round, and answers needed in known worlds.

    python -m benchmarks.questions [--seeds 20] [--pools 100 1000] [--markdown] [--json]

1. Timing: one user, 100,000 candidate pairs, d = 8; a round is score, choose, refit.
2. Worlds: the pair features are the true ones, so only the choice of questions and the prior
   matter. In "trait" users are pairs of signed traits plus a shared taste; in "gaussian" they are
   normal around one. An answer is one draw of eq 1. 67 users who answered 100 pairs train the
   prior; 17 others, each twice with fresh answers, are asked up to 40 questions out of a pool and
   tested on 200 other pairs. The figure is the first number of answers at which the mean AUC is
   at least that of 40 random questions with the ridge prior; intervals resample seeds.

On a matrix of a warehouse `pref benchmark --only questions` compares them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from pref_model.adapt import UserPrior, adapt_users, training_prior
from pref_model.metrics import auc_per_user
from pref_model.questions import RULES, question_scores, run_questionnaire
from pref_model.types import Floats, preferences_from_matrix

N_TRAIN, N_NEW, N_REPEATS, N_TRAIN_PAIRS, N_TEST, N_QUESTIONS = 67, 17, 2, 100, 200, 40
BETA = 1.0
DRAWS = 2000
PRIORS = ("ridge", "training users")


class KnownWorld(NamedTuple):
    """Users (U, d) with the training ones first, candidate and test pair features (., d)."""

    users: Floats
    candidates: Floats
    tests: Floats


def trait_world(rng: np.random.Generator, pool: int) -> KnownWorld:
    """84 users with two of seven signed traits each; responses show two traits and some noise."""
    d = 7
    couples = [
        (i, j, a, b)
        for i, j in itertools.combinations(range(d), 2)
        for a, b in itertools.product((-1.0, 1.0), repeat=2)
    ]
    users = np.tile(0.4 * rng.standard_normal(d), (len(couples), 1))
    for row, (i, j, a, b) in enumerate(couples):
        users[row, [i, j]] += (a, b)

    def response(n: int) -> Floats:
        style = 0.3 * rng.standard_normal((n, d))
        for row in range(n):
            style[row, rng.choice(d, 2, replace=False)] += rng.choice([-1.0, 1.0], 2)
        return style

    users = users[rng.permutation(len(users))]
    n = pool + N_TEST
    pairs = 2.0 * (response(n) - response(n))
    return KnownWorld(users, pairs[:pool], pairs[pool:])


def gaussian_world(rng: np.random.Generator, pool: int) -> KnownWorld:
    """Users around a shared taste with unequal spreads; pairs of normal, unequal features."""
    d = 8
    spread = np.linspace(1.4, 0.4, d)
    users = rng.standard_normal(d) * 0.5 + spread * rng.standard_normal((N_TRAIN + N_NEW, d))
    size = 0.3 + rng.random(pool + N_TEST)[:, None]
    pairs = 1.5 * size * rng.standard_normal((pool + N_TEST, d))
    return KnownWorld(users, pairs[:pool], pairs[pool:])


WORLDS = {"trait": trait_world, "gaussian": gaussian_world}


def main() -> None:
    """Prints both tables, as text, Markdown or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--pools", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    timing = time_rules(arguments.candidates)
    seeds = range(arguments.seeds)
    curves = {
        (name, pool): np.stack([one_seed(name, pool, seed) for seed in seeds])
        for name, pool in itertools.product(WORLDS, arguments.pools)
    }
    rows = [row for where, curve in curves.items() for row in summarize(*where, curve)]
    if arguments.json:
        print(json.dumps({"timing_ms": timing, "answers": rows}, indent=1))
    elif arguments.markdown:
        print(markdown(timing, rows, arguments.seeds))
    else:
        for row in rows:
            print(row)
        print(timing)


def time_rules(n_candidates: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of scoring and of a whole round (score, choose, refit) by rule."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_candidates, 8))
    root = rng.standard_normal((8, 8)) / 3.0
    mean, covariance = rng.standard_normal((1, 8)), (root @ root.T + 0.1 * np.eye(8))[None]
    labels = np.ones((1, 10))
    found = {}
    for rule in RULES:
        question_scores(rule, features, mean, covariance)  # bald makes its table once
        scored, whole = [], []
        for _ in range(15):
            begin = time.perf_counter()
            scores = question_scores(rule, features, mean, covariance)
            scored.append(time.perf_counter() - begin)
            chosen = scores[0].argmax()
            asked = features[None, chosen : chosen + 1].repeat(10, axis=1)
            adapt_users(asked, labels, np.ones((1, 10)), UserPrior.ridge(8, 1.0))
            whole.append(time.perf_counter() - begin)
        found[rule] = {
            "score_ms": round(1e3 * float(np.median(scored)), 2),
            "round_ms": round(1e3 * float(np.median(whole)), 2),
        }
    return found


def one_seed(world_name: str, pool: int, seed: int) -> Floats:
    """Mean AUC over new users after 0..40 answers: (priors, rules, 41)."""
    rng = np.random.default_rng([seed, sorted(WORLDS).index(world_name)])
    world = WORLDS[world_name](rng, pool)
    seen, new = world.users[:N_TRAIN], world.users[N_TRAIN:].repeat(N_REPEATS, axis=0)
    train = draw(rng, seen, world.candidates[:N_TRAIN_PAIRS])
    answers, truth = draw(rng, new, world.candidates), draw(rng, new, world.tests)
    priors = {
        "ridge": UserPrior.ridge(world.candidates.shape[1], BETA),
        "training users": training_prior(
            world.candidates, preferences_from_matrix(train), N_TRAIN, BETA
        ),
    }
    return ask(world.candidates, answers, world.tests, truth, priors, seed)


def ask(
    candidates: Floats,
    answers: Floats,
    tests: Floats,
    truth: Floats,
    priors: dict[str, UserPrior],
    seed: int,
) -> Floats:
    """Ask every new user by every rule under every prior: mean AUC (priors, rules, 41)."""
    curves = np.empty((len(PRIORS), len(RULES), N_QUESTIONS + 1))
    for (i, prior), (j, rule) in itertools.product(enumerate(PRIORS), enumerate(RULES)):
        asked = run_questionnaire(
            candidates,
            np.arange(len(candidates)),
            answers,
            priors[prior],
            rule,
            N_QUESTIONS,
            [f"{seed}-{one}" for one in range(len(answers))],
            seed=seed,
            n_answers=range(N_QUESTIONS + 1),
        )
        for k, mean in enumerate(asked.means):
            curves[i, j, k] = np.nanmean(auc_per_user(mean @ tests.T, truth))
    return curves


def draw(rng: np.random.Generator, users: Floats, pairs: Floats) -> Floats:
    """One answer a cell by eq 1: 0 or 1."""
    chance = expit(users @ pairs.T)
    return (rng.random(chance.shape) < chance).astype(np.float64)


def summarize(world: str, pool: int, curves: Floats) -> list[dict[str, object]]:
    """Answers needed by rule and prior, against random@40 of the ridge and of the same prior."""
    n_seeds = len(curves)
    random = RULES.index("random")
    rng = np.random.default_rng(0)
    samples = rng.integers(0, n_seeds, (DRAWS, n_seeds))
    means = np.concatenate([curves.mean(axis=0)[None], curves[samples].mean(axis=1)])
    rows: list[dict[str, object]] = []
    for (i, prior), (j, rule) in itertools.product(enumerate(PRIORS), enumerate(RULES)):
        row: dict[str, object] = {"world": world, "pool": pool, "prior": prior, "rule": rule}
        for name, base in (("ridge", 0), ("same", i)):
            goal = means[:, base, random, -1]
            reached = np.maximum.accumulate(means[:, i, j], axis=1) >= goal[:, None]
            needed = np.where(reached.any(axis=1), reached.argmax(axis=1), N_QUESTIONS + 1)
            row[f"needed_{name}"] = int(needed[0])
            row[f"needed_{name}_low"] = int(np.quantile(needed[1:], 0.025, method="lower"))
            row[f"needed_{name}_high"] = int(np.quantile(needed[1:], 0.975, method="higher"))
        for k in (5, 10, 15, 40):
            row[f"auc_{k}"] = round(float(means[0, i, j, k]), 4)
        rows.append(row)
    return rows


def markdown(timing: dict[str, dict[str, float]], rows: list[dict[str, object]], n: int) -> str:
    """The tables of docs/questions.md."""
    lines = [
        f"| world | pool | prior | rule | needed [95 %] | against its own prior [95 %] "
        f"| AUC at 5 | 10 | 15 | 40 ({n} seeds) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [str(row[name]) for name in ("world", "pool", "prior", "rule")]
        for name in ("ridge", "same"):
            low, high = shown(row[f"needed_{name}_low"]), shown(row[f"needed_{name}_high"])
            cells.append(f"{shown(row[f'needed_{name}'])} [{low}, {high}]")
        cells += [f"{row[f'auc_{k}']:.3f}" for k in (5, 10, 15, 40)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| rule | scoring, ms | whole round, ms |", "|---|---|---|"]
    lines += [f"| {rule} | {one['score_ms']} | {one['round_ms']} |" for rule, one in timing.items()]
    return "\n".join(lines)


def shown(needed: object) -> str:
    """A number of answers, or that 40 were not enough."""
    return "> 40" if isinstance(needed, int) and needed > N_QUESTIONS else str(needed)


if __name__ == "__main__":
    main()
