"""The text of the artifacts: dataset cards, tables, one picture. It talks to no server."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from tasks._stages.data_checks import is_worth_showing
from tasks.types import StagePlan
from warehouse.checks import declared_constraints
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

LINEAGE = "lineage"

# Datasets small enough, and worth enough, to be shown whole.
SHOWN = {
    "judge_audit": (
        "slice_kind", "slice_id", "n_judgments", "n_tolerated", "n_unparsed", "n_refused",
        "n_complete", "consistent_share", "first_share", "first_share_low", "first_share_high",
        "longer_share", "position_bias_logit", "position_bias_low_logit",
        "position_bias_high_logit",
    ),
    "base_reward_facts": ("base_reward", "explained_share", "weight_mean", "n_users"),
    "base_reward_labels": ("base_reward", "label", "unparsed_reason", "label_model"),
    "trait_correlations": ("base_reward", "attribute", "correlation", "n_users"),
    "alignment": (
        "aligned_to_version", "is_same_encoder", "n_shared_pairs", "n_users",
        "alignment_error_share", "changed_users_share", "changed_cells_share", "order_tau",
    ),
    "backbones": (
        "encoder", "n_steps", "n_passes", "train_nll", "start_validation_nll", "validation_nll",
    ),
    "rank_curve": (
        "n_base_rewards", "singular_value", "noise_edge", "log_likelihood_mean",
        "log_likelihood_low", "log_likelihood_high", "is_spectrum_choice", "is_likelihood_choice",
        "is_used",
    ),
    "judge_checks": (
        "check_kind", "slice_id", "n_judgments", "n_unparsed", "n_compared", "agreement_share",
        "agreement_low", "agreement_high", "kappa", "alpha", "first_share", "margin_correlation",
        "subspace_cosine",
    ),
    "data_checks": (
        "checked_dataset", "check_name", "checked_columns", "outcome", "value", "previous_value",
        "tolerance", "n_checked", "n_faulty", "faulty_rows",
    ),
    "prompt_funnel": ("filter", "filter_setting", "n_left_out", "n_left"),
    "auc_means": ("method", "n_answers", "auc_mean", "auc_low", "auc_high", "n_users"),
    "split_facts": ("fact", "n_counted"),
    "accuracy_means": (
        "method", "n_answers", "accuracy_mean", "accuracy_low", "accuracy_high", "lead_mean",
        "n_users", "n_pairs",
    ),
    "win_rates": (
        "method", "n_answers", "win_rate_mean", "win_rate_low", "win_rate_high",
        "controlled_rate_mean", "n_users", "n_comparisons", "n_ties", "n_unparsed",
        "n_users_needed",
    ),
    "win_differences": (
        "method", "other_method", "n_answers", "difference_mean", "difference_low",
        "difference_high", "n_users", "n_comparisons",
    ),
    "win_checks": (
        "check_kind", "judge_model", "n_judgments", "n_unparsed", "win_rate_mean", "win_rate_low",
        "win_rate_high", "agreement_share", "kappa", "difference_mean",
    ),
}  # fmt: skip


def key(*words: str) -> str:
    """An artifact key: Prefect allows lower-case letters, digits and dashes."""
    return "-".join(words).replace("_", "-").replace(" ", "-")


def grain(dataset: str) -> str:
    """One sentence on what a row of the dataset is."""
    return TABLES[dataset].grain


def dataset_card(
    manifest: Manifest,
    *,
    is_reused: bool,
    artifacts: Mapping[str, str],
    ancestors: Sequence[Manifest] = (),
    readers: Sequence[str] = (),
) -> str:
    """Where a dataset version comes from and what it cost, as Markdown.

    Args:
        manifest: The version.
        is_reused: Whether this run found it.
        artifacts: Artifact ids of the parents' cards in this run.
        ancestors: Everything it was made from, for the graph.
        readers: Datasets that are made from this one. Their cards come later in the run; until
            then the links lead to all under each name.
    """
    table = TABLES[manifest.dataset]
    targets = {target for several in table.foreign.values() for target in several}
    parents_known = {one for one in targets if one.partition(".")[0] in manifest.parents}
    calls = manifest.calls
    cost = "unknown price" if calls.cost_usd is None else f"US$ {calls.cost_usd:.4f}"
    parents = ", ".join(
        f"[{name} {version}]({page(artifacts.get(name), name)})"
        for name, version in manifest.parents.items()
    )
    read_by = ", ".join(f"[{one}]({page(artifacts.get(one), one)})" for one in readers)
    templates = ", ".join(
        f"{one.name} v{one.version} `{one.sha256[:12]}`" for one in manifest.templates
    )
    lines = [
        f"# {manifest.dataset} {manifest.version}",
        f"**{'reused' if is_reused else 'computed'}** · {TABLES[manifest.dataset].grain}"
        f" · [lineage of the run](../key/{LINEAGE})",
        "",
        "| | |",
        "|---|---|",
        f"| rows | {manifest.n_rows:,} |",
        f"| bytes | {manifest.n_bytes:,} |",
        f"| content | `{manifest.content_sha256[:12]}` |",
        f"| parents | {parents or 'none: it starts here'} |",
        f"| read by | {read_by or 'nothing'} |",
        f"| stage code | `{manifest.code_sha256[:12]}` |",
        f"| templates | {templates or 'none'} |",
        f"| models | {', '.join(manifest.models) or 'none'} |",
        f"| calls | {calls.made:,} made, {calls.reused:,} found in the ledger |",
        f"| tokens | {calls.prompt_tokens:,} in, {calls.completion_tokens:,} out |",
        f"| cost of all replies | {cost} |",
        f"| code commit | {manifest.code_commit or 'not a checkout'}"
        f"{' (with uncommitted changes)' if manifest.is_code_dirty else ''} |",
        # A dataset with a fault is never committed.
        f"| checks passed | {len(declared_constraints(table, parents_known))} constraints of its"
        f" table; [coverage and drift](../key/{key('data_checks', 'table')}) |",
        f"| finished | {manifest.finished_at:%Y-%m-%d %H:%M:%S} UTC |",
        "",
        *_mermaid([*ancestors, manifest], artifacts),
    ]
    return "\n".join(lines)


def page(artifact: str | None, dataset: str) -> str:
    """Where the Prefect UI shows a dataset's card: of this run, else all that there are.

    Relative to a card, because Prefect has two UIs, one of them under /v2, and only that one draws
    graphs: a link must not lead out of the one that is being read.
    """
    return f"../artifact/{artifact}" if artifact else f"../key/{key(dataset)}"


def lineage_graph(manifests: Sequence[Manifest], artifacts: Mapping[str, str]) -> str:
    """The datasets of a run as a table of links and as a graph, which the newer UI draws."""

    def here(dataset: str) -> str:
        return page(artifacts.get(dataset), dataset)

    lines = ["| dataset | version | rows | made from |", "|---|---|---|---|"]
    for one in manifests:
        parents = ", ".join(f"[{parent}]({here(parent)})" for parent in one.parents)
        name = f"[{one.dataset}]({here(one.dataset)})"
        lines.append(f"| {name} | `{one.version}` | {one.n_rows:,} | {parents} |")
    return "\n".join([*lines, "", *_mermaid(manifests, artifacts)])


def _mermaid(manifests: Sequence[Manifest], artifacts: Mapping[str, str]) -> list[str]:
    lines = ["```mermaid", "flowchart LR"]
    for one in manifests:
        lines.append(f'    {one.dataset}["{one.dataset}<br/>{one.n_rows:,} rows"]')
        lines.append(f'    click {one.dataset} "{page(artifacts.get(one.dataset), one.dataset)}"')
    lines += [f"    {parent} --> {child}" for parent, child in direct_edges(manifests)]
    return [*lines, "```"]


def direct_edges(manifests: Sequence[Manifest]) -> list[tuple[str, str]]:
    """(parent, child) pairs less those that a longer way says already: a graph one can read."""
    versions = {one.dataset: one.version for one in manifests}
    # A model aligned to an earlier one has models for a parent, but none of this graph.
    parents = {
        one.dataset: {
            name for name, version in one.parents.items() if versions.get(name) == version
        }
        for one in manifests
    }

    def ancestors(dataset: str) -> set[str]:
        found: set[str] = set()
        waiting = [dataset]
        while waiting:
            new = parents.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    edges = []
    for child, near in parents.items():
        implied = set().union(*(ancestors(parent) for parent in near))
        edges += [(parent, child) for parent in sorted(near - implied)]
    return edges


def table_of(warehouse: Warehouse, manifest: Manifest) -> list[dict[str, Any]]:
    """Rows shown beside a dataset's card; none for datasets too large to read."""
    columns = SHOWN.get(manifest.dataset)
    if columns is None:
        return []
    rows = warehouse.read(manifest.dataset, manifest.version, columns).to_pylist()
    if manifest.dataset == "judge_audit":
        rows = [row for row in rows if row["slice_kind"] != "persona"]
    if manifest.dataset == "data_checks":
        rows = [row for row in rows if is_worth_showing(row)]
    return [{name: _short(value) for name, value in row.items()} for row in rows]


def picture_of(warehouse: Warehouse, plan: StagePlan) -> str | None:
    """The report's figures as Markdown that carries its pictures within itself."""
    if plan.stage != "report":
        return None
    lines = []
    for name in ("auc", "win_rates", "win_rates_by_answers", "rank"):
        path = warehouse.file_path("report", plan.version, f"{name}.png")
        data = base64.b64encode(path.read_bytes()).decode()
        lines.append(f"![{name}](data:image/png;base64,{data})")
    return "\n\n".join(lines)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
