"""The report: one self-contained HTML file, and every number in it as a row."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pyarrow as pa
from jinja2 import Environment

from tasks._stages import exhibits, figures, published
from tasks._stages.data_checks import checks_shown
from tasks._stages.figures import LOOK
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.manifest import Manifest
from warehouse.tables import TABLES

N_EXAMPLES = 3
# Attributes named beside a base reward: those its users' weights go with most.
N_TRAITS = 2
# Controls, and marks that turn the direction of what follows; joiners of scripts and emoji stay.
_CONTROLS = dict.fromkeys(
    {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10},
    "\ufffd",
)


def build(inputs: Inputs) -> dict[str, Output]:
    """Draws the page from its parents and nothing else: the same datasets, the same page."""
    checks = inputs.read("judge_checks").to_pylist()
    auc = inputs.read("auc_means").to_pylist()
    wins = in_look_order(inputs.read("win_rates").to_pylist())
    at = inputs.config["n_answers"]
    audit = next(
        row for row in inputs.read("judge_audit").to_pylist() if row["slice_kind"] == "overall"
    )
    base_rewards = _base_rewards(inputs)
    alignment = next(iter(inputs.read("alignment").to_pylist()), None)
    manifests = [inputs.warehouse.manifest(*one) for one in sorted(inputs.plan.parents.items())]
    ranks = inputs.read("rank_curve").to_pylist()
    shown = {one.name: one for one in (*exhibits.of_run(inputs), *exhibits.of_benchmark(inputs))}
    drawn = {
        name: one.drawn
        for name, exhibit in (
            ("auc", "fig2-auc"),
            ("win_rates", "win-rates"),
            ("win_rates_by_answers", "fig2-win-rates"),
            ("rank", "fig7-spectrum"),
        )
        if (one := shown.pop(exhibit)).drawn
    }
    page = page_environment().from_string(page_source("report_page.html"))
    html = page.render(
        css=page_source("report_page.css"),
        is_simulated=inputs.config["is_simulated"],
        names={method: name for method, (name, _, _) in LOOK.items()},
        auc=_by_method(auc),
        answers=sorted({row["n_answers"] for row in auc}),
        at=at,
        wins={row["method"]: row for row in wins if row["n_answers"] == at},
        wins_by_answers=_by_method(wins),
        win_answers=sorted({row["n_answers"] for row in wins}),
        win_names=figures.WIN_NAMES,
        differences=[
            row for row in inputs.read("win_differences").to_pylist() if row["n_answers"] == at
        ],
        win_checks=inputs.read("win_checks").to_pylist(),
        audit=audit,
        slices=_slices(inputs),
        checks=checks,
        data_checks=checks_shown(inputs),
        funnel=_funnel(inputs),
        alignment=alignment,
        base_rewards=base_rewards,
        backbone=_backbone(inputs),
        truth=inputs.config.get("true_position_bias_logit"),
        auc_figure=drawn["auc"].svg,
        win_figure=drawn["win_rates"].svg,
        win_curve=drawn["win_rates_by_answers"].svg,
        rank_figure=drawn["rank"].svg,
        rank=_suggested(ranks),
        exhibits=list(shown.values()),
        versions=inputs.plan.parents,
        published=published.CAVEAT,
        examples=_examples(inputs),
        datasets=[dataset_row(one) for one in in_order(manifests)],
        shape=_shape(inputs),
        models=sorted({model for one in manifests for model in one.models}),
        cost=_total(manifests),
        spending=_spending(inputs.config["planned"], manifests),
    )
    saved = {f"{name}.png": one.png for name, one in drawn.items()}
    saved["report.html"] = html.encode()
    numbers = _numbers(auc, wins, audit, alignment, base_rewards, checks)
    numbers += _win_numbers(inputs)
    numbers.sort(key=lambda row: (row["figure"], row["key"]))
    return {"report": Output(pa.Table.from_pylist(numbers, TABLES["report"].schema), saved)}


def in_look_order(wins: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Win rates in the order in which figures name methods."""
    order = list(figures.WIN_NAMES)
    return sorted(wins, key=lambda row: order.index(row["method"]))


def describe_page() -> dict[str, str]:
    """What of the page's look enters the version: its template and style sheet."""
    parts = (page_source("report_page.html"), page_source("report_page.css"))
    return {"page_sha256": hashlib.sha256("\0".join(parts).encode()).hexdigest()}


def _backbone(inputs: Inputs) -> dict[str, Any] | None:
    """How the encoder's training went; None where it was left as it is."""
    if "backbones" not in inputs.plan.parents:
        return None
    rows: list[dict[str, Any]] = inputs.read("backbones").to_pylist()
    return rows[0]


