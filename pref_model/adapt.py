"""New users: MAP weights and their Laplace covariance from a few answers (eq 6, eq 8).

The base rewards are fixed here; nothing is trained by gradient and no text is read.
"""

from typing import NamedTuple

import numpy as np

from pref_model.errors import BadArray, BadSetting
from pref_model.likelihood import curvature, log_likelihood, margin_gradient
from pref_model.types import Floats, Preferences

# Users per block: keeps the working set of a block within the processor's cache.
_BLOCK = 2048
# The gradient is compared with the rounding of the sums it is made of.
_ROUNDING = 64.0 * np.finfo(float).eps


class Posterior(NamedTuple):
    """Gaussian approximation of each user's weights.

    Attributes:
        mean: (U, d) float64, the MAP weights.
        covariance: (U, d, d) float64, inverse Hessian there (eq 8 with the prior's precision).
        n_iterations: Newton steps of the slowest user.
    """

    mean: Floats
    covariance: Floats
    n_iterations: int


class UserPrior(NamedTuple):
    """Gaussian prior N(mean, covariance) over user weights, in the basis of one reward model.

    Attributes:
        mean: (d,) float64.
        covariance: (d, d) float64, symmetric positive definite.
    """

    mean: Floats
    covariance: Floats

    @classmethod
    def ridge(cls, d: int, beta: float) -> "UserPrior":
        """The paper's prior (eq 6): mean zero, covariance I / beta.

        Raises:
            BadSetting: beta is not positive: separable answers would have no finite optimum.
        """
        if not beta > 0.0:
            raise BadSetting(f"prior: found beta={beta}, expected a value > 0 (paper: 0.02)")
        return cls(np.zeros(d), np.eye(d) / beta)

    @classmethod
    def from_users(
        cls,
        user_weights: Floats,
        user_covariances: Floats | None = None,
        shrinkage: float | None = None,
    ) -> "UserPrior":
        """Mean and shrunk covariance of the training users (departure from eq 6, METHOD 5).

        covariance = (1 - a) C + a (tr C / d) I with C = cov of the weights, plus the users'
        average own uncertainty where it is given (law of total variance: MAP weights are spread
        less than true ones).

        Args:
            user_weights: (U, d) weights of the training users.
            user_covariances: (U, d, d) Laplace covariances of those weights, or None.
            shrinkage: a in [0, 1]; None takes Ledoit and Wolf's (2004) estimate.

        Raises:
            BadArray: Fewer than two users.

        Oracle: `sklearn.covariance.ledoit_wolf`.
        """
        weights = np.asarray(user_weights, dtype=np.float64)
        if weights.ndim != 2 or len(weights) < 2:
            raise BadArray(
                f"prior: found user weights of shape {weights.shape}, expected (U, d) of at "
                "least 2 training users; use UserPrior.ridge instead"
            )
        n_users, d = weights.shape
        centered = weights - weights.mean(axis=0)
        empirical = centered.T @ centered / n_users
        target = float(np.trace(empirical)) / d
        if shrinkage is None:
            shrinkage = _ledoit_wolf(centered, empirical, target)
        covariance = (1.0 - shrinkage) * empirical + shrinkage * target * np.eye(d)
        if user_covariances is not None:
            covariance = covariance + np.mean(user_covariances, axis=0)
        # Users without any spread would make a prior no answer could move.
        floor = max(1e-6 * float(np.trace(covariance)) / d, 1e-12)
        return cls(weights.mean(axis=0), covariance + floor * np.eye(d))


def training_prior(
    pair_features: Floats, preferences: Preferences, n_users: int, beta: float
) -> UserPrior:
    """The default prior of new users: the training users' weights with their own uncertainty.

    Each training user is refitted on the training pairs with the ridge prior of the fit (eq 6),
    which gives the Laplace covariances that `UserPrior.from_users` adds.

    Args:
        pair_features: (M, d) features of every pair.
        preferences: Training cells.
        n_users: U training users.
        beta: The fit's `user_l2`, > 0.
    """
    own = adapt_preferences(
        pair_features, preferences, n_users, UserPrior.ridge(pair_features.shape[1], beta)
    )
    return UserPrior.from_users(own.mean, own.covariance)


