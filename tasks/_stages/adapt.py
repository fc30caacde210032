"""New users: which questions they are asked, and their weights after each number of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks._convert import vector_column
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import World, load_world
from tasks.errors import InputRejected
from warehouse.tables import TABLES

METHODS = ("classic", "per_user", "pref")


def build(inputs: Inputs) -> dict[str, Output]:
    """Asks the held-out users about seen pairs, and keeps weights at every number of answers.

    Every method learns from the same answers to the same questions, which are chosen for PReF.
    ``pref`` weights act on base rewards (d), ``per_user`` weights on embeddings (D); ``classic``
    learns nothing from them and keeps the weight 1.
    """
    from pref_model.adapt import UserPrior, training_prior
    from pref_model.checkpoint import load_model
    from pref_model.questions import run_questionnaire

    config = inputs.config
    world = load_world(inputs)
    model = load_model(inputs.folder("models"), "pref")
    counts = _possible(config["answers"], world)
    features = model.pair_features(world.differences)
    beta = model.config.user_l2
    prior = (
        UserPrior.ridge(model.d, beta)
        if config["prior"] == "ridge"
        else training_prior(features, world.part("train"), world.n_seen_users, beta)
    )
    calibration = slice(0, world.n_seen_pairs)
    asked = run_questionnaire(
        features[calibration],
        world.prompt_of_pair[calibration],
        world.labels(slice(world.n_seen_users, None), calibration),
        prior,
        config["rule"],
        max(counts),
        world.new_users,
        seed=config["seed"],
        n_answers=counts,
    )
    weights: dict[str, dict[int, NDArray[np.float64]]] = {
        "classic": {count: np.ones((len(world.new_users), 1)) for count in counts},
        "pref": dict(zip(asked.n_answers, asked.means, strict=True)),
        "per_user": _per_user(
            world, asked.asked, asked.answers, model.feature_scale, counts, config["seed"]
        ),
    }
    return {
        "adapted_weights": Output(_weight_rows(world, weights, counts)),
        "questions": Output(_question_rows(world, config["rule"], asked)),
    }


def _possible(answers: list[int], world: World) -> list[int]:
    possible = sorted({one for one in answers if 1 <= one <= world.n_seen_pairs})
    if not possible:
        raise InputRejected(
            f"adapt.answers: {answers} with {world.n_seen_pairs} pairs to ask about; expected at"
            " least one number between 1 and that; ask for fewer answers or add prompts"
        )
    return possible


def _per_user(
    world: World,
    asked: NDArray[np.int64],
    answers: NDArray[np.float64],
    feature_scale: NDArray[np.float32],
    counts: list[int],
    seed: int,
) -> dict[int, NDArray[np.float64]]:
    """A reward for each user from the same answers, nothing shared; weights on raw embeddings."""
    from pref_model.baselines import choose_user_ridge, fit_user_heads

    scale = feature_scale.astype(np.float64)
    seen_pairs = np.arange(world.n_seen_pairs)
    new_pairs = np.arange(world.n_seen_pairs, len(world.pairs))
    labels = world.labels(slice(0, world.n_seen_users), slice(None))
    found = {}
    for count in counts:
        ridge = choose_user_ridge(
            world.differences,
            labels,
            seen_pairs,
            new_pairs,
            scale,
            count,
            seed=seed,
        )
        heads = fit_user_heads(
            world.differences, asked[:, :count], answers[:, :count], scale, ridge
        )
        found[count] = heads.heads / scale
    return found


def _weight_rows(
    world: World, weights: dict[str, dict[int, NDArray[np.float64]]], counts: list[int]
) -> pa.Table:
    users = len(world.new_users)
    parts = [
        pa.table(
            {
                "persona_id": world.new_users,
                "method": [method] * users,
                "n_answers": pa.array([count] * users, pa.int64()),
                "weights": vector_column(weights[method][count], pa.float64()),
            }
        )
        for method in METHODS
        for count in counts
    ]
    order = [(name, "ascending") for name in ("persona_id", "method", "n_answers")]
    return pa.concat_tables(parts).sort_by(order).cast(TABLES["adapted_weights"].schema)


def _question_rows(world: World, rule: str, asked: Any) -> pa.Table:
    rows = [
        {
            "persona_id": persona,
            "step": step + 1,
            "pair_id": world.pairs[pair],
            "rule": rule,
            "rule_score": float(asked.scores[user, step]),
            "answer_prob": float(asked.answers[user, step]),
        }
        for user, persona in enumerate(world.new_users)
        for step, pair in enumerate(asked.asked[user])
        if pair >= 0
    ]
    return pa.Table.from_pylist(rows, TABLES["questions"].schema)


STAGE = Stage(
    name="adapt",
    reads=("pairs", "preferences", "splits", "embeddings", "models"),
    writes=("adapted_weights", "questions"),
    module=__name__,
    build=build,
)
