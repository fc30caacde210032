import numpy as np
import pytest
from scipy.special import expit

from pref_model import reference, svd
from pref_model.errors import BadSetting
from pref_model.likelihood import log_likelihood
from pref_model.svd import spectrum, svd_start
from pref_model.types import make_preferences, preferences_from_matrix


def span_overlap(found, true):
    """Smallest canonical correlation between the column spans."""
    a, b = np.linalg.qr(found)[0], np.linalg.qr(true)[0]
    return np.linalg.svd(a.T @ b, compute_uv=False).min()


@pytest.fixture(scope="module")
def world(planted_world):
    return planted_world(n_orders=20, scale=1.0)


def test_planted_factors_are_recovered_up_to_an_invertible_map(world):
    start = svd_start(preferences_from_matrix(world.labels), 60, 80, 3)
    assert span_overlap(start.user_weights, world.user_weights) > 0.95
    assert span_overlap(start.pair_features, world.pair_features) > 0.9


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_start_equals_its_slow_twin(planted_world, share):
    labels = planted_world(n_users=24, n_pairs=30, n_orders=4, scale=1.0).labels
    labels[np.random.default_rng(3).random(labels.shape) > share] = np.nan
    found = svd_start(preferences_from_matrix(labels), 24, 30, 3)
    weights, features, scale = reference.svd_start(labels, 3, found.n_refills)
    margin = weights @ features.T
    # With missing cells the fast routine begins to fill from an approximate SVD.
    tolerance = 1e-6 if share == 1.0 else 1e-3
    found_margin = found.user_weights @ found.pair_features.T
    np.testing.assert_allclose(found_margin, margin, atol=tolerance)
    assert found.logit_scale == pytest.approx(scale, rel=tolerance)


def test_margins_come_out_in_logits(world):
    start = svd_start(preferences_from_matrix(world.labels), 60, 80, 3)
    found = start.user_weights @ start.pair_features.T
    true = world.user_weights @ world.pair_features.T
    slope = np.sum(found * true) / np.sum(true**2)
    assert 0.7 < slope < 1.2


def test_shared_taste_is_expressed_by_a_mean_user_weight_that_is_not_zero(world):
    start = svd_start(preferences_from_matrix(world.labels), 60, 80, 3)
    common = start.user_weights.mean(axis=0) @ start.pair_features.T
    true = world.user_weights.mean(axis=0) @ world.pair_features.T
    assert np.corrcoef(common, true)[0, 1] > 0.95
    assert np.all(start.user_weights.mean(axis=0) >= 0.0)


def test_swapping_the_responses_of_every_pair_negates_its_features(world):
    here = svd_start(preferences_from_matrix(world.labels), 60, 80, 3)
    there = svd_start(preferences_from_matrix(1.0 - world.labels), 60, 80, 3)
    np.testing.assert_allclose(
        here.user_weights @ here.pair_features.T,
        -(there.user_weights @ there.pair_features.T),
        atol=1e-8,
    )


def test_order_of_cells_changes_nothing(world):
    cells = preferences_from_matrix(world.labels)
    order = np.random.default_rng(1).permutation(cells.user.size)
    shuffled = type(cells)(*(column[order] for column in cells))
    a, b = svd_start(cells, 60, 80, 3), svd_start(shuffled, 60, 80, 3)
    np.testing.assert_allclose(a.user_weights, b.user_weights, atol=1e-10)


def test_missing_cells_are_predicted_better_than_by_the_pair_mean_or_the_raw_variant(world):
    rng = np.random.default_rng(3)
    is_seen = rng.random(world.labels.shape) < 0.5
    cells = preferences_from_matrix(np.where(is_seen, world.labels, np.nan))
    hidden = ~is_seen

    def held_out(start):
        margin = start.user_weights @ start.pair_features.T
        return log_likelihood(margin, world.labels)[hidden].mean()

    ours = svd_start(cells, 60, 80, 3)
    assert ours.n_refills > 0
    mean = np.nanmean(np.where(is_seen, world.labels, np.nan), axis=0).clip(0.02, 0.98)
    by_mean = log_likelihood(np.log(mean / (1 - mean))[None, :], world.labels)[hidden].mean()
    assert held_out(ours) > by_mean + 0.02
    assert held_out(ours) > held_out(svd_start(cells, 60, 80, 3, center=False))


def test_raw_first_component_is_mostly_the_offset_of_one_half(world):
    raw = svd_start(preferences_from_matrix(world.labels), 60, 80, 1, center=False)
    rebuilt = raw.user_weights @ raw.pair_features.T
    assert abs(rebuilt.mean() - 0.5) < 0.1
    assert raw.logit_scale == 1.0


def test_sparse_and_dense_paths_agree(world, monkeypatch):
    rng = np.random.default_rng(5)
    cells = preferences_from_matrix(
        np.where(rng.random(world.labels.shape) < 0.7, world.labels, np.nan)
    )
    dense = svd_start(cells, 60, 80, 3)
    monkeypatch.setattr(svd, "DENSE_CELLS", 0)
    sparse = svd_start(cells, 60, 80, 3)
    a = dense.user_weights @ dense.pair_features.T
    b = sparse.user_weights @ sparse.pair_features.T
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


def test_unseen_users_and_components_beyond_the_rank_are_zero_not_nan():
    cells = make_preferences([0, 1], [0, 1], [1.0, 0.0])
    start = svd_start(cells, 3, 2, 5)
    assert start.user_weights.shape == (3, 5)
    assert np.all(np.isfinite(start.user_weights))
    assert np.all(start.user_weights[:, 2:] == 0.0)


def test_all_ties_give_margins_of_zero():
    start = svd_start(preferences_from_matrix(np.full((6, 5), 0.5)), 6, 5, 2)
    np.testing.assert_allclose(start.user_weights @ start.pair_features.T, 0.0, atol=1e-12)


def test_spectrum_counts_the_planted_factors_and_no_noise():
    rng = np.random.default_rng(0)
    users, pairs = rng.standard_normal((200, 3)), rng.standard_normal((150, 3))
    labels = (rng.random((200, 150)) < expit(users @ pairs.T)).astype(float)
    found = spectrum(preferences_from_matrix(labels), 200, 150)
    assert int(np.sum(found.singular_values > found.noise_edge)) == 3
    coin = (rng.random((200, 150)) < 0.5).astype(float)
    noise = spectrum(preferences_from_matrix(coin), 200, 150)
    assert np.sum(noise.singular_values > 1.02 * noise.noise_edge) == 0


def test_nothing_observed_or_no_component_is_refused():
    with pytest.raises(BadSetting, match="no observed preference"):
        svd_start(make_preferences([], [], []), 2, 2, 1)
    with pytest.raises(BadSetting, match="d=0"):
        svd_start(make_preferences([0], [0], [1.0]), 1, 1, 0)
