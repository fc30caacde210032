import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from pref_model import reference
from pref_model.adapt import (
    UserPrior,
    adapt_preferences,
    adapt_users,
    covariance_at,
    training_prior,
)
from pref_model.errors import BadArray, BadSetting
from pref_model.likelihood import margin_gradient
from pref_model.types import preferences_from_matrix


def problem(n_users=6, k=9, d=4, seed=0, scale=1.5):
    rng = np.random.default_rng(seed)
    features = scale * rng.standard_normal((n_users, k, d))
    labels = rng.choice([0.0, 0.5, 1.0], (n_users, k))
    weights = rng.choice([0.0, 1.0, 2.5], (n_users, k))
    spread = rng.standard_normal((d, d))
    prior = UserPrior(rng.standard_normal(d), spread @ spread.T + 0.3 * np.eye(d))
    return features, labels, weights, prior


def stationarity(features, labels, weights, prior, mean):
    """Largest gradient of the log posterior, an oracle that needs no optimizer."""
    worst = 0.0
    for u in range(len(mean)):
        used = weights[u] > 0
        phi = features[u, used]
        pull = weights[u, used] * margin_gradient(phi @ mean[u], labels[u, used])
        gradient = phi.T @ pull - np.linalg.solve(prior.covariance, mean[u] - prior.mean)
        worst = max(worst, np.abs(gradient).max())
    return worst


def test_newton_reaches_the_optimum_of_a_general_optimizer():
    features, labels, weights, prior = problem()
    found = adapt_users(features, labels, weights, prior)
    for u in range(len(features)):
        mean, covariance = reference.adapt_user(
            features[u], labels[u], weights[u], prior.mean, prior.covariance
        )
        np.testing.assert_allclose(found.mean[u], mean, atol=1e-6)
        np.testing.assert_allclose(found.covariance[u], covariance, atol=1e-6)
    assert stationarity(features, labels, weights, prior, found.mean) < 1e-7


def test_what_is_uncertain_at_the_optimum_is_the_posterior_s_covariance():
    features, labels, weights, prior = problem()
    found = adapt_users(features, labels, weights, prior)
    for u in range(len(features)):
        own = covariance_at(features[u], weights[u], found.mean[u], prior)
        np.testing.assert_allclose(own, found.covariance[u], atol=1e-8)


def test_ridge_prior_reaches_the_optimum_of_scikit_learn():
    rng = np.random.default_rng(4)
    features = rng.standard_normal((5, 20, 3))
    labels = (rng.random((5, 20)) < 0.5).astype(float)
    found = adapt_users(features, labels, np.ones((5, 20)), UserPrior.ridge(3, 0.4))
    for u in range(5):
        fitted = LogisticRegression(C=1 / 0.4, fit_intercept=False, tol=1e-12, max_iter=5000)
        fitted.fit(features[u], labels[u])
        np.testing.assert_allclose(found.mean[u], fitted.coef_[0], atol=1e-6)


def test_no_answer_returns_the_prior():
    _, _, _, prior = problem()
    for k in (0, 3):
        found = adapt_users(np.ones((2, k, 4)), np.full((2, k), np.nan), np.zeros((2, k)), prior)
        np.testing.assert_allclose(found.mean, np.tile(prior.mean, (2, 1)), atol=1e-12)
        np.testing.assert_allclose(found.covariance[1], prior.covariance, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e5])
@pytest.mark.parametrize("beta", [1e-4, 1.0])
def test_separable_answers_have_a_finite_optimum(scale, beta):
    rng = np.random.default_rng(1)
    features = scale * rng.standard_normal((4, 10, 3))
    truth = rng.standard_normal((4, 3, 1))
    labels = (np.matmul(features, truth)[:, :, 0] > 0).astype(float)
    prior = UserPrior.ridge(3, beta)
    found = adapt_users(features, labels, np.ones((4, 10)), prior)
    assert np.all(np.isfinite(found.mean))
    assert found.n_iterations < 100
    if scale > 1.0:
        margin = np.matmul(features, found.mean[:, :, None])[:, :, 0]
        assert np.all((margin > 0) == (labels == 1.0))
    assert np.all(np.linalg.eigvalsh(found.covariance) > 0)


def test_all_ties_pull_the_margins_to_zero():
    rng = np.random.default_rng(2)
    features = rng.standard_normal((1, 200, 3))
    prior = UserPrior(np.array([2.0, -1.0, 0.5]), np.eye(3))
    found = adapt_users(features, np.full((1, 200), 0.5), np.ones((1, 200)), prior)
    assert np.linalg.norm(found.mean) < 0.2


def test_contradictory_answers_equal_a_tie_of_weight_two():
    rng = np.random.default_rng(3)
    phi = rng.standard_normal((1, 1, 3))
    prior = UserPrior(np.array([1.0, 0.0, -1.0]), np.eye(3))
    both = adapt_users(np.repeat(phi, 2, axis=1), np.array([[0.0, 1.0]]), np.ones((1, 2)), prior)
    tie = adapt_users(phi, np.array([[0.5]]), np.array([[2.0]]), prior)
    np.testing.assert_allclose(both.mean, tie.mean, atol=1e-9)
    np.testing.assert_allclose(both.covariance, tie.covariance, atol=1e-9)


