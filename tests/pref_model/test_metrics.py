import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pref_model import reference
from pref_model.errors import BadArray, BadSetting
from pref_model.metrics import (
    auc_per_user,
    cluster_bootstrap_mean,
    cluster_bootstrap_pooled,
    mean_by_user,
    pair_accuracy,
)


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_auc_equals_scikit_learn_and_the_count_over_couples(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (4, 12)).astype(float)  # many equal scores
    labels = rng.choice([0.0, 0.5, 1.0, np.nan], (4, 12))
    found = auc_per_user(scores, labels)
    for user in range(4):
        used = ~np.isnan(labels[user]) & (labels[user] != 0.5)
        expected = reference.auc(scores[user, used], labels[user, used])
        np.testing.assert_allclose(found[user], expected, atol=1e-12)
        if not np.isnan(expected):
            oracle = roc_auc_score(labels[user, used] > 0.5, scores[user, used])
            assert found[user] == pytest.approx(oracle, abs=1e-12)


def test_auc_is_half_for_equal_scores_and_nan_for_one_class():
    labels = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5], [np.nan] * 3])
    found = auc_per_user(np.zeros((3, 3)), labels)
    assert found[0] == 0.5
    assert np.isnan(found[1:]).all()


def test_negating_scores_mirrors_auc_and_monotone_maps_keep_it():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((5, 30)), rng.choice([0.0, 1.0], (5, 30))
    found = auc_per_user(scores, labels)
    np.testing.assert_allclose(auc_per_user(-scores, labels), 1.0 - found)
    np.testing.assert_allclose(auc_per_user(np.exp(3.0 * scores), labels), found)
    np.testing.assert_allclose(auc_per_user(-scores, 1.0 - labels), found)


def test_a_nan_score_is_refused_only_where_it_would_be_used():
    scores, labels = np.array([[np.nan, 1.0, 2.0]]), np.array([[np.nan, 0.0, 1.0]])
    assert auc_per_user(scores, labels)[0] == 1.0
    with pytest.raises(BadArray, match="nan score"):
        auc_per_user(scores, np.array([[1.0, 0.0, 1.0]]))


def test_every_user_has_the_same_say_in_a_win_rate():
    user = np.array([0, 0, 0, 1, 2])
    value = np.array([1.0, 0.5, 0.0, 1.0, np.nan])
    np.testing.assert_array_equal(mean_by_user(user, value, 4), [0.5, 1.0, np.nan, np.nan])


def test_interval_does_not_depend_on_the_order_of_users_and_repeats_with_its_seed():
    values = np.random.default_rng(0).random(40)
    here = cluster_bootstrap_mean(values, seed=3)
    assert here == cluster_bootstrap_mean(values[::-1], seed=3)
    assert here.low < here.mean < here.high
    assert here.n == 40


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        found = cluster_bootstrap_mean(rng.normal(0.3, 1.0, 60), draws=400, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_no_users_and_one_user_have_intervals_that_say_so():
    empty = cluster_bootstrap_mean(np.array([np.nan]))
    assert empty.n == 0
    assert np.isnan(empty.mean)
    one = cluster_bootstrap_mean(np.array([0.7, np.nan]))
    assert (one.mean, one.low, one.high, one.n) == pytest.approx((0.7, 0.7, 0.7, 1))


def test_an_impossible_level_is_refused():
    with pytest.raises(BadSetting, match="level=95"):
        cluster_bootstrap_mean(np.ones(3), level=95.0)


def test_a_zero_margin_is_half_right_and_a_tie_is_no_pair() -> None:
    found = pair_accuracy(np.array([2.0, -1.0, 0.0, 3.0]), np.array([1.0, 0.6, 0.0, 0.5]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.5, np.nan])
    with pytest.raises(BadArray):
        pair_accuracy(np.array([np.nan]), np.array([1.0]))


def test_pooled_bootstrap_with_one_observation_a_user_is_the_bootstrap_of_means() -> None:
    values = np.random.default_rng(3).random(40)
    pooled = cluster_bootstrap_pooled(np.arange(40), values, draws=1000, seed=5)
    assert pooled == cluster_bootstrap_mean(values, draws=1000, seed=5)


def test_copies_of_a_user_s_pairs_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(4)
    users = np.arange(60)
    values = (rng.random(60) < 0.6).astype(np.float64)
    once = cluster_bootstrap_pooled(users, values, draws=2000)
    thrice = cluster_bootstrap_pooled(np.tile(users, 3), np.tile(values, 3), draws=2000)
    assert (thrice.mean, thrice.n) == (once.mean, once.n)
    np.testing.assert_allclose([thrice.low, thrice.high], [once.low, once.high])


def test_pooled_bootstrap_covers_the_truth_where_users_differ() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(120):
        chance = rng.beta(6, 4, 50)
        user = np.repeat(np.arange(50), 6)
        values = (rng.random(300) < chance[user]).astype(np.float64)
        found = cluster_bootstrap_pooled(user, values, draws=400, seed=trial)
        hits += found.low <= 0.6 <= found.high
    assert hits >= 106


def test_pooled_bootstrap_of_nothing_is_nan() -> None:
    found = cluster_bootstrap_pooled(np.array([0, 1]), np.array([np.nan, np.nan]))
    assert found.n == 0
    assert np.isnan(found.mean)