def _base_rewards(inputs: Inputs) -> list[dict[str, Any]]:
    """One entry a base reward: facts, label, traits it goes with, a response of each end."""
    text = inputs.lookup("responses", "response_id", "response_text")
    labels = {row["base_reward"]: row for row in inputs.read("base_reward_labels").to_pylist()}
    known: dict[int, list[dict[str, Any]]] = {}
    for row in inputs.read("trait_correlations").to_pylist():
        if row["correlation"] is not None:
            known.setdefault(row["base_reward"], []).append(row)
    ends = {
        (row["base_reward"], row["end"]): text[row["response_id"]]
        for row in inputs.read("base_reward_examples").to_pylist()
        if row["place"] == 1
    }
    found = []
    for row in inputs.read("base_reward_facts").to_pylist():
        number = row["base_reward"]
        traits = sorted(known.get(number, []), key=lambda one: -abs(one["correlation"]))
        found.append(
            {
                **row,
                "label": labels[number]["label"],
                "unparsed_reason": labels[number]["unparsed_reason"],
                "traits": traits[:N_TRAITS],
                "top": ends.get((number, "top"), ""),
                "bottom": ends.get((number, "bottom"), ""),
            }
        )
    return found


def _suggested(rows: list[dict[str, Any]]) -> dict[str, int | None]:
    """Numbers of base rewards: by spectrum, by likelihood, and the one used (None if too many)."""
    return {
        kind: next((row["n_base_rewards"] for row in rows if row[f"is_{kind}"]), None)
        for kind in ("spectrum_choice", "likelihood_choice", "used")
    }


def page_environment() -> Environment:
    """Where pages are rendered: everything escaped, numbers as people read them."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_without_controls
    )
    environment.filters["number"] = lambda value, digits=3: (
        "–" if value is None else f"{value:.{digits}f}"
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    environment.filters["points"] = lambda value: "–" if value is None else f"{100 * value:+.1f}"
    environment.filters["plain"] = lambda value: (
        "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["usd"] = lambda value: "unknown" if value is None else f"{value:.4f}"
    return environment


def _without_controls(value: Any) -> Any:
    """Text of others with every control shown as a replacement character; the rest as it is."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value


def page_source(name: str) -> str:
    """A template or style sheet that ships beside this module."""
    return (files("tasks._stages") / name).read_text("utf-8")


def _by_method(rows: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["n_answers"]] = row
    return found


def _shape(inputs: Inputs) -> dict[str, int]:
    splits = inputs.read("splits").to_pylist()
    return {
        f"{side}_{kind}": sum(row["side"] == side and row["entity_kind"] == kind for row in splits)
        for side in ("seen", "new")
        for kind in ("persona", "pair")
    }


def _examples(inputs: Inputs) -> list[dict[str, Any]]:
    """Choices of the first few held-out users, each on another prompt."""
    text = inputs.lookup("pool_responses", "response_id", "response_text")
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    mine = [
        row
        for row in inputs.read("selections").to_pylist()
        if row["method"] == "pref" and row["n_answers"] == inputs.config["n_answers"]
    ]
    personas = sorted({row["persona_id"] for row in mine})[:N_EXAMPLES]
    examples = []
    for number, persona in enumerate(personas):
        rows = [row for row in mine if row["persona_id"] == persona]
        row = rows[number % len(rows)]
        examples.append(
            {
                "persona": persona,
                "prompt": prompt[row["prompt_id"]],
                "base": text[row["base_response_id"]],
                "chosen": text[row["response_id"]],
            }
        )
    return examples


def _slices(inputs: Inputs) -> list[dict[str, Any]]:
    """The judge's record by judge and gap of length, and the span over personas."""
    rows = inputs.read("judge_audit").to_pylist()
    found = [row for row in rows if row["slice_kind"] in ("judge", "length_gap")]
    personas = [row for row in rows if row["slice_kind"] == "persona"]
    for name, place in (("least", 0), ("greatest", -1)):
        known = sorted(
            (row for row in personas if row["consistent_share"] is not None),
            key=lambda row: (row["consistent_share"], row["slice_id"]),
        )
        if known:
            found.append({**known[place], "slice_id": f"{known[place]['slice_id']} ({name})"})
    return found


def _funnel(inputs: Inputs) -> list[dict[str, Any]]:
    """What each filter of prompts left out; empty where a flow filters none."""
    if "prompt_funnel" not in inputs.plan.parents:
        return []
    return list(inputs.read("prompt_funnel").to_pylist())


def in_order(manifests: list[Manifest]) -> list[Manifest]:
    """Manifests in the order of their tables."""
    place = {name: index for index, name in enumerate(TABLES)}
    return sorted(manifests, key=lambda one: place[one.dataset])


def dataset_row(manifest: Manifest) -> dict[str, Any]:
    """What a page tells of a dataset version."""
    return {
        "name": manifest.dataset,
        "version": manifest.version,
        "grain": TABLES[manifest.dataset].grain,
        "rows": manifest.n_rows,
        "calls": manifest.calls.made + manifest.calls.reused,
        "cost_usd": manifest.calls.cost_usd,
        "parents": ", ".join(f"{name} {version}" for name, version in manifest.parents.items()),
        "templates": ", ".join(f"{one.name} v{one.version}" for one in manifest.templates),
    }


