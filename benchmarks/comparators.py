"""Compares methods of personalization on a simulated Attributes matrix, from the same answers.

    python benchmarks/comparators.py [--prompts FILE] [--seeds 3] [--markdown] [--json]

The texts and verdicts come from the simulated responder and judge, in this process: 84 personas,
100 prompts, both orders, mean of the two verdicts. They are simulated: the figures compare
methods, they say nothing about people. Per seed, users and prompts are split 80/20; new users
answer the same random seen pairs whatever the method, and are tested on new pairs by their own
labels. Each method has five tries: PReF and classic RLHF choose among five head strengths by
validation likelihood, the model per user among five ridges, the others among the five settings
of `TRIES` by the AUC of seen users, adapted to ten answers, on the validation pairs. Intervals
resample users; differences to PReF are paired by user.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pref_model.comparators.interface import (
    Comparator,
    Corpus,
    Fitted,
    Study,
    random_answers,
)
from pref_model.comparators.linear import Classic, PerUser, Pref
from pref_model.comparators.lore import Lore
from pref_model.comparators.mrm import Mrm
from pref_model.comparators.pal import Pal
from pref_model.comparators.vpl import Vpl
from pref_model.encoder import load_encoder
from pref_model.encoder_spec import resolve_encoder
from pref_model.metrics import auc_per_user, cluster_bootstrap_mean
from pref_model.types import Floats, Ints, Preferences, make_preferences
from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.starter import starter_prompts
from prompts.traits import style_text
from tasks._llm.simulator.judge import judge_truth
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._stages.ingest import read_prompt_file
from tasks._stages.respond import draw_styles

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
        Vpl(learning_rate=rate, weight_decay_l2=decay)
        for rate, decay in ((5e-4, 1e-4), (2e-3, 1e-4), (2e-3, 1e-3), (5e-3, 1e-4), (5e-3, 1e-3))
    ),
}


def main() -> None:
    """Prints the table of AUC and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", help="prompt file; default: the shipped prompts")
    parser.add_argument("--n-prompts", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(TRIES), choices=list(TRIES))
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = prompt_texts(arguments.prompts)
    found: dict[str, list[Floats]] = {name: [] for name in arguments.methods}
    seconds = dict.fromkeys(arguments.methods, 0.0)
    for seed in range(arguments.seeds):
        order = np.random.default_rng(seed).permutation(len(texts))[: arguments.n_prompts]
        labels, corpus = simulated_matrix([texts[one] for one in order], seed)
        for name in arguments.methods:
            begin = time.perf_counter()
            found[name].append(evaluate(TRIES[name], labels, corpus, seed))
            seconds[name] += (time.perf_counter() - begin) / arguments.seeds
            auc = np.nanmean(found[name][-1], axis=0).round(3)
            print(f"seed {seed} {name}: {auc.tolist()}", file=sys.stderr, flush=True)
    # (seeds * new users, answers): a new user of another seed is another user.
    curves = {name: np.concatenate(parts) for name, parts in found.items()}
    rows = [row for name in curves for row in summarize(name, curves, seconds[name])]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif arguments.markdown:
        print(markdown(rows))
    else:
        for row in rows:
            print(row)


def prompt_texts(path: str | None) -> list[str]:
    """The texts of a prompt file, or of the prompts that are shipped."""
    if path is None:
        return [one.text for one in starter_prompts()]
    return [text for _, text in read_prompt_file(Path(path))]


def simulated_matrix(texts: list[str], seed: int) -> tuple[Floats, Corpus]:
    """Labels (84, M), nan where an order has no verdict, and the embeddings of both responses."""
    settings = SimulatorSettings(seed=seed)
    writing, judging = load_template("respond_attributes"), load_template("judge_attributes")
    sides: tuple[list[str], list[str]] = ([], [])
    for number, text in enumerate(texts):
        for side, style in zip(sides, draw_styles(seed, f"prompt-{number:04d}"), strict=True):
            side.append(respond(writing.render(style=style_text(style), prompt=text), settings))
    personas = attribute_personas()
    labels = np.empty((len(personas), len(texts)))
    for row, persona in enumerate(personas):
        for column, (text, first, second) in enumerate(zip(texts, *sides, strict=True)):
            verdicts = []
            for is_swapped, (one, two) in enumerate(((first, second), (second, first))):
                messages = judging.render(
                    persona=persona.profile, prompt=text, response_1=one, response_2=two
                )
                option = judge_truth(messages, settings).option
                verdicts.append(np.nan if option is None else (option == "1") != bool(is_swapped))
            labels[row, column] = np.mean(verdicts)
    encoded = load_encoder(resolve_encoder()).encode(texts * 2, sides[0] + sides[1])
    embeddings = encoded.embeddings.astype(np.float64)
    return labels, Corpus(embeddings[: len(texts)], embeddings[len(texts) :])


def evaluate(tries: tuple[Comparator, ...], labels: Floats, corpus: Corpus, seed: int) -> Floats:
    """AUC of each new user on new pairs after each number of answers: (V, answers)."""
    rng = np.random.default_rng([seed, 7])
    users, pairs = rng.permutation(len(labels)), rng.permutation(labels.shape[1])
    n_users, n_pairs = round(0.8 * users.size), round(0.8 * pairs.size)
    known, fresh = np.sort(users[:n_users]), np.sort(users[n_users:])
    seen, new = np.sort(pairs[:n_pairs]), np.sort(pairs[n_pairs:])
    study = Study(corpus, cells(labels[known], seen), cells(labels[known], new), n_users)
    fitted = [one.fit(study, seed) for one in tries]
    best = fitted[0]
    if len(fitted) > 1:
        values = [score(one, labels[known], corpus, seen, new, 10, seed + 1000) for one in fitted]
        best = fitted[int(np.argmax([np.nanmean(one) for one in values]))]
    own = labels[fresh]
    return np.stack([score(best, own, corpus, seen, new, k, seed) for k in ANSWERS], axis=1)


def cells(labels: Floats, pairs: Ints) -> Preferences:
    """The observed cells of some pairs."""
    user, place = np.nonzero(~np.isnan(labels[:, pairs]))
    return make_preferences(user, pairs[place], labels[user, pairs[place]])


def score(
    fitted: Fitted, labels: Floats, corpus: Corpus, seen: Ints, new: Ints, k: int, seed: int
) -> Floats:
    """AUC (U,) on `new` after the first k of each user's random answers on `seen`."""
    answers = random_answers(labels, seen, max(ANSWERS), seed=seed).head(k)
    margins = fitted.score(fitted.adapt(corpus, answers), corpus.take(new))
    return auc_per_user(margins, labels[:, new])


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
