from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from pref_model import reference
from pref_model.adapt import UserPrior, adapt_users
from pref_model.basis import (
    align,
    canonical_change,
    canonicalize,
    explained_variance,
    ranking_change,
)
from pref_model.errors import BadArray, BadSetting
from pref_model.fit import fit_reward_model
from pref_model.model import FitConfig, RewardModel, RunConfig


def model_of(users, head):
    width = head.shape[1]
    return RewardModel(
        head=head.astype(np.float32),
        feature_mean=np.zeros(width, np.float32),
        feature_scale=np.ones(width, np.float32),
        user_weights=users.astype(np.float32),
        config=FitConfig(d=len(head)),
        head_l2=1.0,
    )


def planted(seed=0, d=4, width=12, n_users=30, n_pairs=50):
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((n_users, d)) * np.linspace(2, 0.5, d) + 0.7
    return model_of(users, rng.standard_normal((d, width))), rng.standard_normal((n_pairs, width))


def margins(model, differences):
    return model.user_weights.astype(float) @ model.pair_features(differences).T


def reparametrized(model, seed=1):
    rng = np.random.default_rng(seed)
    change = rng.standard_normal((model.d, model.d)) + 2 * np.eye(model.d)
    return model_of(model.user_weights @ np.linalg.inv(change), change @ model.head)


