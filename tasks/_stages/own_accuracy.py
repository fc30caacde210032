"""Are held-out real users' test pairs ranked as they ranked them? Beside "the longer one wins"."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pref_model.types import Interval
from tasks._convert import index_of
from tasks._stages.own_world import OwnWorld, load_own_world
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES

LONGER = "longer"
METHODS = ("pref", "classic", LONGER)


def margins_by_method(
    inputs: Inputs, world: OwnWorld
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Margins (N_test,) of the test cells by method and number of answers; nan where unknown.

    A user is known at a number of answers who gave as many; all methods are measured there on
    the same users, those that learn nothing from answers too.
    """
    from pref_model.checkpoint import load_model

    models = {name: load_model(inputs.folder("models"), name) for name in METHODS[:2]}
    length = {
        one: len(text)
        for one, text in inputs.lookup("responses", "response_id", "response_text").items()
    }
    test = world.part("test")
    features = {
        name: model.pair_features(world.differences)[test.pair] for name, model in models.items()
    }
    longer = np.array(
        [
            np.sign(length[world.response_a_ids[pair]] - length[world.response_b_ids[pair]])
            for pair in test.pair
        ],
        dtype=np.float64,
    )
    row_of = index_of(world.personas)
    weights: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in inputs.read("adapted_weights").to_pylist():
        where = weights.setdefault((row["method"], row["n_answers"]), {})
        where[row_of[row["persona_id"]]] = row["weights"]
    found: dict[tuple[str, int], NDArray[np.float64]] = {}
    for (method, count), known in sorted(weights.items()):
        unknown = [np.nan] * models[method].d
        mine = np.array([known.get(int(user), unknown) for user in test.user])
        found[method, count] = np.einsum(
            "nd,nd->n", mine.reshape(test.user.size, -1), features[method]
        )
        found[LONGER, count] = np.where(np.isnan(found[method, count]), np.nan, longer)
    return found


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``pair_accuracy`` (by user) and ``accuracy_means`` (pooled over pairs).

    Real users often have a test pair or two, too few for an AUC of their own; so pairs are
    pooled, and users resampled. A pair counts once, whatever the weight of its answers.
    """
    from pref_model.metrics import auc_per_user, cluster_bootstrap_pooled, pair_accuracy

    config = inputs.config
    world = load_own_world(inputs)
    test = world.part("test")
    margins = margins_by_method(inputs, world)
    right: dict[tuple[str, int], NDArray[np.float64]] = {}
    rows: list[dict[str, Any]] = []
    aucs: dict[tuple[str, int], list[float]] = {}
    for (method, count), margin in margins.items():
        known = ~np.isnan(margin)
        values = np.full(margin.size, np.nan)
        values[known] = pair_accuracy(margin[known], test.label[known])
        right[method, count] = values
        for user in np.unique(test.user[~np.isnan(values)]):
            mine = (test.user == user) & ~np.isnan(values)
            auc = float(auc_per_user(margin[mine][None], test.label[mine][None])[0])
            aucs.setdefault((method, count), []).append(auc)
            rows.append(
                {
                    "persona_id": world.personas[user],
                    "method": method,
                    "n_answers": count,
                    "right_share": float(values[mine].mean()),
                    "auc": None if np.isnan(auc) else auc,
                    "n_pairs": int(mine.sum()),
                }
            )
    means = []
    for (method, count), values in sorted(right.items()):
        settings = {name: config[name] for name in ("draws", "level", "seed")}
        accuracy = cluster_bootstrap_pooled(test.user, values, **settings)
        lead = cluster_bootstrap_pooled(test.user, values - right[LONGER, count], **settings)
        known_aucs = [one for one in aucs.get((method, count), []) if not np.isnan(one)]
        means.append(
            {
                "method": method,
                "n_answers": count,
                **_parts("accuracy", accuracy),
                **_parts("lead", lead),
                "auc_mean": float(np.mean(known_aucs)) if known_aucs else None,
                "n_users": accuracy.n,
                "n_pairs": int(np.sum(~np.isnan(values))),
            }
        )
    rows.sort(key=lambda row: (row["persona_id"], row["method"], row["n_answers"]))
    return {
        "pair_accuracy": Output(pa.Table.from_pylist(rows, TABLES["pair_accuracy"].schema)),
        "accuracy_means": Output(pa.Table.from_pylist(means, TABLES["accuracy_means"].schema)),
    }


def _parts(name: str, interval: Interval) -> dict[str, float | None]:
    if interval.n == 0:
        return dict.fromkeys((f"{name}_mean", f"{name}_low", f"{name}_high"))
    return {
        f"{name}_mean": interval.mean,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }


STAGE = Stage(
    name="accuracy",
    reads=(
        "personas", "responses", "pairs", "answers", "splits", "embeddings",
        "text_features", "models",
        "adapted_weights",
    ),
    writes=("pair_accuracy", "accuracy_means"),
    module=__name__,
    build=build,
)  # fmt: skip
