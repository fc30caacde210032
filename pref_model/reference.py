"""Slow, obvious twins of the fast routines, read beside the paper and used as oracles by tests.

Nothing in the product calls them, and none of them is tuned.
"""

import math
from decimal import Decimal, localcontext

import numpy as np
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar

from pref_model.types import Floats


def log_likelihood(margin: float, label: float) -> float:
    """Return A log s(f) + (1 - A) log(1 - s(f)) in 60-digit arithmetic (eq 5)."""
    with localcontext() as context:
        context.prec = 60
        f, a = Decimal(margin), Decimal(label)
        log_first = -(1 + (-f).exp()).ln()
        log_second = -(1 + f.exp()).ln()
        return float(a * log_first + (1 - a) * log_second)


def margin_gradient(margin: float, label: float) -> float:
    """Return A - s(f) in 60-digit arithmetic; enough digits for |f| below 100."""
    with localcontext() as context:
        context.prec = 60
        return float(Decimal(label) - 1 / (1 + (-Decimal(margin)).exp()))


def adapt_user(
    features: Floats, labels: Floats, weights: Floats, mean: Floats, covariance: Floats
) -> tuple[Floats, Floats]:
    """Maximize one user's log posterior (eq 6, Gaussian prior) with a general optimizer.

    Args:
        features: (K, d).
        labels: (K,).
        weights: (K,).
        mean: (d,) prior mean.
        covariance: (d, d) prior covariance.

    Returns:
        MAP weights (d,) and the inverse Hessian (d, d) of eq 8, written as loops.
    """
    precision = np.linalg.inv(covariance)

    def lost(weights_of_user: Floats) -> float:
        total = 0.5 * (weights_of_user - mean) @ precision @ (weights_of_user - mean)
        for phi, label, weight in zip(features, labels, weights, strict=True):
            total -= weight * log_likelihood(float(phi @ weights_of_user), float(label))
        return float(total)

    def slope(weights_of_user: Floats) -> Floats:
        total: Floats = precision @ (weights_of_user - mean)
        for phi, label, weight in zip(features, labels, weights, strict=True):
            total = total - weight * (label - _sigmoid(float(phi @ weights_of_user))) * phi
        return total

    found = minimize(lost, mean, jac=slope, method="BFGS", options={"gtol": 1e-10}).x
    hessian = precision.copy()
    for phi, weight in zip(features, weights, strict=True):
        p = _sigmoid(float(phi @ found))
        hessian = hessian + weight * p * (1.0 - p) * np.outer(phi, phi)
    return found, np.linalg.inv(hessian)


def question_score(
    rule: str, phi: Floats, mean: Floats, covariance: Floats, targets: Floats
) -> float:
    """Score one pair for one user, straight from the table of METHOD section 5.

    Takes phi (d,), the posterior's mean (d,) and covariance (d, d), and targets (T, d) for
    v_optimal; BALD is integrated by adaptive quadrature. Units are those of the rule.
    """
    f, q = float(mean @ phi), float(phi @ covariance @ phi)
    w = _sigmoid(f) * (1.0 - _sigmoid(f))
    if rule == "variance":
        return q
    if rule == "authors":
        return w**2 * q
    if rule == "d_optimal":
        return w * q
    if rule == "bald":
        return _mutual_information(f, q)
    if rule == "v_optimal":
        total = 0.0
        for target in targets:
            p = _sigmoid(float(mean @ target))
            total += p * (1.0 - p) * float(phi @ covariance @ target) ** 2
        return w * total / (1.0 + w * q)
    return 0.0


def auc(scores: Floats, labels: Floats) -> float:
    """Share of (preferred-first, preferred-second) couples ranked rightly, equal scores half."""
    first = [s for s, label in zip(scores, labels, strict=True) if label > 0.5]
    second = [s for s, label in zip(scores, labels, strict=True) if label < 0.5]
    if not first or not second:
        return math.nan
    won = sum((a > b) + 0.5 * (a == b) for a in first for b in second)
    return float(won) / (len(first) * len(second))


def leave_one_out_errors(differences: Floats, targets: Floats, ridge: float) -> Floats:
    """Residuals (M, d) of ridge regressions each refitted without its own row."""
    width = differences.shape[1]
    residuals = np.empty_like(targets)
    for row in range(len(targets)):
        rest = np.arange(len(targets)) != row
        x, y = differences[rest], targets[rest]
        head = np.linalg.solve(x.T @ x + ridge * np.eye(width), x.T @ y)
        residuals[row] = targets[row] - differences[row] @ head
    return residuals