def test_the_canonical_basis_changes_no_margin_and_is_whitened_and_ordered():
    model, differences = planted()
    found = canonicalize(model, differences)
    np.testing.assert_allclose(
        margins(found, differences), margins(model, differences), rtol=1e-5, atol=1e-4
    )
    users, features = found.user_weights.astype(float), found.pair_features(differences)
    np.testing.assert_allclose(users.T @ users / len(users), np.eye(4), atol=1e-5)
    gram = features.T @ features
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4 * gram.max())
    assert np.all(np.diff(np.diag(gram)) < 0.0)
    assert np.all(users.mean(axis=0) > 0.0)
    explained = explained_variance(users, features)
    assert explained.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.all(np.diff(explained) < 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_canonicalizing_is_idempotent_and_forgets_any_invertible_reparametrization(seed):
    model, differences = planted(seed)
    once = canonicalize(model, differences)
    for other in (once, reparametrized(model, seed + 9)):
        again = canonicalize(other, differences)
        np.testing.assert_allclose(again.user_weights, once.user_weights, atol=2e-4)
        np.testing.assert_allclose(again.head, once.head, atol=2e-3)


def test_the_canonical_factors_are_those_of_the_svd_of_all_margins():
    rng = np.random.default_rng(4)
    for scale in (1e-4, 1.0, 1e3):
        weights, features = (
            scale * (rng.standard_normal((25, 3)) + 1.0),
            rng.standard_normal((9, 3)),
        )
        change = canonical_change(weights, features)
        expected = reference.canonical_factors(weights, features)
        np.testing.assert_allclose(change.weights(weights), expected[0], atol=1e-9)
        np.testing.assert_allclose(change.features(features), expected[1], atol=1e-9 * scale)


def test_users_that_all_agree_keep_one_base_reward_and_their_margins():
    model, differences = planted()
    shared = replace(model, user_weights=np.tile(model.user_weights[:1], (30, 1)))
    found = canonicalize(shared, differences)
    np.testing.assert_allclose(found.user_weights[:, 0], 1.0, atol=1e-5)
    np.testing.assert_array_equal(found.user_weights[:, 1:], 0.0)
    np.testing.assert_allclose(
        margins(found, differences), margins(shared, differences), rtol=1e-5, atol=1e-4
    )


def test_users_adapted_in_either_basis_have_the_same_margins():
    model, differences = planted()
    features = model.pair_features(differences)
    change = canonical_change(model.user_weights, features)
    labels = np.random.default_rng(0).choice([0.0, 1.0], (3, 10))
    prior = UserPrior(np.ones(4), np.eye(4))

    def adapted(phi, prior):
        asked = np.tile(phi[:10], (3, 1, 1))
        return adapt_users(asked, labels, np.ones((3, 10)), prior).mean

    old = adapted(features, prior)
    new = adapted(change.features(features), change.prior(prior))
    np.testing.assert_allclose(new, change.weights(old), atol=1e-6)


@pytest.mark.parametrize("method", ["least_squares", "procrustes"])
def test_a_rotated_retrain_is_mapped_back_and_stored_weights_stay_usable(method):
    model, differences = planted()
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    retrain = model_of(model.user_weights @ rotation.T, rotation @ model.head)
    stored = np.random.default_rng(4).standard_normal((20, 4))
    found = align(
        retrain,
        model.pair_features(differences),
        retrain.pair_features(differences),
        stored,
        method=method,
    )
    assert found.error < 1e-5
    assert found.ranking.users_share == 0.0
    assert found.ranking.order_tau == pytest.approx(1.0)
    np.testing.assert_allclose(found.model.user_weights, model.user_weights, atol=1e-4)
    expected = orthogonal_procrustes(
        retrain.pair_features(differences), model.pair_features(differences)
    )[0].T
    np.testing.assert_allclose(found.change.to_features, expected, atol=1e-5)


def test_least_squares_keeps_the_stored_users_margins_as_well_as_any_map_can():
    rng = np.random.default_rng(6)
    model, other = planted(2)[0], planted(3)[0]
    old, new = rng.standard_normal((40, 4)), rng.standard_normal((40, 4))
    found = align(other, old, new, model.user_weights.astype(float))
    fitted = np.arange(40) % 5 != 4
    expected = reference.aligned_map(old[fitted], new[fitted], model.user_weights.astype(float))
    np.testing.assert_allclose(found.change.to_features, expected, atol=1e-6)


def test_least_squares_undoes_any_reparametrization_where_procrustes_cannot():
    model, differences = planted()
    retrain = reparametrized(model)
    old, new = model.pair_features(differences), retrain.pair_features(differences)
    stored = np.random.default_rng(4).standard_normal((20, 4))
    assert align(retrain, old, new, stored).error < 1e-4
    assert align(retrain, old, new, stored, method="procrustes").error > 0.1


def test_stored_weights_survive_a_real_retrain_on_other_users(planted_world, cells):
    world = planted_world(n_users=160, n_pairs=120, d=3)
    config, fits = FitConfig(d=3, steps=150, head_l2=(1.0,)), []
    for half, seed in ((range(80), 0), (range(80, 160), 5)):
        train = cells(world.labels, list(half), range(120))
        fits.append(fit_reward_model(world.differences, train, 80, config, RunConfig(seed=seed)))
    old, new = fits
    before = old.pair_features(world.differences)
    raw = new.pair_features(world.differences)
    stored = old.user_weights.astype(float)
    found = align(new, before, raw, stored)
    unaligned = ranking_change(stored @ before.T, stored @ raw.T)
    aligned = ranking_change(
        stored @ before.T, stored @ found.model.pair_features(world.differences).T
    )
    assert found.error < 0.35
    assert aligned.pairs_share < 0.12
    assert aligned.pairs_share < 0.5 * unaligned.pairs_share
    own = margins(new, world.differences)
    np.testing.assert_allclose(margins(found.model, world.differences), own, atol=1e-3)


def test_a_ranking_changes_by_user_pair_and_order():
    before = np.array([[1.0, 2.0, -1.0], [1.0, 2.0, 3.0]])
    after = np.array([[1.0, 2.0, 0.5], [2.0, 4.0, 6.0]])
    found = ranking_change(before, after)
    assert found.users_share == 0.5
    assert found.pairs_share == pytest.approx(1 / 6)
    assert found.order_tau == pytest.approx(1.0)


def test_bad_requests_are_told_in_one_line():
    model, differences = planted()
    features, stored = model.pair_features(differences), np.ones((2, 4))
    with pytest.raises(BadArray, match="zero user weights"):
        canonical_change(np.zeros((3, 4)), features)
    with pytest.raises(BadSetting, match="same d"):
        align(model, features, features[:, :3], stored)
    with pytest.raises(BadArray, match="same pairs"):
        align(model, features, features[:9], stored)
    with pytest.raises(BadArray, match="shared pairs"):
        align(model, features[:4], features[:4], stored)
    with pytest.raises(BadArray, match="without one"):
        align(model, features, features * [1.0, 1.0, 1.0, 0.0], stored)
