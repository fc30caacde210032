"""Real people's choices in PRISM, through the own-data stages: who ranks held-out users' pairs?

    python benchmarks/own_prism.py --prism FOLDER --out FILE

FOLDER is the sample with ``preferences.parquet`` (each row: a response that its reader scored at
least ten points above another), ``survey.jsonl`` and ``judge_answers.parquet`` (verdicts that
language models gave on the same pairs). The rows become files in the layout of docs/own-data.md;
the stages of `pref run own` do the rest, once a seed of the split, with and without text features.
No model is asked anything.

Pairs of all seeds are pooled. A user is in the test part of several seeds, so users are resampled
with everything of theirs, not pairs and not seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pref_model.metrics import cluster_bootstrap_pooled, pair_accuracy
from tasks._runs import RunIds, inputs_of, plan_stage, run_stage
from tasks._stages.configs import stage_configs, stage_places
from tasks._stages.own_accuracy import STAGE as ACCURACY_STAGE
from tasks._stages.own_accuracy import margins_by_method
from tasks._stages.own_world import load_own_world
from tasks.config import OwnConfig
from tasks.planning import OWN_STAGES

ANSWERS = (0, 1, 3, 5, 10, 20)
# More answers to learn from than by default, since users have about ten in all.
TEST_SHARE = 0.3
# Settings beside the default: what each row of the table is for is said in docs/own-data.md.
VARIANTS: dict[str, dict[str, Any]] = {
    "embedding and text features": {},
    "embedding alone": {"encoder": {"text_features": False}},
}
BOTH, ALONE = VARIANTS
# (who, against whom), each a (variant, method): compared on the pairs that both ranked.
DUELS = (
    ((BOTH, "pref"), (BOTH, "classic")),
    ((BOTH, "pref"), (ALONE, "pref")),
    ((BOTH, "classic"), (ALONE, "classic")),
    ((BOTH, "pref"), ("", "judge gpt-4o")),
    ((BOTH, "pref"), ("", "judge command-r-plus")),
)


class Choice(NamedTuple):
    """One test pair of one seed: whose it is, and by whom or what it was ranked right."""

    variant: str
    method: str
    n_answers: int
    seed: int
    user: str
    pair: str
    right: float


def write_own(prism: Path, folder: Path) -> dict[str, int]:
    """PRISM's choices in the layout of docs/own-data.md; users that may be several are left out."""
    with (prism / "survey.jsonl").open(encoding="utf-8") as file:
        survey = [json.loads(line) for line in file if line.strip()]
    merged = {row["user_id"] for row in survey if row.get("x_maybe_merged")}
    rows = [
        row
        for row in pq.read_table(prism / "preferences.parquet").to_pylist()
        if row["user_id"] not in merged
    ]
    prompts, responses = {}, {}
    for row in rows:
        prompts[row["conversation_id"]] = row["user_prompt"]
        for side in ("chosen", "rejected"):
            responses[row[f"{side}_utterance_id"]] = (row["conversation_id"], row[side])
    tables = {
        "prompts": pa.table({"prompt_id": list(prompts), "prompt_text": list(prompts.values())}),
        "responses": pa.table(
            {
                "response_id": list(responses),
                "prompt_id": [prompt for prompt, _ in responses.values()],
                "response_text": [text for _, text in responses.values()],
            }
        ),
        "preferences": pa.table(
            {
                "user_id": [row["user_id"] for row in rows],
                "response_a_id": [row["chosen_utterance_id"] for row in rows],
                "response_b_id": [row["rejected_utterance_id"] for row in rows],
                "preference": [1.0] * len(rows),
            }
        ),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {"users_left_out": len(merged), **{name: len(one) for name, one in tables.items()}}


def judged(prism: Path) -> dict[str, dict[tuple[str, frozenset[str]], float]]:
    """Recorded verdicts by judge and (user, pair): 1 where it picked what the user had chosen."""
    found: dict[str, dict[tuple[str, frozenset[str]], float]] = {}
    for row in pq.read_table(prism / "judge_answers.parquet").to_pylist():
        # A run asked to allow ties is another question; a verdict without a pick is no ranking.
        if row["prompt_type"] != "with_persona" or row["judge_pick"] not in ("chosen", "rejected"):
            continue
        pair = frozenset((row["chosen_utterance_id"], row["rejected_utterance_id"]))
        where = found.setdefault(f"judge {row['judge_model']}", {})
        where[row["user_id"], pair] = float(row["judge_pick"] == "chosen")
    return found


def run(config: OwnConfig) -> Any:
    """Every stage up to the adaptation; returns the inputs of the accuracy."""
    configs, places = stage_configs(config), stage_places(config)
    datasets: dict[str, str] = {}
    for stage in OWN_STAGES:
        plan = plan_stage(stage, config.warehouse, configs[stage.name], datasets, places)
        if stage is ACCURACY_STAGE:
            return inputs_of(plan)
        for ref in run_stage(plan, stage, RunIds("benchmark", None)):  # type: ignore[arg-type]
            datasets[ref["dataset"]] = ref["version"]
    raise RuntimeError("the flow has no accuracy stage")


def choices(
    variant: str, seed: int, inputs: Any, judges: dict[str, Any], *, is_first: bool
) -> Iterator[Choice]:
    """What each method made of each test pair of a seed; judges and lengths once a seed."""
    world = load_own_world(inputs)
    test = world.part("test")
    users = [world.personas[user] for user in test.user]
    sides = [(world.response_a_ids[pair], world.response_b_ids[pair]) for pair in test.pair]
    for (method, count), margin in margins_by_method(inputs, world).items():
        if (method == "longer" and not is_first) or count not in ANSWERS:
            continue
        known = ~np.isnan(margin)
        right = pair_accuracy(margin[known], test.label[known])
        for place, value in zip(np.flatnonzero(known), right, strict=True):
            pair = world.pairs[test.pair[place]]
            name = variant if method != "longer" else ""
            yield Choice(name, method, count, seed, users[place], pair, float(value))
    if not is_first:
        return
    learnt = {user: 0 for user in users}
    for user in world.part("calibration").user:
        if world.personas[user] in learnt:
            learnt[world.personas[user]] += 1
    for judge, verdicts in judges.items():
        for user, pair, side in zip(users, test.pair, sides, strict=True):
            value = verdicts.get((user, frozenset(side)))
            for count in ANSWERS:
                if value is not None and learnt[user] >= count:
                    yield Choice("", judge, count, seed, user, world.pairs[pair], value)


def table(found: list[Choice], draws: int) -> list[dict[str, Any]]:
    """Accuracy by method and number of answers, with the lead over lengths on the same pairs."""
    cells: dict[tuple[str, str, int], list[Choice]] = {}
    for one in found:
        cells.setdefault((one.variant, one.method, one.n_answers), []).append(one)
    longer = {
        (one.n_answers, one.seed, one.user, one.pair): one.right
        for one in found
        if one.method == "longer"
    }
    names = {user: place for place, user in enumerate(sorted({one.user for one in found}))}
    rows = []
    for (variant, method, count), some in sorted(cells.items()):
        users = np.array([names[one.user] for one in some])
        right = np.array([one.right for one in some])
        base = np.array([longer[count, one.seed, one.user, one.pair] for one in some])
        accuracy = cluster_bootstrap_pooled(users, right, draws=draws)
        lead = cluster_bootstrap_pooled(users, right - base, draws=draws)
        rows.append(
            {
                "variant": variant,
                "method": method,
                "n_answers": count,
                "accuracy": [round(one, 4) for one in accuracy[:3]],
                "lead_over_longer": [round(one, 4) for one in lead[:3]],
                "n_users": accuracy.n,
                "n_pairs": len({(one.user, one.pair) for one in some}),
                "n_pairs_all_seeds": len(some),
            }
        )
    return rows


def duels(found: list[Choice], draws: int) -> list[dict[str, Any]]:
    """How much more often one ranks right than another, on the same pairs, by answers."""
    right: dict[tuple[str, str], dict[tuple[int, int, str, str], float]] = {}
    for one in found:
        where = right.setdefault((one.variant, one.method), {})
        where[one.n_answers, one.seed, one.user, one.pair] = one.right
    names = {user: place for place, user in enumerate(sorted({one.user for one in found}))}
    rows = []
    for who, against in DUELS:
        for count in ANSWERS:
            mine, theirs = right.get(who, {}), right.get(against, {})
            same = [place for place in mine if place in theirs and place[0] == count]
            if not same:
                continue
            users = np.array([names[user] for _, _, user, _ in same])
            values = np.array([mine[place] - theirs[place] for place in same])
            gain = cluster_bootstrap_pooled(users, values, draws=draws)
            rows.append(
                {
                    "who": " ".join(who).strip(),
                    "against": " ".join(against).strip(),
                    "n_answers": count,
                    "gain": [round(one, 4) for one in gain[:3]],
                    "n_users": gain.n,
                    "n_pairs_all_seeds": len(same),
                }
            )
    return rows


def main() -> None:
    """Runs every variant and seed, prints the table, writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prism", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--warehouse", type=Path, help="kept there; default: thrown away")
    parser.add_argument("--set", action="append", default=[], help="a.b=JSON for every run")
    args = parser.parse_args()
    judges = judged(args.prism)
    found: list[Choice] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        sizes = write_own(args.prism, data)
        warehouse = str(args.warehouse or Path(scratch) / "warehouse")
        for seed in range(args.seeds):
            for number, (variant, settings) in enumerate(VARIANTS.items()):
                raw: dict[str, Any] = {
                    **json.loads(json.dumps(settings)),
                    "warehouse": warehouse,
                    "seed": seed,
                    "ingest": {"data": str(data)},
                }
                raw.setdefault("adapt", {})["answers"] = list(ANSWERS)
                raw.setdefault("split", {})["test_share"] = TEST_SHARE
                for one in args.set:
                    name, _, value = one.partition("=")
                    section, _, field = name.partition(".")
                    raw.setdefault(section, {})[field] = json.loads(value)
                inputs = run(OwnConfig.model_validate(raw))
                found += choices(variant, seed, inputs, judges, is_first=number == 0)
            sys.stderr.write(f"seed {seed} done\n")
    rows = table(found, args.draws)
    result = {
        "data": sizes,
        "seeds": args.seeds,
        "settings": args.set,
        "cores": os.cpu_count(),
        "rows": rows,
        "duels": duels(found, args.draws),
    }
    for row in rows:
        accuracy, lead = (
            [f"{100 * one:5.1f}" for one in row[name]] for name in ("accuracy", "lead_over_longer")
        )
        sys.stdout.write(
            f"{row['variant']:<28}{row['method']:<34}@{row['n_answers']:<3}"
            f" {accuracy[0]} [{accuracy[1]}, {accuracy[2]}]  lead {lead[0]} [{lead[1]}, {lead[2]}]"
            f"  {row['n_users']:>4} users {row['n_pairs']:>5} pairs\n"
        )
    for row in result["duels"]:
        gain = [f"{100 * one:+5.1f}" for one in row["gain"]]
        sys.stdout.write(
            f"{row['who']} less {row['against']} @{row['n_answers']}:"
            f" {gain[0]} [{gain[1]}, {gain[2]}]  {row['n_users']} users\n"
        )
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
