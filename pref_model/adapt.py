"""New users: MAP weights and their Laplace covariance from a few answers (eq 6, eq 8).

The base rewards are fixed here; nothing is trained by gradient and no text is read.
"""

from typing import NamedTuple

import numpy as np

from pref_model.errors import BadArray, BadSetting
from pref_model.likelihood import curvature
from pref_model.newton import Answered, maximize
from pref_model.threads import one_blas_thread
from pref_model.types import Floats, Preferences

# Numbers per block of features: keeps what a Newton step touches within the processor's cache.
_BLOCK_NUMBERS = 1 << 17


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


@one_blas_thread()
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

    Numerics: a step that moves some margin far is halved until it increases the posterior by a
    ten-thousandth of what its slope promises; shorter ones need no such check
    (`newton.maximize`). Users are worked through in blocks, which changes nothing.
    Oracle: `reference.adapt_user`, scikit-learn's LogisticRegression.
    """
    _check(features, labels, weights, prior)
    n_users, n_answers, d = features.shape
    root = np.linalg.cholesky(prior.covariance)
    mean, covariance = np.empty((n_users, d)), np.empty((n_users, d, d))
    slowest = 0
    size = max(16, _BLOCK_NUMBERS // max(n_answers * d, d * d, 1))
    for low in range(0, n_users, size):
        block = slice(low, low + size)
        present = weights[block] > 0.0
        raw = np.asarray(features[block], dtype=np.float64)
        if not np.all(present):  # an absent answer may hold anything
            raw = np.where(present[:, :, None], raw, 0.0)
        guess = np.zeros((len(raw), d))
        if start is not None:
            guess = np.linalg.solve(root, (start[block] - prior.mean).T).T
        answered = Answered(
            raw @ root,
            raw @ prior.mean,
            np.where(present, labels[block], 0.5),
            np.asarray(weights[block], dtype=np.float64),
        )
        whitened, hessian, n_iterations = maximize(answered, guess, tolerance, max_iterations)
        slowest = max(slowest, n_iterations)
        mean[block] = prior.mean + whitened @ root.T
        inverse_root = np.linalg.inv(np.linalg.cholesky(hessian)) @ root.T
        covariance[block] = inverse_root.transpose(0, 2, 1) @ inverse_root
    return Posterior(mean, covariance, slowest)


def covariance_at(features: Floats, weights: Floats, user: Floats, prior: UserPrior) -> Floats:
    """Return the inverse of eq 8 at one user's weights: what is still uncertain about them.

    H = C^-1 + sum_k w_k s'(f_k) phi_k phi_k^T with f_k = lambda . phi_k; at the maximum of eq 6
    it is the covariance of `adapt_users`.

    Args:
        features: (K, d) features of the pairs answered.
        weights: (K,) >= 0, how many answers each counts for.
        user: (d,) weights, which need not be the maximum.
        prior: Prior in the same basis.

    Returns:
        (d, d) float64.
    """
    slope = weights * curvature(features @ user)
    hessian = np.linalg.inv(prior.covariance) + (features * slope[:, None]).T @ features
    return np.asarray(np.linalg.inv(hessian), dtype=np.float64)


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
    # One pass over dense input; only input with absent answers is sifted.
    is_probability = labels.min(initial=0.0) >= 0.0 and labels.max(initial=1.0) <= 1.0
    if is_probability and np.isfinite(features.sum()):
        return
    present = weights > 0.0
    answers = labels[present]
    if not np.all((answers >= 0.0) & (answers <= 1.0)) or not np.all(
        np.isfinite(features[present])
    ):
        raise BadArray(
            "adapt: found an answer outside [0, 1] or a non-finite feature, "
            "expected weight 0 where there is no answer"
        )