def _total(manifests: list[Manifest]) -> float | None:
    # The datasets of one stage carry the same count; a stage is counted once.
    by_stage = {one.stage: one.calls.cost_usd for one in manifests}
    costs = [one for one in by_stage.values() if one is not None]
    return math.fsum(costs) if len(costs) == len(by_stage) else None


def spending(inputs: Inputs) -> list[dict[str, Any]]:
    """Planned beside actual calls, tokens and money of every stage that made calls."""
    manifests = [inputs.warehouse.manifest(*one) for one in sorted(inputs.plan.parents.items())]
    return _spending(inputs.config["planned"], manifests)


def _spending(
    planned: dict[str, dict[str, Any]], manifests: list[Manifest]
) -> list[dict[str, Any]]:
    """Planned and actual calls, tokens and money, stage by stage.

    A stage whose extent the configuration alone does not settle, such as the rating of prompts,
    has no plan to stand beside.
    """
    actual = {one.stage: one for one in manifests}
    unplanned = [
        stage
        for stage, one in actual.items()
        if stage not in planned and one.calls.made + one.calls.reused
    ]
    return [
        {
            **planned.get(stage, {"stage": stage, "model": ", ".join(actual[stage].models)}),
            "actual_calls": actual[stage].calls.made + actual[stage].calls.reused,
            "actual_prompt_tokens": actual[stage].calls.prompt_tokens,
            "actual_completion_tokens": actual[stage].calls.completion_tokens,
            "actual_usd": actual[stage].calls.cost_usd,
        }
        for stage in [*planned, *unplanned]
    ]


def _numbers(
    auc: list[dict[str, Any]],
    wins: list[dict[str, Any]],
    audit: dict[str, Any],
    alignment: dict[str, Any] | None,
    base_rewards: list[dict[str, Any]],
    checks: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    rows = [_number(f"{row['method']}@{row['n_answers']}", "auc", row) for row in auc]
    rows += [_number(f"{row['method']}@{row['n_answers']}", "win_rate", row) for row in wins]
    rows += [
        {
            "figure": "explained_share",
            "key": f"base reward {one['base_reward']}",
            "value": one["explained_share"],
            "low": None,
            "high": None,
        }
        for one in base_rewards
    ]
    for figure, found in (("judge_audit", audit), ("alignment", alignment or {})):
        rows += [
            {"figure": figure, "key": name, "value": float(value), "low": None, "high": None}
            for name, value in found.items()
            if isinstance(value, int | float)
        ]
    for row in checks:
        name = f"{row['check_kind']} {row['slice_id']}"
        rows += [
            {
                "figure": "judge_checks",
                "key": f"{name}: {share}",
                "value": row[f"{share}_share"],
                "low": row[low],
                "high": row[high],
            }
            for share, low, high in (
                ("agreement", "agreement_low", "agreement_high"),
                ("first", "first_share_low", "first_share_high"),
            )
        ]
    return rows


def _win_numbers(inputs: Inputs) -> list[dict[str, Any]]:
    """Win rates at equal length, their differences, and what the judge's checks say."""
    wins, differences, checks = (
        inputs.read(name).to_pylist() for name in ("win_rates", "win_differences", "win_checks")
    )
    rows = [_number(f"{row['method']}@{row['n_answers']}", "controlled_rate", row) for row in wins]
    rows += [
        _number(f"{row['method']} less {row['other_method']}@{row['n_answers']}", "difference", row)
        for row in differences
    ]
    for row in checks:
        rows += [
            {**_number(f"{row['check_kind']}: {name}", name, row), "figure": "win_checks"}
            for name in ("win_rate", "difference")
            if row[f"{name}_mean"] is not None
        ]
        rows.append(
            {
                "figure": "win_checks",
                "key": f"{row['check_kind']}: agreement",
                "value": row["agreement_share"],
                "low": row["agreement_low"],
                "high": row["agreement_high"],
            }
        )
    return rows


def _number(key: str, figure: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "figure": figure,
        "key": key,
        "value": row[f"{figure}_mean"],
        "low": row[f"{figure}_low"],
        "high": row[f"{figure}_high"],
    }


STAGE = Stage(
    name="report",
    reads=(
        "prompts", "personas", "responses", "pairs", "design", "judgments", "preferences",
        "judge_audit", "check_judgments", "judge_checks", "splits", "embeddings", "rank_curve",
        "models", "base_rewards", "user_weights", "alignment", "base_reward_facts",
        "base_reward_examples",
        "base_reward_labels", "trait_correlations", "adapted_weights", "questions", "auc",
        "auc_means", "pool_responses", "pool_embeddings", "taste_summaries", "personal_responses",
        "selections", "win_judgments",
        "win_check_judgments", "win_rates", "win_differences", "win_checks",
    ),
    # A benchmark is measured after a run; `pref report` then reads both.
    may_read=("backbones", "data_checks", "benchmark_means"),
    writes=("report",),
    module=__name__,
    build=build,
)  # fmt: skip
PRISM_STAGE = replace(STAGE, reads=("prompt_ratings", "prompt_funnel", *STAGE.reads))
