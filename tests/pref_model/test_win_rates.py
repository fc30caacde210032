from itertools import pairwise

import numpy as np
import pytest

from pref_model.bestofn import best_of_n_bound
from pref_model.errors import BadArray, BadSetting
from pref_model.metrics import cluster_bootstrap_mean
from pref_model.types import Interval
from pref_model.win_rates import nested_bootstrap_mean, users_for_half_width


def slow_nested(user, value, draws, seed):
    """The same resampling as a loop with its own generator."""
    rng = np.random.default_rng(seed)
    groups = [value[user == one] for one in np.unique(user)]
    means = []
    for _ in range(draws):
        chosen = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        means.append(np.mean([rng.choice(one, len(one)).mean() for one in chosen]))
    return np.quantile(means, [0.025, 0.975])


def world(rng, n_users=30, most=12, between=1.0):
    """Wins of users who differ, with different numbers of prompts."""
    count = rng.integers(1, most + 1, n_users)
    user = np.repeat(np.arange(n_users), count)
    chance = 1 / (1 + np.exp(-0.5 - between * rng.standard_normal(n_users)))
    return user, rng.binomial(2, chance[user]) / 2.0, chance.mean()


def test_the_fast_resampling_is_the_slow_one():
    user, value, _ = world(np.random.default_rng(0))
    fast = nested_bootstrap_mean(user, value, draws=8000)
    slow = slow_nested(user, value, 1200, 1)
    np.testing.assert_allclose([fast.low, fast.high], slow, atol=0.02)
    means = [value[user == one].mean() for one in np.unique(user)]
    assert fast.mean == pytest.approx(np.mean(means))
    assert fast.n == 30


def test_with_equal_values_within_users_it_is_the_bootstrap_over_users():
    rng = np.random.default_rng(2)
    by_user = rng.integers(0, 3, 25) / 2
    user = np.repeat(np.arange(25), 7)
    nested = nested_bootstrap_mean(user, by_user[user], draws=6000)
    plain = cluster_bootstrap_mean(by_user, draws=6000)
    np.testing.assert_allclose(nested[:3], plain[:3], atol=0.02)


def test_prompts_within_users_widen_the_interval_and_never_narrow_it():
    user, value, _ = world(np.random.default_rng(3), most=6)
    means = np.array([value[user == one].mean() for one in np.unique(user)])
    nested = nested_bootstrap_mean(user, value, draws=6000)
    plain = cluster_bootstrap_mean(means, draws=6000)
    assert nested.high - nested.low > plain.high - plain.low


def test_neither_the_order_of_rows_nor_unparsed_cells_change_anything():
    rng = np.random.default_rng(4)
    user, value, _ = world(rng)
    found = nested_bootstrap_mean(user, value)
    order = rng.permutation(len(user))
    assert nested_bootstrap_mean(user[order], value[order]) == found
    more = np.append(value, [np.nan, np.nan])
    assert nested_bootstrap_mean(np.append(user, [0, 99]), more) == found


def test_intervals_hold_the_truth_at_least_as_often_as_they_say():
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        user, value, _ = world(rng, n_users=40, most=5)
        found = nested_bootstrap_mean(user, value, draws=1000, seed=trial)
        # The population mean of s(0.5 + Z), by quadrature.
        held += found.low <= 0.6060 <= found.high
    assert held >= 184


def test_of_a_method_against_itself_nothing_is_left():
    user = np.repeat(np.arange(9), 4)
    found = nested_bootstrap_mean(user, np.zeros(36))
    assert found[:3] == (0.0, 0.0, 0.0)


def test_nobody_and_nonsense_are_told():
    nobody = nested_bootstrap_mean(np.zeros(2, np.int64), np.full(2, np.nan))
    assert nobody.n == 0
    assert np.isnan(nobody.mean)
    with pytest.raises(BadArray):
        nested_bootstrap_mean(np.zeros(2, np.int64), np.zeros(3))
    with pytest.raises(BadSetting):
        nested_bootstrap_mean(np.zeros(2, np.int64), np.zeros(2), level=1.0)


def test_the_power_note_is_what_more_users_then_give():
    rng = np.random.default_rng(6)
    user, value, _ = world(rng, n_users=60)
    needed = users_for_half_width(nested_bootstrap_mean(user, value), 0.05)
    assert needed is not None
    user, value, _ = world(rng, n_users=needed)
    found = nested_bootstrap_mean(user, value)
    assert (found.high - found.low) / 2 == pytest.approx(0.05, rel=0.25)


def test_the_power_note_says_nothing_where_nothing_is_known():
    assert users_for_half_width(Interval(1.0, 1.0, 1.0, 20), 0.05) is None
    assert users_for_half_width(Interval(0.5, 0.2, 0.8, 1), 0.05) is None
    with pytest.raises(BadSetting):
        users_for_half_width(Interval(0.5, 0.4, 0.6, 9), 0.0)


@pytest.mark.parametrize("n", [1, 2, 8, 16])
@pytest.mark.parametrize("noise", [0.0, 0.3, 2.0])
def test_no_choice_among_like_responses_wins_more_often_than_the_bound(n, noise):
    rng = np.random.default_rng([7, n])
    utility = rng.standard_normal((40_000, n + 1)) + rng.standard_normal((40_000, 1))
    gap = utility[:, 1:].max(axis=1) - utility[:, 0]
    if noise:
        # Both orders of a judge that leans to the first position.
        wins = (1 / (1 + np.exp(-gap / noise - 0.7)) + 1 / (1 + np.exp(-gap / noise + 0.7))) / 2
    else:
        wins = (gap > 0) * 1.0
    slack = 4 * 0.5 / np.sqrt(len(gap))
    assert wins.mean() <= best_of_n_bound(n) + slack
    if not noise:
        assert wins.mean() == pytest.approx(best_of_n_bound(n), abs=slack)


def test_the_bound_rises_to_one_and_needs_a_candidate():
    bounds = [best_of_n_bound(n) for n in (1, 2, 4, 1000)]
    assert bounds[0] == 0.5
    assert all(a < b < 1 for a, b in pairwise(bounds))
    with pytest.raises(BadSetting):
        best_of_n_bound(0)