def test_a_repeated_answer_equals_its_weight():
    features, labels, _, prior = problem(k=4)
    twice = adapt_users(
        np.concatenate([features, features], axis=1),
        np.concatenate([labels, labels], axis=1),
        np.ones((6, 8)),
        prior,
    )
    heavy = adapt_users(features, labels, np.full((6, 4), 2.0), prior)
    np.testing.assert_allclose(twice.mean, heavy.mean, atol=1e-8)


def test_order_of_answers_company_of_users_and_first_guess_change_nothing():
    features, labels, weights, prior = problem()
    whole = adapt_users(features, labels, weights, prior)
    order = np.random.default_rng(0).permutation(features.shape[1])
    shuffled = adapt_users(features[:, order], labels[:, order], weights[:, order], prior)
    np.testing.assert_allclose(shuffled.mean, whole.mean, atol=1e-8)
    alone = adapt_users(features[2:3], labels[2:3], weights[2:3], prior)
    np.testing.assert_allclose(alone.mean[0], whole.mean[2], atol=1e-8)
    warm = adapt_users(features, labels, weights, prior, start=whole.mean + 3.0)
    np.testing.assert_allclose(warm.mean, whole.mean, atol=1e-7)


def test_swapping_responses_changes_no_posterior():
    features, labels, weights, prior = problem()
    here = adapt_users(features, labels, weights, prior)
    there = adapt_users(-features, 1.0 - labels, weights, prior)
    np.testing.assert_allclose(here.mean, there.mean, atol=1e-8)


def test_changing_the_basis_changes_no_margin():
    features, labels, weights, prior = problem()
    basis = np.random.default_rng(9).standard_normal((4, 4)) + 2 * np.eye(4)
    inverse = np.linalg.inv(basis)
    moved = UserPrior(inverse @ prior.mean, inverse @ prior.covariance @ inverse.T)
    here = adapt_users(features, labels, weights, prior)
    there = adapt_users(features @ basis, labels, weights, moved)
    np.testing.assert_allclose(
        np.matmul(features, here.mean[:, :, None]),
        np.matmul(features @ basis, there.mean[:, :, None]),
        atol=1e-6,
    )


def test_columns_and_padded_arrays_give_the_same_users():
    rng = np.random.default_rng(6)
    phi = rng.standard_normal((7, 3))
    labels = rng.choice([0.0, 1.0, np.nan], (4, 7))
    prior = UserPrior.ridge(3, 1.0)
    columns = adapt_preferences(phi, preferences_from_matrix(labels), 4, prior)
    padded = adapt_users(np.tile(phi, (4, 1, 1)), labels, (~np.isnan(labels)).astype(float), prior)
    np.testing.assert_allclose(columns.mean, padded.mean, atol=1e-8)


def test_prior_shrinks_as_ledoit_and_wolf_and_adds_the_users_own_uncertainty():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 5)) * [3, 1, 1, 0.5, 0.1] + 2.0
    prior = UserPrior.from_users(weights)
    np.testing.assert_allclose(prior.covariance, ledoit_wolf(weights)[0], atol=1e-5)
    np.testing.assert_allclose(prior.mean, weights.mean(axis=0))
    own = np.tile(0.3 * np.eye(5), (40, 1, 1))
    wider = UserPrior.from_users(weights, own)
    np.testing.assert_allclose(wider.covariance - prior.covariance, 0.3 * np.eye(5), atol=1e-5)


def test_training_prior_covers_the_planted_users():
    rng = np.random.default_rng(0)
    true = rng.multivariate_normal([1.0, -0.5], [[1.0, 0.4], [0.4, 0.5]], 400)
    phi = rng.standard_normal((60, 2))
    labels = (rng.random((400, 60)) < 1 / (1 + np.exp(-true @ phi.T))).astype(float)
    prior = training_prior(phi, preferences_from_matrix(labels), 400, 1.0)
    np.testing.assert_allclose(prior.mean, [1.0, -0.5], atol=0.2)
    np.testing.assert_allclose(prior.covariance, [[1.0, 0.4], [0.4, 0.5]], atol=0.25)


def test_identical_training_users_still_make_a_usable_prior():
    prior = UserPrior.from_users(np.ones((5, 2)))
    assert np.all(np.linalg.eigvalsh(prior.covariance) > 0)


def test_bad_requests_are_told_in_one_line():
    features, labels, weights, prior = problem()
    with pytest.raises(BadSetting, match="beta=0"):
        UserPrior.ridge(2, 0.0)
    with pytest.raises(BadArray, match="at least 2"):
        UserPrior.from_users(np.ones((1, 2)))
    with pytest.raises(BadArray, match="same model"):
        adapt_users(features[:, :, :2], labels, weights, prior)
    with pytest.raises(BadArray, match="outside"):
        adapt_users(features, labels + 2.0, weights, prior)
    with pytest.raises(BadArray, match="negative"):
        adapt_users(features, labels, weights - 9.0, prior)
