"""What a benchmark would compute, told before it does. It computes nothing and makes no call."""

from __future__ import annotations

from typing import Any

from tasks._runs import inputs_of, plan_stage, warehouse_at
from tasks._stages.benchmark import STAGE, cells_of, estimate, label_count, missing_cells
from tasks._stages.configs import stage_configs
from tasks.config import BenchmarkConfig
from tasks.errors import InputRejected


def adopted(config: BenchmarkConfig) -> dict[str, str]:
    """The current versions of what the benchmark reads.

    Raises:
        InputRejected: One of them is not there.
    """
    current = warehouse_at(config.warehouse).current()
    missing = [name for name in STAGE.reads if name not in current]
    if missing:
        raise InputRejected(
            f"benchmark: warehouse {config.warehouse} has no {', '.join(missing)}; expected the"
            " matrix of a finished run; make it with `pref run attributes` or `pref run prism`"
        )
    return {name: current[name] for name in STAGE.reads}


def plan_benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Cells in hand and to compute, and roughly how long, arm by arm.

    Returns:
        ``arms`` [{arm_group, arm, n_held, n_missing, seconds}], ``n_users``, ``n_pairs``,
        ``n_labels``, ``processes``.

    Raises:
        InputRejected: There is no matrix, or no such arm.
    """
    versions = adopted(config)
    plan = plan_stage(STAGE, config.warehouse, stage_configs(config)["benchmark"], versions)
    inputs = inputs_of(plan)
    arms = []
    for name, about in plan.config["arms"].items():
        missing = len(missing_cells(inputs, name))
        arms.append(
            {
                "arm_group": about["arm_group"],
                "arm": name,
                "n_held": len(cells_of(inputs, name)) - missing,
                "n_missing": missing,
                "seconds": estimate(inputs, name),
            }
        )
    return {
        "arms": arms,
        "n_users": len(set(inputs.read("preferences")["persona_id"].to_pylist())),
        "n_pairs": inputs.read("pairs").num_rows,
        "n_labels": label_count(inputs),
        "processes": config.processes,
    }
