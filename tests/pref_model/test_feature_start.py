"""The start without shared pairs: what users have in common first, where they differ after it."""

from __future__ import annotations

import numpy as np
import pytest

from pref_model.adapt import adapt_preferences, training_prior
from pref_model.errors import BadArray
from pref_model.feature_start import feature_start, user_spread
from pref_model.fit import fit_reward_model, prepare_features
from pref_model.model import FitConfig, RunConfig
from pref_model.types import Floats, Preferences, make_preferences

D = 12


def world(
    spread: float, n_users: int = 120, answers: int = 14, seed: int = 1
) -> tuple[Floats, Preferences, Floats]:
    """Every user with pairs of their own; one common head, and one direction users differ along."""
    rng = np.random.default_rng(seed)
    common, direction = np.zeros(D), np.zeros(D)
    common[0], direction[1] = 2.0, 1.0
    taste = spread * rng.standard_normal(n_users)
    differences = rng.standard_normal((n_users * answers, D))
    user = np.repeat(np.arange(n_users), answers)
    heads = common + taste[:, None] * direction
    chance = 1.0 / (1.0 + np.exp(-np.einsum("nd,nd->n", heads[user], differences)))
    label = (rng.random(user.size) < chance).astype(np.float64)
    return differences, make_preferences(user, np.arange(user.size), label), taste


def scaled(differences: Floats, cells: Preferences) -> Floats:
    return prepare_features(differences, cells, 120, None, "half")[0]


def test_the_first_base_reward_is_common_and_the_second_is_where_users_differ() -> None:
    differences, cells, taste = world(3.0)
    start = feature_start(scaled(differences, cells), cells, 120, 2)
    first, second = (row / np.linalg.norm(row) for row in start.head)
    assert abs(first[0]) > 0.9
    assert abs(second[1]) > 0.9
    assert np.all(start.user_weights[:, 0] == 1.0)
    along = start.user_weights[:, 1] * np.sign(second[1])
    assert np.corrcoef(along, taste)[0, 1] > 0.7


def test_users_who_do_not_differ_get_next_to_no_weights_of_their_own() -> None:
    size = {}
    for spread in (0.0, 3.0):
        drawn = [world(spread, seed=seed)[:2] for seed in range(6)]
        starts = [feature_start(scaled(*one), one[1], 120, 3) for one in drawn]
        size[spread] = np.mean([np.abs(one.user_weights[:, 1:]).mean() for one in starts])
    assert size[0.0] < 0.15 * size[3.0]


def test_swapping_responses_negates_features_and_leaves_users_alone() -> None:
    differences, cells, _ = world(2.0)
    before = feature_start(scaled(differences, cells), cells, 120, 3)
    swapped = cells._replace(label=1.0 - cells.label)
    after = feature_start(scaled(-differences, swapped), swapped, 120, 3)
    product = before.user_weights @ before.head
    np.testing.assert_allclose(after.user_weights @ after.head, product, atol=1e-9)


def test_more_base_rewards_than_directions_are_zeros() -> None:
    differences, cells, _ = world(2.0, n_users=2, answers=5)
    start = feature_start(differences / 4, cells, 2, 6)
    assert start.head.shape == (6, D)
    assert np.all(start.head[3:] == 0.0)
    assert np.all(np.isfinite(start.head))


def test_the_spread_is_the_maximum_over_a_grid() -> None:
    rng = np.random.default_rng(0)
    for slope in (-1.0, 0.2, 1.5):
        margin, others = rng.standard_normal(300), rng.standard_normal(300)
        chance = 1.0 / (1.0 + np.exp(-(margin + slope * others)))
        label = (rng.random(300) < chance).astype(np.float64)
        weight = rng.random(300)
        found = user_spread(margin, others, label, weight)
        grid = np.linspace(0.0, 3.0, 3001)
        f = margin + grid[:, None] * others
        value = -(weight * (label * np.logaddexp(0, -f) + (1 - label) * np.logaddexp(0, f))).sum(1)
        assert found == pytest.approx(grid[value.argmax()], abs=2e-3)


def test_adapted_users_are_ranked_better_than_by_the_common_reward() -> None:
    differences, cells, _ = world(3.0)
    config = FitConfig(d=2, start="features", head_l2=(1.0,), steps=100)
    model = fit_reward_model(differences, cells, 120, config, RunConfig())
    other, new, _ = world(3.0, seed=2)
    features = model.pair_features(other)
    prior = training_prior(model.pair_features(differences), cells, 120, config.user_l2)
    learns = np.arange(new.user.size) % 14 < 10
    known = Preferences(new.user[learns], new.pair[learns], new.label[learns], new.weight[learns])
    means = adapt_preferences(features, known, 120, prior).mean
    rest = ~learns
    personal = np.einsum("nd,nd->n", means[new.user[rest]], features[new.pair[rest]])
    common = features[new.pair[rest]] @ prior.mean
    is_first = new.label[rest] > 0.5
    assert np.mean((personal > 0) == is_first) > np.mean((common > 0) == is_first) + 0.03


def test_text_columns_weigh_as_much_as_all_others_together() -> None:
    rng = np.random.default_rng(0)
    differences = rng.standard_normal((200, 50)) * rng.uniform(0.1, 9.0, 50)
    cells = make_preferences([0] * 200, list(range(200)), [1.0] * 200)
    found, scale, _, _ = prepare_features(differences, cells, 1, None, "half", 4)
    square = np.mean(found**2, axis=0)
    assert square[:46].sum() == pytest.approx(1.0, rel=1e-5)
    assert square[46:].sum() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(found * scale, differences, rtol=1e-6)
    with pytest.raises(BadArray, match="expected fewer than all"):
        prepare_features(differences, cells, 1, None, "half", 50)
