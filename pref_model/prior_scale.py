"""How far users really differ: the width of their prior, chosen on answers that were kept back.

It fits no base rewards; `adapt.UserPrior.from_users` says along which directions users differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pref_model.adapt import UserPrior, adapt_preferences
from pref_model.errors import BadSetting
from pref_model.likelihood import log_likelihood
from pref_model.types import Floats, Preferences

SCALES: tuple[float, ...] = (1e-6, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class PriorScale(NamedTuple):
    """A prior with its covariance scaled, and what the choice rests on.

    Attributes:
        prior: Prior with covariance scale * C.
        scale: The scale with the highest likelihood.
        scales: (S,) scales tried.
        mean_log_likelihood: (S,) nats a held-out label.
    """

    prior: UserPrior
    scale: float
    scales: Floats
    mean_log_likelihood: Floats


def choose_prior_scale(
    pair_features: Floats,
    train: Preferences,
    validation: Preferences,
    n_users: int,
    prior: UserPrior,
    scales: tuple[float, ...] = SCALES,
) -> PriorScale:
    """Scale the prior's covariance by the likelihood of training users' held-out answers.

    Each training user is adapted (eq 6) on the training pairs under N(m, c C), and the answers
    to the validation pairs are scored. Where users have a few answers each, the weights of the
    joint fit have followed the noise in them: C is then too wide, and a new user's first answers
    are believed too much. A c near zero means that nothing personal was found.

    Args:
        pair_features: (M, d) features of every pair.
        train: Cells of the training users to adapt on.
        validation: Cells of the same users on other pairs.
        n_users: U.
        prior: m and C.
        scales: c tried, > 0; the smallest of those with the best score is kept.

    Raises:
        BadSetting: No scale, or one that is not positive.

    Numerics: without a validation cell every score is 0, and the smallest scale is kept.
    """
    if not scales or min(scales) <= 0.0:
        raise BadSetting(f"prior: found scales {scales}, expected at least one, each above 0")
    tried = np.sort(np.asarray(scales, dtype=np.float64))
    total = max(float(validation.weight.sum()), np.finfo(float).tiny)
    score = np.zeros(tried.size)
    for place, scale in enumerate(tried):
        mean = adapt_preferences(pair_features, train, n_users, _scaled(prior, scale)).mean
        margin = np.einsum("nd,nd->n", mean[validation.user], pair_features[validation.pair])
        score[place] = float(validation.weight @ log_likelihood(margin, validation.label)) / total
    best = int(score.argmax())
    return PriorScale(_scaled(prior, tried[best]), float(tried[best]), tried, score)


def _scaled(prior: UserPrior, scale: float) -> UserPrior:
    return UserPrior(prior.mean, scale * prior.covariance)
