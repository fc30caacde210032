"""What each part of the method adds, on a simulated Attributes matrix: one part left out at a time.

    pref run attributes --prompts FILE --warehouse FOLDER
    python -m benchmarks.ablations --warehouse FOLDER [--seeds 10] [--markdown] [--json]

A seed is a split, 80/20 over users and over pairs, and the fit's random choices. New users answer
random seen pairs and are tested on new pairs by their own labels; the figure of a seed is the mean
AUC of its new users after 5, 10, 20 and 40 answers. Spread is the standard deviation over seeds;
differences to the full method are paired by seed. Texts and verdicts are the simulator's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.matrix import Matrix, cells, facts, read_matrix, split
from pref_model.adapt import UserPrior, adapt_users, training_prior
from pref_model.comparators.interface import random_answers
from pref_model.fit import fit_reward_model
from pref_model.metrics import auc_per_user
from pref_model.model import FitConfig, RunConfig
from pref_model.types import Floats

ANSWERS = (5, 10, 20, 40)
FULL = FitConfig()
# Refitting the training users for the prior of new ones needs some ridge to be finite.
LEAST_RIDGE = 1e-3


class Arm(NamedTuple):
    """One thing changed.

    Attributes:
        config: What is fitted.
        n_labels: Labels (cells of the matrix) that were bought; None for all of them.
        is_ridge: Whether new users get the ridge prior of eq 6 in place of the training users'.
        is_stopped: Whether a validation part stops the fit and chooses the head's strength.
    """

    config: FitConfig = FULL
    n_labels: int | None = None
    is_ridge: bool = False
    is_stopped: bool = True


NO_L2 = replace(FULL, user_l2=0.0, head_l2=(0.0,))
ARMS: dict[str, Arm] = {
    "full method": Arm(),
    "random start": Arm(replace(FULL, start="random")),
    "raw SVD start": Arm(replace(FULL, start="svd_raw")),
    "no L2 on users": Arm(replace(FULL, user_l2=0.0)),
    "no L2 on the head": Arm(replace(FULL, head_l2=(0.0,))),
    "no L2 at all": Arm(NO_L2),
    "no L2, random start": Arm(replace(NO_L2, start="random")),
    "no gradient steps": Arm(replace(FULL, steps=0)),
    "ties dropped": Arm(replace(FULL, ties="drop")),
    "ridge prior for new users": Arm(is_ridge=True),
    "all 500 steps": Arm(is_stopped=False),
    "all 500 steps, random start": Arm(replace(FULL, start="random"), is_stopped=False),
    "all 500 steps, no L2": Arm(NO_L2, is_stopped=False),
    "all 500 steps, no L2, random start": Arm(replace(NO_L2, start="random"), is_stopped=False),
    **{f"d = {d}": Arm(replace(FULL, d=d)) for d in range(1, 13)},
    **{f"{n:,} labels": Arm(n_labels=n) for n in (1000, 2000, 4000, 5000, 6000, 7000)},
    **{
        f"{n:,} labels, {name}": Arm(config, n)
        for n in (1000, 4000)
        for name, config in (
            ("random start", replace(FULL, start="random")),
            ("raw SVD start", replace(FULL, start="svd_raw")),
            ("no L2", NO_L2),
            ("no L2, random start", replace(NO_L2, start="random")),
        )
    },
}


def main() -> None:
    """Prints one row an arm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True, help="folder of `pref run attributes`")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    matrix = read_matrix(arguments.warehouse)
    found: dict[str, Floats] = {}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys(["full method", *arguments.arms]):
        begin = time.perf_counter()
        found[name] = np.stack([one_seed(ARMS[name], matrix, s) for s in range(arguments.seeds)])
        seconds[name] = (time.perf_counter() - begin) / arguments.seeds
        shown = found[name].mean(axis=0).round(3).tolist()
        print(f"{name}: {shown}", file=sys.stderr, flush=True)
    rows = [
        summarize(name, auc, found["full method"], seconds[name]) for name, auc in found.items()
    ]
    if arguments.json:
        print(json.dumps({**facts(matrix, arguments), "auc": rows}, indent=1))
    elif arguments.markdown:
        print(markdown(rows))
    else:
        for row in rows:
            print(row)


def one_seed(arm: Arm, matrix: Matrix, seed: int) -> Floats:
    """Mean AUC of the new users after each number of answers: (answers,)."""
    one, config = split(matrix, seed), arm.config
    known = matrix.labels[one.known]
    if arm.n_labels is not None:
        rng = np.random.default_rng([seed, 11])
        share = arm.n_labels / np.sum(~np.isnan(matrix.labels))
        known = np.where(rng.random(known.shape) < share, known, np.nan)
    train = cells(known, one.seen)
    model = fit_reward_model(
        matrix.corpus.differences,
        train,
        len(known),
        config,
        RunConfig(seed=seed),
        cells(known, one.new) if arm.is_stopped else None,
    )
    phi = model.pair_features(matrix.corpus.differences)
    ridge = max(config.user_l2, LEAST_RIDGE)
    prior = training_prior(phi, train, len(known), ridge)
    if arm.is_ridge:
        prior = UserPrior.ridge(config.d, ridge)
    fresh = matrix.labels[one.fresh]
    every = random_answers(fresh, one.seen, max(ANSWERS), seed=seed)
    curve = []
    for k in ANSWERS:
        pair, label = every.head(k)
        present = (~np.isnan(label)).astype(np.float64)
        users = adapt_users(phi[pair], label, present, prior).mean
        curve.append(np.nanmean(auc_per_user(users @ phi[one.new].T, fresh[:, one.new])))
    return np.asarray(curve)


def summarize(name: str, auc: Floats, full: Floats, seconds: float) -> dict[str, object]:
    """Mean and spread over seeds (S, answers), and the paired difference to the full method."""
    row: dict[str, object] = {"arm": name, "seeds": len(auc), "fit_s": round(seconds, 2)}
    for column, k in enumerate(ANSWERS):
        gap = auc[:, column] - full[:, column]
        row[f"auc_{k}"] = round(float(auc[:, column].mean()), 4)
        row[f"spread_{k}"] = round(float(auc[:, column].std(ddof=1)), 4)
        row[f"minus_full_{k}"] = round(float(gap.mean()), 4)
        row[f"minus_full_error_{k}"] = round(float(gap.std(ddof=1) / np.sqrt(len(gap))), 4)
    return row


def markdown(rows: list[dict[str, object]]) -> str:
    """The table of docs/ablations.md."""
    lines = [
        f"| | {' | '.join(f'AUC at {k} (spread)' for k in ANSWERS)} | minus full at 10 | at 40 |",
        "|---" * (len(ANSWERS) + 3) + "|",
    ]
    for row in rows:
        shown = [f"{row[f'auc_{k}']:.3f} ({row[f'spread_{k}']:.3f})" for k in ANSWERS]
        gaps = [
            f"{row[f'minus_full_{k}']:+.3f} ± {row[f'minus_full_error_{k}']:.3f}" for k in (10, 40)
        ]
        lines.append(f"| {row['arm']} | {' | '.join([*shown, *gaps])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
