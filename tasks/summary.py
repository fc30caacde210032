"""The numbers a run ends with, read from its datasets."""

from __future__ import annotations

from typing import Any

from tasks._engines import simulator_settings
from tasks._runs import warehouse_at
from tasks.chain import Chain
from tasks.config import BenchmarkConfig, FlowConfig, OwnConfig

AUDITED = (
    "n_judgments", "n_exact", "n_tolerated", "n_unparsed", "n_complete", "n_consistent",
    "consistent_share", "first_share", "first_share_low", "first_share_high",
    "position_bias_logit", "position_bias_low_logit", "position_bias_high_logit",
)  # fmt: skip


WIN_DETAILS = (
    "n_users", "n_comparisons", "n_ties", "n_unparsed", "n_users_needed", "length_effect_logit",
    "length_gap_mean", "win_rate_bound", "n_calls", "prompt_tokens", "completion_tokens",
    "cost_usd",
)  # fmt: skip


def summarize(config: FlowConfig, chain: Chain) -> dict[str, Any]:
    """What ``--json`` prints, less the time, which only the caller knows.

    Returns:
        ``calls_made``, ``calls_reused``, ``cost_usd`` (money spent in this run), ``datasets``
        {name: version}, ``auc`` {method: {answers: {mean, low, high}}}, ``win_rate``
        {method: {mean, low, high}} after ``win_rate_answers``, ``win_rate_by_answers`` {method:
        {answers: {mean, low, high}}}, ``win_rate_details`` {method: {counts, at_equal_length:
        {mean, low, high}, ...}}, ``win_rate_differences``, ``win_checks``, ``judge_audit``,
        ``base_rewards`` (facts and labels), ``alignment`` (None without one), ``report`` (a path),
        ``is_simulated``.
    """
    warehouse = warehouse_at(config.warehouse)

    def rows(dataset: str) -> list[dict[str, Any]]:
        return list(warehouse.read(dataset, chain.datasets[dataset]).to_pylist())

    wins, at = rows("win_rates"), config.win.n_answers
    shown = [row for row in wins if row["n_answers"] == at]
    labels = {row["base_reward"]: row["label"] for row in rows("base_reward_labels")}
    overall = next(row for row in rows("judge_audit") if row["slice_kind"] == "overall")
    is_simulated = config.llm.base_url is None
    audit = {name: overall[name] for name in AUDITED}
    if is_simulated:
        audit["true_position_bias_logit"] = simulator_settings(
            config.llm.simulator
        ).position_bias_logit
    return {
        **chain.told(),
        "auc": _by_answers(rows("auc_means"), "auc"),
        "win_rate": {row["method"]: _interval(row, "win_rate") for row in shown},
        "win_rate_answers": at,
        "win_rate_by_answers": _by_answers(wins, "win_rate"),
        "win_rate_details": {row["method"]: _win_details(row) for row in shown},
        "win_rate_differences": [
            {
                "method": row["method"],
                "other_method": row["other_method"],
                **_interval(row, "difference"),
                "n_users": row["n_users"],
                "n_comparisons": row["n_comparisons"],
            }
            for row in rows("win_differences")
            if row["n_answers"] == at
        ],
        "win_checks": {row.pop("check_kind"): row for row in rows("win_checks")},
        "judge_audit": audit,
        "base_rewards": [
            {**facts, "label": labels[facts["base_reward"]]} for facts in rows("base_reward_facts")
        ],
        "alignment": next(iter(rows("alignment")), None),
        "is_simulated": is_simulated,
        "report": str(warehouse.file_path("report", chain.datasets["report"], "report.html")),
    }


def _win_details(row: dict[str, Any]) -> dict[str, Any]:
    equal = {"at_equal_length": _interval(row, "controlled_rate")}
    return {name: row[name] for name in WIN_DETAILS} | equal


def _by_answers(rows: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[str(row["n_answers"])] = _interval(row, name)
    return found


def _interval(row: dict[str, Any], name: str) -> dict[str, float | None]:
    return {part: row[f"{name}_{part}"] for part in ("mean", "low", "high")}


def summarize_benchmark(config: BenchmarkConfig, chain: Chain) -> dict[str, Any]:
    """What ``pref benchmark --json`` prints, less the time, which only the caller knows.

    Returns:
        ``calls_made`` (always 0), ``datasets`` {name: version}, ``means``: the rows of
        ``benchmark_means``.
    """
    warehouse = warehouse_at(config.warehouse)
    means = warehouse.read("benchmark_means", chain.datasets["benchmark_means"])
    return {
        "calls_made": chain.count.made,
        "datasets": dict(chain.datasets),
        "means": means.to_pylist(),
    }


def summarize_own(config: OwnConfig, chain: Chain) -> dict[str, Any]:
    """What ``pref run own --json`` prints, less the time, which only the caller knows.

    Returns:
        ``calls_made`` (always 0), ``datasets`` {name: version}, ``accuracy`` {method: {answers:
        {mean, low, high, n_users, n_pairs, lead: {mean, low, high}}}}, ``facts`` {what: count},
        ``start`` (of the base rewards), ``report`` (a path).
    """
    from pref_model.checkpoint import load_model

    warehouse = warehouse_at(config.warehouse)
    accuracy: dict[str, dict[str, Any]] = {}
    for row in warehouse.read("accuracy_means", chain.datasets["accuracy_means"]).to_pylist():
        accuracy.setdefault(row["method"], {})[str(row["n_answers"])] = {
            **_interval(row, "accuracy"),
            "n_users": row["n_users"],
            "n_pairs": row["n_pairs"],
            "lead": _interval(row, "lead"),
        }
    facts = warehouse.read("split_facts", chain.datasets["split_facts"]).to_pylist()
    models = warehouse.folder("models", chain.datasets["models"])
    return {
        "calls_made": chain.count.made,
        "datasets": dict(chain.datasets),
        "warnings": chain.warned(),
        "accuracy": accuracy,
        "facts": {row["fact"]: row["n_counted"] for row in facts},
        "start": load_model(models, "pref").config.start,
        "report": str(warehouse.file_path("report", chain.datasets["report"], "report.html")),
    }
