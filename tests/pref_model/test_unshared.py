"""Without shared pairs: what users have in common first, where they differ after it."""

from __future__ import annotations

import numpy as np
import pytest

from pref_model.adapt import adapt_preferences
from pref_model.errors import BadArray, BadSetting
from pref_model.fit import fit_reward_model, prepare_features
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.prior_scale import choose_prior_scale
from pref_model.types import Floats, Preferences, make_preferences
from pref_model.unshared import fit_unshared, unshared_prior, user_directions

D = 12
U = 120
CONFIG = FitConfig(d=3, start="features", head_l2=(1.0,), steps=60)


def world(spread: float, answers: int = 14, seed: int = 1) -> tuple[Floats, Preferences, Floats]:
    """Every user with pairs of their own; one common head, and one direction users differ along."""
    rng = np.random.default_rng(seed)
    common, direction = np.zeros(D), np.zeros(D)
    common[0], direction[1] = 2.0, 1.0
    taste = spread * rng.standard_normal(U)
    differences = rng.standard_normal((U * answers, D))
    user = np.repeat(np.arange(U), answers)
    heads = common + taste[:, None] * direction
    chance = 1.0 / (1.0 + np.exp(-np.einsum("nd,nd->n", heads[user], differences)))
    label = (rng.random(user.size) < chance).astype(np.float64)
    return differences, make_preferences(user, np.arange(user.size), label), taste


def some(cells: Preferences, keep: Floats) -> Preferences:
    return Preferences(*(column[keep.astype(bool)] for column in cells))


def fitted(differences: Floats, cells: Preferences) -> tuple[RewardModel, Preferences]:
    learns = np.arange(cells.user.size) % 14 < 10
    train, check = some(cells, learns), some(cells, ~learns)
    return fit_unshared(differences, train, U, CONFIG, RunConfig(), check), check


def test_the_first_base_reward_is_common_and_the_second_is_where_users_differ() -> None:
    differences, cells, taste = world(3.0)
    model, _ = fitted(differences, cells)
    first, second = (row / np.linalg.norm(row) for row in model.head[:2])
    assert abs(first[0]) > 0.9
    assert abs(second[1]) > 0.9
    along = model.user_weights[:, 1] * np.sign(second[1])
    assert np.corrcoef(along, taste)[0, 1] > 0.7
    assert model.config.start == "features"


def test_users_who_do_not_differ_get_next_to_no_weights_of_their_own() -> None:
    size = {}
    for spread in (0.0, 3.0):
        models = [fitted(*world(spread, seed=seed)[:2])[0] for seed in range(4)]
        size[spread] = np.mean([np.abs(one.user_weights[:, 1:]).mean() for one in models])
    assert size[0.0] < 0.3 * size[3.0]


def test_without_validation_nothing_personal_is_dropped_and_all_is_finite() -> None:
    differences, cells, _ = world(2.0)
    model = fit_unshared(differences, cells, U, CONFIG, RunConfig())
    assert np.all(np.isfinite(model.user_weights))
    assert model.user_weights.shape == (U, 3)


def test_swapping_responses_negates_margins() -> None:
    differences, cells, _ = world(2.0)
    model, _ = fitted(differences, cells)
    swapped, _ = fitted(-differences, cells._replace(label=1.0 - cells.label))
    before = model.user_weights @ model.pair_features(differences).T
    after = swapped.user_weights @ swapped.pair_features(-differences).T
    np.testing.assert_allclose(after, -before, atol=1e-3)


def test_equal_inputs_give_equal_bits() -> None:
    differences, cells, _ = world(2.0)
    one, other = fitted(differences, cells)[0], fitted(differences, cells)[0]
    np.testing.assert_array_equal(one.head, other.head)
    np.testing.assert_array_equal(one.user_weights, other.user_weights)


def test_directions_beyond_the_rank_are_zeros() -> None:
    rng = np.random.default_rng(0)
    scaled = rng.standard_normal((10, D)) / 4
    cells = make_preferences([0] * 5 + [1] * 5, list(range(10)), [1.0, 0.0] * 5)
    found = user_directions(scaled, cells, 2, np.zeros(D), 5)
    assert found.shape == (5, D)
    # Scores less their mean add up to nothing: of two users' one direction is left.
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 0, 0, 0], atol=1e-9)


def test_scores_are_the_gradient_of_each_user_s_likelihood() -> None:
    rng = np.random.default_rng(1)
    scaled, head = rng.standard_normal((6, 3)), rng.standard_normal(3)
    label = np.array([1.0, 0.0, 0.5, 0.2, 1.0, 0.0])
    cells = make_preferences([0] * 6, list(range(6)), label)

    def value(w: Floats) -> float:
        f = scaled @ w
        return float(-np.sum(label * np.logaddexp(0, -f) + (1 - label) * np.logaddexp(0, f)))

    step = 1e-6
    slope = np.array([(value(head + step * e) - value(head - step * e)) / 2e-6 for e in np.eye(3)])
    # One user with itself as everybody: what is left after the mean is nothing.
    assert np.all(user_directions(scaled, cells, 1, head, 1) == 0.0)
    # Beside a user whose answers say nothing, half of the gradient is left, along the gradient.
    silent = make_preferences([0] * 6 + [1] * 6, list(range(6)) * 2, [*label, *_sure(scaled, head)])
    found = user_directions(scaled, silent, 2, head, 1)[0]
    assert abs(found @ slope) / np.linalg.norm(slope) == pytest.approx(1.0, abs=1e-6)


def _sure(scaled: Floats, head: Floats) -> list[float]:
    """Answers exactly as expected: they pull nowhere."""
    return list(1.0 / (1.0 + np.exp(-(scaled @ head))))


def test_adapted_users_are_ranked_better_than_by_the_common_reward() -> None:
    differences, cells, _ = world(3.0)
    model, check = fitted(differences, cells)
    train = some(cells, np.arange(cells.user.size) % 14 < 10)
    features = model.pair_features(differences)
    prior = choose_prior_scale(features, train, check, U, unshared_prior(3)).prior
    other, new, _ = world(3.0, seed=2)
    theirs = model.pair_features(other)
    learns = np.arange(new.user.size) % 14 < 10
    means = adapt_preferences(theirs, some(new, learns), U, prior).mean
    rest = some(new, ~learns)
    personal = np.einsum("nd,nd->n", means[rest.user], theirs[rest.pair])
    common = theirs[rest.pair] @ prior.mean
    is_first = rest.label > 0.5
    assert np.mean((personal > 0) == is_first) > np.mean((common > 0) == is_first) + 0.02


def test_a_joint_fit_has_no_such_start() -> None:
    differences, cells, _ = world(1.0)
    with pytest.raises(BadSetting, match="fit_unshared"):
        fit_reward_model(differences, cells, U, CONFIG, RunConfig())


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
