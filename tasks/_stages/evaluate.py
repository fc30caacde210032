"""AUC of new users on new pairs; win rates are `tasks._stages.win_rates`' business."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks._convert import index_of
from tasks._stages.adapt import METHODS
from tasks._stages.personalize import rewards
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import load_world
from warehouse.tables import TABLES


def build_auc(inputs: Inputs) -> dict[str, Output]:
    """AUC of each new user, method and number of answers, and the means over users."""
    from pref_model.metrics import auc_per_user

    world = load_world(inputs)
    new_pairs = slice(world.n_seen_pairs, None)
    labels = world.labels(slice(world.n_seen_users, None), new_pairs)
    differences = world.differences[new_pairs]
    counts = sorted(set(inputs.read("adapted_weights")["n_answers"].to_pylist()))
    rows, means = [], []
    for method in METHODS:
        for count in counts:
            personas, margins = rewards(inputs, method, count, differences)
            order = [index_of(personas)[one] for one in world.new_users]
            found = auc_per_user(margins[order], labels)
            n_pairs = np.sum(~np.isnan(labels) & (labels != 0.5), axis=1)
            rows += [
                {
                    "persona_id": persona,
                    "method": method,
                    "n_answers": count,
                    "auc": None if np.isnan(auc) else float(auc),
                    "n_pairs": int(n),
                }
                for persona, auc, n in zip(world.new_users, found, n_pairs, strict=True)
            ]
            interval = _interval(inputs, found)
            means.append(
                {
                    "method": method,
                    "n_answers": count,
                    "auc_mean": interval[0],
                    "auc_low": interval[1],
                    "auc_high": interval[2],
                    "n_users": interval[3],
                }
            )
    rows.sort(key=lambda row: (row["persona_id"], row["method"], row["n_answers"]))
    return {
        "auc": Output(pa.Table.from_pylist(rows, TABLES["auc"].schema)),
        "auc_means": Output(pa.Table.from_pylist(means, TABLES["auc_means"].schema)),
    }


def _interval(
    inputs: Inputs, values: NDArray[np.float64]
) -> tuple[float | None, float | None, float | None, int]:
    from pref_model.metrics import cluster_bootstrap_mean

    config = inputs.config
    found = cluster_bootstrap_mean(
        values, draws=config["draws"], level=config["level"], seed=config["seed"]
    )
    if found.n == 0:
        return None, None, None, 0
    return found.mean, found.low, found.high, found.n


AUC_STAGE = Stage(
    name="auc",
    reads=("pairs", "preferences", "splits", "embeddings", "models", "adapted_weights"),
    writes=("auc", "auc_means"),
    module=__name__,
    build=build_auc,
)
