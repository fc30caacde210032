"""The prior is as wide as held-out answers bear out."""

from __future__ import annotations

import numpy as np
import pytest

from pref_model.adapt import UserPrior
from pref_model.errors import BadSetting
from pref_model.prior_scale import SCALES, choose_prior_scale
from pref_model.types import Floats, Preferences, make_preferences


def world(spread: float) -> tuple[Floats, Preferences, Preferences]:
    rng = np.random.default_rng(2)
    n_users, answers, d = 80, 16, 3
    features = rng.standard_normal((n_users * answers, d))
    weights = np.array([1.5, 0.0, 0.0]) + spread * rng.standard_normal((n_users, d))
    user = np.repeat(np.arange(n_users), answers)
    chance = 1.0 / (1.0 + np.exp(-np.einsum("nd,nd->n", weights[user], features)))
    label = (rng.random(user.size) < chance).astype(np.float64)
    learns = np.arange(user.size) % answers < 10
    pair = np.arange(user.size)
    return (
        features,
        make_preferences(user[learns], pair[learns], label[learns]),
        make_preferences(user[~learns], pair[~learns], label[~learns]),
    )


def chosen(spread: float) -> float:
    prior = UserPrior(np.array([1.5, 0.0, 0.0]), np.eye(3))
    return choose_prior_scale(*world(spread), 80, prior).scale


def test_users_who_are_alike_get_a_narrow_prior_and_others_a_wide_one() -> None:
    assert chosen(0.0) <= 0.1
    assert chosen(1.0) == 1.0


def test_the_mean_is_kept_and_the_covariance_scaled() -> None:
    prior = UserPrior(np.array([1.0, 2.0, 3.0]), np.diag([1.0, 2.0, 3.0]))
    found = choose_prior_scale(*world(0.5), 80, prior)
    np.testing.assert_array_equal(found.prior.mean, prior.mean)
    np.testing.assert_array_equal(found.prior.covariance, found.scale * prior.covariance)
    assert found.scale == found.scales[found.mean_log_likelihood.argmax()]


def test_without_anything_to_choose_on_nothing_personal_is_believed() -> None:
    features, train, _ = world(1.0)
    nothing = make_preferences([], [], [])
    prior = UserPrior(np.zeros(3), np.eye(3))
    assert choose_prior_scale(features, train, nothing, 80, prior).scale == min(SCALES)
    with pytest.raises(BadSetting):
        choose_prior_scale(features, train, nothing, 80, prior, ())