def adapt_users(
    features: Floats,
    labels: Floats,
    weights: Floats,
    prior: UserPrior,
    *,
    start: Floats | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 100,
) -> Posterior:
    """Maximize the posterior of every user's weights at once, by safeguarded Newton steps.

    max over lambda of sum_k w_k [A_k log s(f_k) + (1 - A_k) log(1 - s(f_k))]
    - (lambda - m)^T C^-1 (lambda - m) / 2 with f_k = lambda . phi_k: eq 6 with a Gaussian prior
    (eq 6 itself is `UserPrior.ridge`). The problem is strictly concave, so separable,
    all-tie, contradictory, repeated and missing answers all have one finite optimum; with no
    answer it is the prior. Work is done in coordinates in which the prior is N(0, I), so an
    ill-conditioned prior costs no accuracy.

    Args:
        features: (U, K, d) pair features, first - second, logits per unit weight.
        labels: (U, K) in [0, 1]; ignored (nan allowed) where the weight is 0.
        weights: (U, K) >= 0; 0 marks an absent answer.
        prior: Prior in the same basis.
        start: (U, d) first guess; the prior mean when None. Changes time, not the result.
        tolerance: Largest gradient left, in prior-whitened units; the error of the whitened
            weights is below it, since the Hessian is at least the identity.
        max_iterations: Newton steps at most.

    Returns:
        `Posterior` with float64 mean (U, d) and covariance (U, d, d).

    Raises:
        BadArray: Shapes disagree, or a present answer is not a probability.

    Numerics: a step is halved until it increases the posterior by a ten-thousandth of what its
    slope promises. Oracle: `reference.adapt_user`, scikit-learn's LogisticRegression.
    """
    _check(features, labels, weights, prior)
    n_users, _, d = features.shape
    root = np.linalg.cholesky(prior.covariance)
    mean, covariance = np.empty((n_users, d)), np.empty((n_users, d, d))
    slowest = 0
    for low in range(0, n_users, _BLOCK):
        block = slice(low, low + _BLOCK)
        raw = np.asarray(features[block], dtype=np.float64)
        present = weights[block] > 0.0
        guess = np.zeros((len(raw), d))
        if start is not None:
            guess = np.linalg.solve(root, (start[block] - prior.mean).T).T
        whitened, hessian, n_iterations = _newton(
            np.where(present[:, :, None], raw @ root, 0.0),
            np.where(present, raw @ prior.mean, 0.0),
            np.where(present, labels[block], 0.5),
            np.where(present, weights[block], 0.0).astype(np.float64),
            guess,
            tolerance,
            max_iterations,
        )
        slowest = max(slowest, n_iterations)
        mean[block] = prior.mean + whitened @ root.T
        inverse_root = np.linalg.inv(np.linalg.cholesky(hessian)) @ root.T
        covariance[block] = inverse_root.transpose(0, 2, 1) @ inverse_root
    return Posterior(mean, covariance, slowest)


def adapt_preferences(
    pair_features: Floats, preferences: Preferences, n_users: int, prior: UserPrior
) -> Posterior:
    """Run `adapt_users` on cells given as columns, padding users to the longest one.

    Args:
        pair_features: (M, d) features of every pair.
        preferences: Observed cells; their weights count.
        n_users: U; users without a cell get the prior.
        prior: Prior in the same basis.
    """
    order = np.argsort(preferences.user, kind="stable")
    user = preferences.user[order]
    counts = np.bincount(user, minlength=n_users)
    slot = np.arange(user.size) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max(initial=0))
    features = np.zeros((n_users, width, pair_features.shape[1]))
    labels, weights = np.full((n_users, width), 0.5), np.zeros((n_users, width))
    features[user, slot] = pair_features[preferences.pair[order]]
    labels[user, slot] = preferences.label[order]
    weights[user, slot] = preferences.weight[order]
    return adapt_users(features, labels, weights, prior)


