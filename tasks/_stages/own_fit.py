"""Base rewards from real users' answers; without shared pairs they start from features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tasks._stages.fit import model_outputs, one_thread
from tasks._stages.own_world import load_own_world, response_vectors
from tasks._stages.stage import Inputs, Output, Stage

if TYPE_CHECKING:
    from pref_model.model import FitConfig
    from pref_model.types import Preferences

# Below this share of answers to pairs that another training user answered too, the matrix has
# next to nothing that a factorization of it could compare users on.
LEAST_SHARED = 0.5


def shared_share(train: Preferences) -> float:
    """Share of the cells whose pair is in more than one of them, so of more than one user."""
    _, place, count = np.unique(train.pair, return_inverse=True, return_counts=True)
    return float(np.mean(count[place] > 1)) if train.pair.size else 0.0


def started(settings: FitConfig, train: Preferences) -> FitConfig:
    """The settings with the start that these answers allow; the saved model names it."""
    if settings.start in ("svd", "svd_raw") and shared_share(train) < LEAST_SHARED:
        return replace(settings, start="features")
    return settings


def build(inputs: Inputs) -> dict[str, Output]:
    """Fits both models; the validation part (seen users, new pairs) chooses and stops."""
    from pref_model.baselines import fit_classic
    from pref_model.basis import canonicalize
    from pref_model.fit import fit_reward_model
    from pref_model.model import FitConfig, RunConfig
    from pref_model.unshared import fit_unshared

    config = dict(inputs.config)
    run = RunConfig(device="cpu", seed=config.pop("seed"))
    encoder_id = config.pop("encoder_id")
    text_columns = config.pop("text_columns")
    settings = FitConfig(**{**config, "head_l2": tuple(config["head_l2"])})
    world = load_own_world(inputs)
    seen = world.n_seen_users
    train, validation = world.part("train"), world.part("validation")
    settings = started(settings, train)
    known = world.differences, train, seen, settings, run, validation
    with one_thread():
        classic = fit_classic(*known, text_columns=text_columns)
        if settings.start == "features":
            # The basis means something as it is made: the first base reward is common.
            pref = fit_unshared(*known, text_columns=text_columns, common=classic)
        else:
            pref = fit_reward_model(*known, text_columns=text_columns)
            pref = canonicalize(pref, world.differences[: world.n_seen_pairs])
    models = {"pref": pref, "classic": classic}
    return model_outputs(*response_vectors(inputs), models, encoder_id, world.personas[:seen])


STAGE = Stage(
    name="fit_own",
    reads=("pairs", "answers", "splits", "embeddings", "text_features"),
    writes=("models", "base_rewards", "user_weights"),
    module=__name__,
    build=build,
)
