"""Held-out real users: their weights after some of the answers they gave. Nobody is asked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks._seeds import stable_integer
from tasks._stages.own_world import OwnWorld, load_own_world
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES

# Beside the weights: what a further user would start from.
PRIOR_FILE = "prior.json"


def answer_order(world: OwnWorld, order: str, seed: int) -> dict[int, NDArray[np.int64]]:
    """Calibration cells of each held-out user, in the order in which they are learnt from.

    Args:
        world: The answers.
        order: "random" (by hash of seed, user and pair) or "time" (as they were given).
        seed: Seed.

    Raises:
        InputRejected: Order of time, and an answer has none.
    """
    mine = np.flatnonzero(world.where("calibration"))
    untimed = int(np.isnan(world.answered_at_s[mine]).sum())
    if order == "time" and untimed:
        raise InputRejected(
            f"adapt.order: time, and {untimed} of {mine.size} answers of held-out users have no"
            " time; expected a time for each; add the column, or pass --set adapt.order=random"
        )
    user, pair = world.cells.user, world.cells.pair

    def rank(cell: int) -> tuple[float, int]:
        chance = stable_integer(seed, "order", world.personas[user[cell]], world.pairs[pair[cell]])
        return (float(world.answered_at_s[cell]) if order == "time" else 0.0), chance

    found: dict[int, list[int]] = {}
    for cell in sorted(mine.tolist(), key=rank):
        found.setdefault(int(user[cell]), []).append(cell)
    return {one: np.array(cells, np.int64) for one, cells in sorted(found.items())}


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``adapted_weights`` and ``questions`` (what was learnt from, in order).

    A user with fewer answers than a number asked for has no row there. Without an answer, a user
    has the mean of the prior: the average training user. The prior is that of the training users,
    as wide as their held-out answers bear out.
    """
    from pref_model.adapt import UserPrior, adapt_preferences, training_prior
    from pref_model.checkpoint import load_model
    from pref_model.prior_scale import SCALES as PRIOR_SCALES
    from pref_model.prior_scale import choose_prior_scale
    from pref_model.unshared import SCALES as UNSHARED_SCALES
    from pref_model.unshared import unshared_prior

    config = inputs.config
    world = load_own_world(inputs)
    model = load_model(inputs.folder("models"), "pref")
    features = model.pair_features(world.differences)
    beta = model.config.user_l2
    prior, scale = UserPrior.ridge(model.d, beta), None
    if config["prior"] == "training_users":
        train, seen = world.part("train"), world.n_seen_users
        is_shared = model.config.start != "features"
        wide = training_prior(features, train, seen, beta) if is_shared else unshared_prior(model.d)
        scales = PRIOR_SCALES if is_shared else UNSHARED_SCALES
        found = choose_prior_scale(features, train, world.part("validation"), seen, wide, scales)
        prior, scale = found.prior, found.scale
    order = answer_order(world, config["order"], config["seed"])
    new_users = range(world.n_seen_users, len(world.personas))
    rows: list[dict[str, Any]] = []
    for count in sorted(set(config["answers"])):
        able = [user for user in new_users if len(order.get(user, ())) >= count]
        if not able:
            continue
        known = [order[user][:count] for user in able if count]
        taken = np.concatenate(known) if known else np.empty(0, np.int64)
        cells = world.taken(taken)
        cells = cells._replace(user=np.searchsorted(able, cells.user).astype(np.int64))
        means = adapt_preferences(features, cells, len(able), prior).mean
        for user, mean in zip(able, means, strict=True):
            one = {"persona_id": world.personas[user], "n_answers": count}
            rows.append({**one, "method": "classic", "weights": [1.0]})
            rows.append({**one, "method": "pref", "weights": mean.tolist()})
    if not rows:
        raise InputRejected(
            f"adapt.answers: {config['answers']}, and no held-out user has as many answers;"
            " expected a smaller number; 0 is the average user"
        )
    rows.sort(key=lambda row: (row["persona_id"], row["method"], row["n_answers"]))
    questions = [
        {
            "persona_id": world.personas[user],
            "step": step,
            "pair_id": world.pairs[world.cells.pair[cell]],
            "rule": config["order"],
            "rule_score": None,
            "answer_prob": float(world.cells.label[cell]),
        }
        for user, cells in order.items()
        for step, cell in enumerate(cells, start=1)
    ]
    kept = {"mean": prior.mean.tolist(), "covariance": prior.covariance.tolist(), "scale": scale}
    files = {PRIOR_FILE: (json.dumps(kept, indent=1) + "\n").encode()}
    adapted = pa.Table.from_pylist(rows, TABLES["adapted_weights"].schema)
    return {
        "adapted_weights": Output(adapted, files),
        "questions": Output(pa.Table.from_pylist(questions, TABLES["questions"].schema)),
    }


STAGE = Stage(
    name="adapt_own",
    reads=("personas", "pairs", "answers", "splits", "embeddings", "text_features", "models"),
    writes=("adapted_weights", "questions"),
    module=__name__,
    build=build,
)