def _newton(
    features: Floats,
    offset: Floats,
    labels: Floats,
    weights: Floats,
    guess: Floats,
    tolerance: float,
    max_iterations: int,
) -> tuple[Floats, Floats, int]:
    """Newton in whitened coordinates z, margin = offset + features @ z, prior N(0, I)."""
    n_users, _, d = features.shape
    z, identity = guess.copy(), np.eye(d)
    margin = offset + np.matmul(features, z[:, :, None])[:, :, 0]
    active = np.arange(n_users)
    n_steps = 0
    for _ in range(max_iterations):
        phi, here = features[active], margin[active]
        pull = weights[active] * margin_gradient(here, labels[active])
        gradient = np.matmul(pull[:, None, :], phi)[:, 0, :] - z[active]
        size = np.matmul(np.abs(pull)[:, None, :], np.abs(phi))[:, 0, :] + np.abs(z[active])
        is_open = np.any(np.abs(gradient) > np.maximum(tolerance, _ROUNDING * size), axis=1)
        active = active[is_open]
        if active.size == 0:
            break
        n_steps += 1
        phi, here, gradient = phi[is_open], here[is_open], gradient[is_open]
        bend = weights[active] * curvature(here)
        hessian = np.matmul((phi * bend[:, :, None]).transpose(0, 2, 1), phi) + identity
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        along = np.matmul(phi, step[:, :, None])[:, :, 0]
        length = _backtrack(here, along, labels[active], weights[active], z[active], step, gradient)
        z[active] += length[:, None] * step
        margin[active] = (
            offset[active] + np.matmul(features[active], z[active][:, :, None])[:, :, 0]
        )
    bend = weights * curvature(margin)
    hessian = np.matmul((features * bend[:, :, None]).transpose(0, 2, 1), features) + identity
    return z, hessian, n_steps


def _backtrack(
    margin: Floats,
    along: Floats,
    labels: Floats,
    weights: Floats,
    z: Floats,
    step: Floats,
    gradient: Floats,
) -> Floats:
    """Halve each user's step until the log posterior rises enough (Armijo); returns (U,)."""
    slope = np.sum(gradient * step, axis=1)
    value = np.sum(weights * log_likelihood(margin, labels), axis=1)
    value -= 0.5 * np.sum(z**2, axis=1)
    length = np.ones(len(z))
    slack = _ROUNDING * np.abs(value)  # the last steps change less than the sum can show
    for _ in range(40):
        moved = z + length[:, None] * step
        new = np.sum(weights * log_likelihood(margin + length[:, None] * along, labels), axis=1)
        new -= 0.5 * np.sum(moved**2, axis=1)
        short = new < value + 1e-4 * length * slope - slack
        if not np.any(short):
            break
        length[short] *= 0.5
    return length


def _ledoit_wolf(centered: Floats, empirical: Floats, target: float) -> float:
    n_users, d = centered.shape
    distance = float(np.sum((empirical - target * np.eye(d)) ** 2))
    if distance == 0.0:
        return 0.0
    spread = float(np.sum(np.sum(centered**2, axis=1) ** 2)) / n_users
    noise = (spread - float(np.sum(empirical**2))) / n_users
    return float(np.clip(noise / distance, 0.0, 1.0))


def _check(features: Floats, labels: Floats, weights: Floats, prior: UserPrior) -> None:
    d = prior.mean.shape[0]
    if features.ndim != 3 or features.shape[2] != d or prior.covariance.shape != (d, d):
        raise BadArray(
            f"adapt: found features {features.shape} and a prior of {prior.covariance.shape}, "
            f"expected (U, K, {d}); take both from the same model"
        )
    if labels.shape != features.shape[:2] or weights.shape != features.shape[:2]:
        raise BadArray(
            f"adapt: found labels {labels.shape} and weights {weights.shape}, "
            f"expected {features.shape[:2]} like the features"
        )
    if not np.all(np.isfinite(weights) & (weights >= 0.0)):
        raise BadArray("adapt: found a negative or non-finite weight, expected weights >= 0")
    present = weights > 0.0
    answers = labels[present]
    if not np.all((answers >= 0.0) & (answers <= 1.0)) or not np.all(
        np.isfinite(features[present])
    ):
        raise BadArray(
            "adapt: found an answer outside [0, 1] or a non-finite feature, "
            "expected weight 0 where there is no answer"
        )
