"""Compares methods of personalization on a simulated Attributes matrix, from the same answers.

    pref run attributes --prompts FILE --warehouse FOLDER
    python -m benchmarks.comparators --warehouse FOLDER [--seeds 5] [--markdown] [--json]

Texts and verdicts are the simulator's: the figures compare methods, they say nothing about people.
A seed is a split, 80/20 over users and over pairs, and the random choices of every method; five
seeds make each user new once. New users answer the same random seen pairs whatever the method, and
are tested on new pairs by their own labels. Each method has five tries: PReF and classic RLHF
choose among five head strengths by validation likelihood, the model per user among five ridges,
the others among the five settings of `TRIES` by the AUC of seen users, adapted to ten answers, on
the validation pairs. A user's figures are averaged over seeds; intervals resample users, and
differences to PReF are paired by user.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.matrix import Matrix, Split, by_user, facts, read_matrix, split
from pref_model.comparators.interface import Comparator, Fitted, random_answers
from pref_model.comparators.linear import Classic, PerUser, Pref
from pref_model.comparators.lore import Lore
from pref_model.comparators.mrm import Mrm
from pref_model.comparators.pal import Pal
from pref_model.comparators.vpl import Vpl
from pref_model.metrics import auc_per_user, cluster_bootstrap_mean
from pref_model.types import Floats

ANSWERS = (1, 3, 5, 10, 20, 40)
TRIES: dict[str, tuple[Comparator, ...]] = {
    "pref": (Pref(),),
    "classic": (Classic(),),
    "per_user": (PerUser(),),
    "lore": tuple(
        Lore(learning_rate=rate, basis_l2=shrunk)
        for rate, shrunk in ((0.5, 0.0), (0.1, 0.3), (0.1, 3.0), (0.03, 3.0), (0.1, 10.0))
    ),
    "mrm": tuple(
        Mrm(learning_rate=rate, head_l2=shrunk)
        for rate, shrunk in ((0.01, 0.3), (0.03, 0.3), (0.01, 3.0), (0.03, 3.0), (0.03, 10.0))
    ),
    "pal_a": tuple(
        Pal("A", learning_rate=rate, adapt_learning_rate=adapt)
        for rate, adapt in ((3e-4, 0.1), (1e-3, 0.1), (3e-3, 0.1), (1e-2, 0.1), (3e-3, 0.03))
    ),
    "pal_b": tuple(
        Pal("B", learning_rate=rate, adapt_learning_rate=adapt)
        for rate, adapt in ((3e-4, 0.1), (1e-3, 0.1), (3e-3, 0.1), (1e-3, 0.03), (3e-3, 0.03))
    ),
    "vpl": tuple(
        Vpl(learning_rate=rate, weight_decay_l2=decay, steps=1500, users_per_step=16)
        for rate, decay in ((1e-3, 1e-4), (2e-3, 1e-4), (3e-3, 1e-4), (3e-3, 1e-5), (5e-3, 1e-4))
    ),
}


def main() -> None:
    """Prints the table of AUC and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True, help="folder of `pref run attributes`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(TRIES), choices=list(TRIES))
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    matrix = read_matrix(arguments.warehouse)
    splits = [split(matrix, seed) for seed in range(arguments.seeds)]
    curves: dict[str, Floats] = {}
    chosen: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for name in arguments.methods:
        begin, found = time.perf_counter(), []
        chosen[name] = []
        for seed, one in enumerate(splits):
            best, auc = evaluate(TRIES[name], matrix, one, seed)
            chosen[name].append(best)
            found.append(auc)
            shown = np.nanmean(auc, axis=0).round(3).tolist()
            print(f"seed {seed} {name}: try {best}, AUC {shown}", file=sys.stderr, flush=True)
        curves[name] = by_user(matrix, splits, found)
        seconds[name] = (time.perf_counter() - begin) / arguments.seeds
    rows = [row for name in curves for row in summarize(name, curves, seconds[name])]
    if arguments.json:
        chosen = {name: best for name, best in chosen.items() if len(TRIES[name]) > 1}
        print(json.dumps({**facts(matrix, arguments), "chosen_try": chosen, "auc": rows}, indent=1))
    elif arguments.markdown:
        print(markdown(rows))
    else:
        for row in rows:
            print(row)


def evaluate(
    tries: tuple[Comparator, ...], matrix: Matrix, one: Split, seed: int
) -> tuple[int, Floats]:
    """The try that was kept; AUC of each new user after each number of answers (V, answers)."""
    fitted = [method.fit(one.study(matrix), seed) for method in tries]
    best = 0
    if len(fitted) > 1:
        known = matrix.labels[one.known]
        values = [score(each, known, matrix, one, 10, seed + 1000) for each in fitted]
        best = int(np.argmax([np.nanmean(value) for value in values]))
    fresh = matrix.labels[one.fresh]
    curve = [score(fitted[best], fresh, matrix, one, k, seed) for k in ANSWERS]
    return best, np.stack(curve, axis=1)


def score(fitted: Fitted, labels: Floats, matrix: Matrix, one: Split, k: int, seed: int) -> Floats:
    """AUC (U,) on new pairs after the first k of each user's random answers on seen pairs."""
    answers = random_answers(labels, one.seen, max(ANSWERS), seed=seed).head(k)
    margins = fitted.score(fitted.adapt(matrix.corpus, answers), matrix.corpus.take(one.new))
    return auc_per_user(margins, labels[:, one.new])


def summarize(name: str, curves: dict[str, Floats], fit_s: float) -> list[dict[str, Any]]:
    """One row a number of answers: mean AUC, its interval, paired difference to PReF."""
    rows = []
    for column, k in enumerate(ANSWERS):
        own = cluster_bootstrap_mean(curves[name][:, column])
        row: dict[str, Any] = {"method": name, "answers": k, "auc": own.mean, "n_users": own.n}
        row |= {"low": own.low, "high": own.high, "fit_and_tune_s": round(fit_s, 1)}
        if "pref" in curves:
            gap = cluster_bootstrap_mean(curves[name][:, column] - curves["pref"][:, column])
            row |= {"minus_pref": gap.mean, "minus_low": gap.low, "minus_high": gap.high}
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/comparators.md."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    lines = [f"| method | {' | '.join(f'{k}' for k in ANSWERS)} | seconds |"]
    lines.append("|---" * (len(ANSWERS) + 2) + "|")
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        shown = [f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in mine]
        lines.append(f"| {name} | {' | '.join(shown)} | {mine[0]['fit_and_tune_s']} |")
    lines += ["", f"| minus PReF | {' | '.join(f'{k}' for k in ANSWERS)} |"]
    lines.append("|---" * (len(ANSWERS) + 1) + "|")
    for name in names:
        mine = [row for row in rows if row["method"] == name and "minus_pref" in row]
        if name != "pref" and mine:
            shown = [
                f"{row['minus_pref']:+.3f} [{row['minus_low']:+.3f}, {row['minus_high']:+.3f}]"
                for row in mine
            ]
            lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
