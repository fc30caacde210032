"""The report on real users' data: one self-contained HTML file, and every number in it as a row."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from tasks._stages.data_checks import checks_shown
from tasks._stages.figures import OWN_LOOK, accuracy_by_answers
from tasks._stages.report import dataset_row, in_order, page_environment, page_source
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES


def build(inputs: Inputs) -> dict[str, Output]:
    """Draws the page from its parents and nothing else: the same datasets, the same page."""
    from pref_model.checkpoint import load_model

    accuracy = inputs.read("accuracy_means").to_pylist()
    facts = {row["fact"]: row["n_counted"] for row in inputs.read("split_facts").to_pylist()}
    manifests = [inputs.warehouse.manifest(*one) for one in sorted(inputs.plan.parents.items())]
    figure = accuracy_by_answers(accuracy)
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for row in accuracy:
        by_method.setdefault(row["method"], {})[row["n_answers"]] = row
    # The headline compares methods on the same pairs, and on those of at least half of the users.
    everybody = max(row["n_users"] for row in accuracy)
    at = max(row["n_answers"] for row in accuracy if 2 * row["n_users"] >= everybody)
    html = (
        page_environment()
        .from_string(page_source("own_page.html"))
        .render(
            css=page_source("report_page.css"),
            names={method: name for method, (name, _, _) in OWN_LOOK.items()},
            accuracy=by_method,
            answers=sorted({row["n_answers"] for row in accuracy}),
            at=at,
            facts=facts,
            start=load_model(inputs.folder("models"), "pref").config.start,
            figure=figure.svg,
            data_checks=checks_shown(inputs),
            datasets=[dataset_row(one) for one in in_order(manifests)],
        )
    )
    rows = [
        {
            "figure": figure_name,
            "key": f"{row['method']}@{row['n_answers']}",
            "value": row[f"{figure_name}_mean"],
            "low": row[f"{figure_name}_low"],
            "high": row[f"{figure_name}_high"],
        }
        for figure_name in ("accuracy", "lead")
        for row in accuracy
    ]
    rows += [
        {"figure": "facts", "key": fact, "value": float(count), "low": None, "high": None}
        for fact, count in facts.items()
    ]
    rows.sort(key=lambda row: (row["figure"], row["key"]))
    saved = {"accuracy.png": figure.png, "report.html": html.encode()}
    return {"report": Output(pa.Table.from_pylist(rows, TABLES["report"].schema), saved)}


def describe_own_page() -> dict[str, str]:
    """What of the page's look enters the version: its template and style sheet."""
    parts = (page_source("own_page.html"), page_source("report_page.css"))
    return {"page_sha256": hashlib.sha256("\0".join(parts).encode()).hexdigest()}


STAGE = Stage(
    name="report_own",
    reads=(
        "prompts", "personas", "responses", "pairs", "answers", "preferences", "splits",
        "split_facts", "embeddings", "text_features", "models", "base_rewards", "user_weights",
        "adapted_weights", "questions", "pair_accuracy", "accuracy_means",
    ),
    may_read=("data_checks",),
    writes=("report",),
    module=__name__,
    build=build,
)  # fmt: skip