def svd_start(labels: Floats, d: int, rounds: int) -> tuple[Floats, Floats, float]:
    """Algorithm 1, step 1 as `svd.svd_start` does it, on a matrix that is written out.

    Args:
        labels: (U, M) in [0, 1], nan where nobody asked.
        d: Base rewards.
        rounds: Rounds of imputation, as many as the fast routine made.

    Returns:
        User weights (U, d), pair features (M, d), the logit scale.
    """
    n_users, n_pairs = labels.shape
    is_there = ~np.isnan(labels)
    value = np.where(is_there, 2.0 * labels - 1.0, 0.0)
    pair_mean = np.array([value[:, m].sum() / (is_there[:, m].sum() + 1.0) for m in range(n_pairs)])
    residual = np.where(is_there, value - pair_mean, 0.0)
    sigma = math.sqrt(float(np.mean(residual[is_there] ** 2)))
    coverage = float(is_there.mean())
    edge = sigma * math.sqrt(coverage) * (math.sqrt(n_users) + math.sqrt(n_pairs))
    left, right = np.zeros((n_users, d)), np.zeros((n_pairs, d))
    if not is_there.all():
        _, singular, vt = np.linalg.svd(residual)
        right = vt[:d].T * np.sqrt(singular[:d])
        ridge = 0.4 * edge * np.eye(d)
        for _ in range(rounds):
            for u in range(n_users):
                own = right[is_there[u]]
                left[u] = np.linalg.solve(own.T @ own + ridge, own.T @ residual[u, is_there[u]])
            for m in range(n_pairs):
                own = left[is_there[:, m]]
                right[m] = np.linalg.solve(own.T @ own + ridge, own.T @ residual[is_there[:, m], m])
    full = np.where(is_there, value, np.clip(pair_mean + left @ right.T, -1.0, 1.0))
    vectors, singular, vt = np.linalg.svd(full, full_matrices=False)
    weights, features = vectors[:, :d] * np.sqrt(singular[:d]), vt[:d].T * np.sqrt(singular[:d])
    signs = np.where(weights.mean(axis=0) < 0.0, -1.0, 1.0)
    weights, features = weights * signs, features * signs
    margin = weights @ features.T

    def lost(scale: float) -> float:
        return -sum(
            log_likelihood(scale * float(margin[u, m]), float(labels[u, m]))
            for u, m in np.argwhere(is_there)
        )

    scale = float(minimize_scalar(lost, bounds=(0.5, 20.0), options={"xatol": 1e-9}).x)
    return weights * math.sqrt(scale), features * math.sqrt(scale), scale


def canonical_factors(user_weights: Floats, pair_features: Floats) -> tuple[Floats, Floats]:
    """Factors (U, d), (M, d) of `basis.canonical_change`, by the SVD of all margins (U, M)."""
    n_users, d = user_weights.shape
    left, size, right = np.linalg.svd(user_weights @ pair_features.T, full_matrices=False)
    weights = math.sqrt(n_users) * left[:, :d]
    features = right[:d].T * size[:d] / math.sqrt(n_users)
    signs = np.where(weights.mean(axis=0) < 0.0, -1.0, 1.0)
    return weights * signs, features * signs


def aligned_map(old: Floats, new: Floats, stored: Floats) -> Floats:
    """The (d, d) A with the least sum over u, m of (stored_u^T (old_m - A new_m))^2.

    Written as one regression on the d * d entries of A, a row a (user, pair); old, new (M, d),
    stored (U, d). Oracle of `basis.align`, which solves a smaller problem with the same answer.
    """
    rows = [np.outer(one, phi).ravel() for one in stored for phi in new]
    wanted = [float(one @ phi) for one in stored for phi in old]
    found = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    result: Floats = found.reshape(stored.shape[1], new.shape[1])
    return result


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))


def _entropy(p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return 0.0
    return -p * math.log(p) - (1.0 - p) * math.log(1.0 - p)


def _mutual_information(f: float, q: float) -> float:
    deviation = math.sqrt(q)

    def density(z: float) -> float:
        return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)

    def integral(kind: str) -> float:
        def inside(z: float) -> float:
            p = _sigmoid(f + deviation * z)
            return density(z) * (p if kind == "mean" else _entropy(p))

        middle = -f / deviation if deviation > 0.0 else 0.0
        points = [min(max(middle, -9.0), 9.0)]
        return float(quad(inside, -10.0, 10.0, points=points, limit=400)[0])

    return _entropy(integral("mean")) - integral("noise")
