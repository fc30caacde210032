"""Base rewards where no two users answered the same pair: one for all, and where users pull it.

The SVD of Algorithm 1 compares users on pairs they share; without any, it compares nothing. It
reads no text.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit

from pref_model.adapt import UserPrior, adapt_preferences
from pref_model.baselines import fit_classic
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.prior_scale import choose_prior_scale
from pref_model.types import Floats, Preferences

# Variance of the weight on the common reward beside 1 on the directions: users differ in what
# they like far more than in how surely they like what everybody likes.
COMMON_VARIANCE = 0.05
SCALES = (1e-6, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def fit_unshared(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    config: FitConfig,
    run: RunConfig,
    validation: Preferences | None = None,
    *,
    text_columns: int = 0,
    common: RewardModel | None = None,
) -> RewardModel:
    """Fit one reward for everybody, then the directions in which single users pull it.

    1. The first base reward is classic RLHF's (eq 2), `baselines.fit_classic`.
    2. Each user's score g_u = sum_m c_um (A_um - s(w x_m)) x_m, less the mean over all answers, is
       the direction in which the user pulls w more than users do on average; to first order the
       user's own head is w + t g_u. The d - 1 leading right singular vectors of the scores
       (U, D) are the other base rewards.
    3. Users' weights are MAP (eq 6) under N((1, 0, ..., 0), c diag(0.05, 1, ..., 1)), c by the
       likelihood of the validation part (`prior_scale`).

    The joint fit of eq 5 is not run. Tried on PRISM's real choices (170 users with about eight
    answers each, no shared pair), it follows the noise in single users' answers: 0.585 to 0.624
    nats a validation answer, against 0.559 to 0.592 for step 1 alone, and step 3 takes another
    0.002 to 0.012 off.

    Args:
        pair_differences: (M, D) embeddings, first - second.
        preferences: Training cells.
        n_users: U training users.
        config: ``d`` and what `fit_classic` reads; ``user_l2`` is not used.
        run: Where to run, and the seed.
        validation: Cells of the same users on other pairs; without them users keep weights of
            next to nothing on all base rewards but the first.
        text_columns: See `fit.prepare_features`.
        common: What `fit_classic` gave for the same arguments; fitted here if None.

    Returns:
        `RewardModel` whose config names the start "features". Base rewards beyond
        min(U, D) + 1 are zero. The basis is as made: the first is common.

    Raises:
        BadArray: Shapes or indices disagree, or no training cell.

    Derived here (a random-effects model to first order); METHOD names nothing for such data.
    """
    common = common or fit_classic(
        pair_differences, preferences, n_users, config, run, validation, text_columns=text_columns
    )
    scaled = np.asarray(pair_differences, dtype=np.float64) / common.feature_scale
    directions = user_directions(scaled, preferences, n_users, common.head[0], config.d - 1)
    head = np.vstack([common.head, directions.astype(np.float32)])
    prior = unshared_prior(config.d)
    if validation is not None:
        features = scaled @ head.astype(np.float64).T
        prior = choose_prior_scale(features, preferences, validation, n_users, prior, SCALES).prior
    weights = adapt_preferences(
        scaled @ head.astype(np.float64).T, preferences, n_users, prior
    ).mean
    return replace(
        common,
        head=head,
        user_weights=weights.astype(np.float32),
        config=replace(config, start="features"),
    )


def unshared_prior(d: int) -> UserPrior:
    """The prior of step 3 before its width is chosen: the common reward, and nothing personal."""
    variance = np.ones(d)
    variance[0] = COMMON_VARIANCE
    return UserPrior(np.eye(d)[0], np.diag(variance))


def user_directions(
    scaled: Floats, cells: Preferences, n_users: int, common: Floats, n_directions: int
) -> Floats:
    """Leading unit directions of the users' scores at a common head: (n_directions, D).

    Args:
        scaled: (M, D) scaled pair differences.
        cells: Training cells.
        n_users: U.
        common: (D,) head.
        n_directions: Rows wanted; those beyond the rank of the scores are zero.
    """
    features = scaled[cells.pair]
    margin = features @ np.asarray(common, dtype=np.float64)
    pull = (cells.weight * (cells.label - expit(margin)))[:, None] * features
    # What is left for everybody alike belongs to the common head, not to any user.
    pull -= cells.weight[:, None] * (pull.sum(axis=0) / cells.weight.sum())
    scores = np.zeros((n_users, scaled.shape[1]))
    np.add.at(scores, cells.user, pull)
    _, singular, found = np.linalg.svd(scores, full_matrices=False)
    is_real = singular > 1e-9 * max(float(np.linalg.norm(pull)), 1e-30)
    kept = found[: min(n_directions, int(is_real.sum()))]
    # A singular vector's sign means nothing; fixed, so that equal scores give equal rows.
    largest = np.take_along_axis(kept, np.abs(kept).argmax(axis=1)[:, None], axis=1)
    kept = kept * np.where(largest < 0.0, -1.0, 1.0)
    result = np.zeros((n_directions, scaled.shape[1]))
    result[: len(kept)] = kept
    return result
