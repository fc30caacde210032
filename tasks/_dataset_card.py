"""The README of an export: a Hugging Face dataset card. It writes no file and claims no quality."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks._sources import ADDRESSES, UNKNOWN, Origin, licence_address, overall_licence
from warehouse.croissant import Exported
from warehouse.fields import FIELDS
from warehouse.manifest import Manifest
from warehouse.tables import TABLES

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "n>100M")


def card(
    name: str,
    summary: str,
    exported: Sequence[Exported],
    ancestors: Sequence[Manifest],
    found: Origin,
    judge: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
) -> str:
    """The card: YAML front matter that loaders read, then what people should know.

    Args:
        name: Name of the data set.
        summary: What it is.
        exported: Its datasets.
        ancestors: They and all they were made from.
        found: Sources and models behind them.
        judge: Model, templates and sampling of the judge, where there was one.
        audit: The overall row of the judge's audit, where there is one.
    """
    parts = [
        "---",
        *_front_matter(name, exported, found),
        "---",
        "",
        f"# {name}",
        "",
        summary,
        "",
        *_origin(found),
        *_licences(found),
        *_datasets(exported),
        *_judge(judge, audit),
        *_costs(ancestors),
        *_provenance(exported, ancestors),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front_matter(name: str, exported: Sequence[Exported], found: Origin) -> list[str]:
    licence = overall_licence(found)
    lines = [f"pretty_name: {json.dumps(name)}"]
    if licence in ADDRESSES or licence == UNKNOWN:
        lines.append(f"license: {licence}")
    else:
        # What Hugging Face has no name for is "other", with a name and where to read of it.
        told = "several, see below" if licence == "other" else licence
        lines += ["license: other", f"license_name: {json.dumps(told)}", "license_link: README.md"]
    kind = "machine-generated" if found.models else "found"
    tags = ["preference", "personalization", "synthetic" if found.models else "human-feedback"]
    lines += ["annotations_creators:", f"- {kind}", "tags:", *(f"- {tag}" for tag in tags)]
    largest = max(one.manifest.n_rows for one in exported)
    place = sum(largest >= size for size in SIZES)
    lines += ["size_categories:", f"- {_SIZE_NAMES[place]}", "configs:"]
    for number, one in enumerate(exported):
        lines.append(f"- config_name: {one.manifest.dataset}")
        lines += ["  data_files:", "  - split: train", f"    path: {one.path}"]
        if number == 0:
            lines.append("  default: true")
    return lines


def _origin(found: Origin) -> list[str]:
    lines = ["## Synthetic data", ""]
    if not found.models:
        return [
            *lines,
            "Answers are people's: no language model gave one. Texts are as they were handed in;"
            " who wrote them is known only where `response_model` tells.",
            "",
        ]
    lines.append(
        "Yes. Texts or answers, or both, come from language models: "
        + ", ".join(f"`{one}`" for one in found.models)
        + ". Answers given in the roles of people are not those people's answers."
    )
    if found.is_simulated:
        lines += [
            "",
            "**Simulated.** The models are `pref`'s embedded simulator, not language models: what"
            " it says shows how a pipeline works and nothing else.",
        ]
    return [*lines, ""]


def _licences(found: Origin) -> list[str]:
    lines = ["## Licences", "", "| source | licence | terms | cite |", "|---|---|---|---|"]
    for one in found.sources:
        address = licence_address(one.licence)
        shown = f"[{one.licence}]({address})" if address.startswith("http") else one.licence
        cells = (one.name, shown, one.terms, one.citation or "")
        lines.append(f"| {' | '.join(_cell(part) for part in cells)} |")
    if found.models and not found.is_simulated:
        lines += ["", "What models wrote is also under the terms of their providers."]
    return [*lines, ""]


def _datasets(exported: Sequence[Exported]) -> list[str]:
    lines = ["## Configurations", ""]
    for one in exported:
        table = TABLES[one.manifest.dataset]
        lines += [
            f"### {table.name}",
            "",
            f"{table.grain} An absent row: {table.absent} {one.manifest.n_rows:,} rows, key"
            f" {', '.join(f'`{column}`' for column in table.key)}.",
            "",
            "| column | type | unit | |",
            "|---|---|---|---|",
        ]
        for column in table.columns:
            declared = FIELDS[column]
            kind = str(declared.type) + (" or null" if column in table.nullable else "")
            cells = (f"`{column}`", kind, declared.unit or "", declared.description)
            lines.append(f"| {' | '.join(_cell(part) for part in cells)} |")
        lines.append("")
    return lines


def _judge(judge: Mapping[str, Any] | None, audit: Mapping[str, Any] | None) -> list[str]:
    if judge is None:
        return []
    lines = [
        "## Judge",
        "",
        f"Model `{judge['model']}` at `{judge['endpoint']}`, templates"
        f" {', '.join(judge['templates'])}, sampling `{json.dumps(judge['sampling'])}`. Every"
        " question was asked in both presentation orders; an unusable reply is no verdict.",
    ]
    if audit is not None:
        lines.append(
            f"Of {audit['n_judgments']:,} judgments {audit['n_unparsed']:,} have no verdict;"
            f" {_percent(audit['consistent_share'])} of the pairs judged in both orders keep their"
            f" verdict; the first position won {_percent(audit['first_share'])}"
            f" [{_percent(audit['first_share_low'])}, {_percent(audit['first_share_high'])}]."
        )
    return [*lines, ""]


def _costs(ancestors: Sequence[Manifest]) -> list[str]:
    # The datasets of one stage carry the same count; a stage is counted once.
    by_stage = {(one.stage, one.version): one.calls for one in ancestors}
    rows = [(stage, calls) for (stage, _), calls in by_stage.items() if calls.made + calls.reused]
    lines = ["## Cost", ""]
    if not rows:
        return [*lines, "No model was called.", ""]
    lines += [
        "| stage | calls | tokens in | tokens out | US$ |",
        "|---|---:|---:|---:|---:|",
    ]
    for stage, calls in rows:
        lines.append(
            f"| {stage} | {calls.made + calls.reused:,} | {calls.prompt_tokens:,} |"
            f" {calls.completion_tokens:,} | {_usd(calls.cost_usd)} |"
        )
    costs = [calls.cost_usd for _, calls in rows]
    known = [one for one in costs if one is not None]
    total = math.fsum(known) if len(known) == len(costs) else None
    return [*lines, f"| total | | | | {_usd(total)} |", ""]


def _provenance(exported: Sequence[Exported], ancestors: Sequence[Manifest]) -> list[str]:
    lines = [
        "## Provenance",
        "",
        "A version is the hash of stage, code, settings and parents; the SHA-256 of each file is in"
        " `croissant.json`.",
        "",
        "| dataset | version | stage | rows | made from | code |",
        "|---|---|---|---:|---|---|",
    ]
    shown = {(one.manifest.dataset, one.manifest.version) for one in exported}
    for one in ancestors:
        name = one.dataset if (one.dataset, one.version) in shown else f"{one.dataset} (not here)"
        parents = ", ".join(f"{parent} {version}" for parent, version in one.parents.items())
        commit = (one.code_commit or "")[:12] + ("+" if one.is_code_dirty else "")
        lines.append(
            f"| {name} | `{one.version}` | {one.stage} | {one.n_rows:,} | {parents} | {commit} |"
        )
    return [*lines, ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _usd(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.4f}"
