import numpy as np
import pytest

from pref_model.errors import BadSetting
from pref_model.rank import rank_curve
from pref_model.types import make_preferences, preferences_from_matrix


@pytest.fixture(scope="module")
def world(planted_world):
    return planted_world(n_users=80, n_pairs=90, d=3, n_orders=6, scale=2.0)


def test_held_out_likelihood_finds_the_planted_number_of_rewards(world):
    found = rank_curve(preferences_from_matrix(world.labels), 80, 90, (1, 2, 3, 5, 8), folds=3)
    assert found.best == 3
    assert found.chosen == 3
    assert found.standard_error[2] == 0.0
    assert np.all(found.mean_log_likelihood > -np.log(2.0))


def test_coin_tosses_support_no_more_than_one_reward():
    labels = np.random.default_rng(0).integers(0, 2, (40, 50)).astype(float)
    found = rank_curve(preferences_from_matrix(labels), 40, 50, (1, 3, 6), folds=3)
    assert found.chosen == 1


def test_order_of_cells_changes_nothing_and_repeated_cells_stay_together(world):
    cells = preferences_from_matrix(world.labels)
    order = np.random.default_rng(1).permutation(cells.user.size)
    shuffled = type(cells)(*(column[order] for column in cells))
    a, b = (rank_curve(one, 80, 90, (2,), folds=2) for one in (cells, shuffled))
    np.testing.assert_allclose(a.mean_log_likelihood, b.mean_log_likelihood, atol=1e-10)
    doubled = type(cells)(*(np.concatenate([column, column]) for column in cells))
    c = rank_curve(doubled, 80, 90, (2,), folds=2)
    np.testing.assert_allclose(c.mean_log_likelihood, a.mean_log_likelihood, atol=0.01)


def test_impossible_requests_are_told_in_one_line(world):
    cells = preferences_from_matrix(world.labels)
    with pytest.raises(BadSetting, match="folds=1"):
        rank_curve(cells, 80, 90, folds=1)
    with pytest.raises(BadSetting, match="expected d >= 1"):
        rank_curve(cells, 80, 90, (0, 2))
    with pytest.raises(BadSetting, match="1 cells"):
        rank_curve(make_preferences([0], [0], [1.0]), 1, 1)


def test_few_cells_a_user_do_not_hide_the_planted_number_of_rewards():
    rng = np.random.default_rng(3)
    margins = 1.5 * rng.standard_normal((300, 3)) @ rng.standard_normal((3, 400))
    labels = (rng.random(margins.shape) < 1.0 / (1.0 + np.exp(-margins))).astype(float)
    labels[rng.random(margins.shape) > 0.1] = np.nan
    found = rank_curve(preferences_from_matrix(labels), 300, 400, (1, 2, 3, 6), folds=3)
    assert found.best == 3
    # No number of rewards does worse than knowing nothing.
    assert np.all(found.mean_log_likelihood > -np.log(2.0))
