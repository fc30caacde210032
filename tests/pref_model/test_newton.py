import numpy as np
import pytest
import torch

from pref_model import newton
from pref_model.adapt import UserPrior, adapt_users
from pref_model.likelihood import torch_log_likelihood


def answered(n_users=7, k=6, d=3, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return newton.Answered(
        scale * rng.standard_normal((n_users, k, d)),
        scale * rng.standard_normal((n_users, k)),
        rng.choice([0.0, 0.5, 1.0, 0.3], (n_users, k)),
        rng.choice([0.0, 1.0, 2.5], (n_users, k)),
    )


def autograd(block, z):
    """Gradient and negative Hessian of the log posterior, by torch, user by user."""
    gradients, hessians = [], []
    for phi, offset, label, weight, point in zip(*block, z, strict=True):
        parts = [torch.as_tensor(part) for part in (phi, offset, label, weight)]

        def value(at, parts=parts):
            phi, offset, label, weight = parts
            likelihood = torch_log_likelihood(offset + phi @ at, label)
            return (weight * likelihood).sum() - 0.5 * at.square().sum()

        at = torch.as_tensor(point, dtype=torch.float64).requires_grad_()
        gradients.append(torch.autograd.grad(value(at), at)[0].numpy())
        hessians.append(-torch.autograd.functional.hessian(value, at.detach()).numpy())
    return np.array(gradients), np.array(hessians)


@pytest.mark.parametrize("scale", [1.0, 40.0, 800.0])
def test_gradient_and_hessian_equal_autograd_also_at_extreme_margins(scale):
    block = answered(scale=scale)
    z = np.random.default_rng(1).standard_normal((7, 3))
    pull, bend = newton._pull_and_bend(block, newton._margin(block, z))
    gradient = np.einsum("uk,ukd->ud", pull, block.features) - z
    hessian = np.einsum("uk,ukd,uke->ude", bend, block.features, block.features) + np.eye(3)
    expected = autograd(block, z)
    np.testing.assert_allclose(gradient, expected[0], rtol=1e-10, atol=1e-10 * scale)
    # torch's second derivative keeps 16 digits of s'(f), not of its tail
    np.testing.assert_allclose(hessian, expected[1], rtol=1e-10, atol=1e-15 * scale**2 + 1e-12)


@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
def test_every_user_stops_where_autograd_sees_no_slope(scale):
    block = answered(n_users=40, scale=scale)
    z, hessian, n_steps = newton.maximize(block, np.full((40, 3), 2.0), 1e-8, 100)
    gradient, expected = autograd(block, z)
    assert np.abs(gradient).max() < 1e-7
    np.testing.assert_allclose(hessian, expected, rtol=1e-8, atol=1e-8)
    assert n_steps < 60


def test_a_user_that_needs_many_steps_holds_up_nobody_and_is_not_given_up():
    easy, hard = answered(n_users=9, scale=0.1), answered(n_users=1, scale=300.0, seed=3)
    block = newton.Answered(*(np.concatenate(both) for both in zip(easy, hard, strict=True)))
    z, hessian, _ = newton.maximize(block, np.zeros((10, 3)), 1e-10, 100)
    for part, rows in ((easy, slice(0, 9)), (hard, slice(9, 10))):
        alone, alone_hessian, _ = newton.maximize(part, np.zeros(z[rows].shape), 1e-10, 100)
        np.testing.assert_allclose(z[rows], alone, atol=1e-9)
        np.testing.assert_allclose(hessian[rows], alone_hessian, rtol=1e-6)


def test_steps_that_are_not_checked_never_lower_the_posterior():
    block = answered(n_users=200, scale=0.7, seed=5)
    z = np.random.default_rng(6).standard_normal((200, 3))
    margin = newton._margin(block, z)
    pull, bend = newton._pull_and_bend(block, margin)
    gradient = np.einsum("uk,ukd->ud", pull, block.features) - z
    hessian = np.einsum("uk,ukd,uke->ude", bend, block.features, block.features) + np.eye(3)
    step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    along = np.einsum("ukd,ud->uk", block.features, step)
    is_free = np.abs(along).max(axis=1) <= newton._SAFE_MOVE
    assert 20 < is_free.sum() < 200
    length = newton._backtrack(block, margin, along, z, step, gradient)
    np.testing.assert_array_equal(length[is_free], 1.0)


def test_no_user_and_no_step_are_answered_plainly():
    empty = newton.Answered(np.zeros((0, 4, 2)), *(np.zeros((0, 4)) for _ in range(3)))
    z, hessian, n_steps = newton.maximize(empty, np.zeros((0, 2)), 1e-8, 100)
    assert (z.shape, hessian.shape, n_steps) == ((0, 2), (0, 2, 2), 0)
    found = adapt_users(
        np.ones((2, 1, 2)), np.ones((2, 1)), np.ones((2, 1)), UserPrior.ridge(2, 1.0),
        max_iterations=0,
    )  # fmt: skip
    np.testing.assert_array_equal(found.mean, 0.0)
    assert np.all(np.linalg.eigvalsh(found.covariance) > 0.0)
