"""The SVD start of Algorithm 1: user weights and pair features read off the answers alone.

It sees no text and no embedding, and trains nothing by gradient.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from pref_model.errors import BadSetting
from pref_model.likelihood import curvature, margin_gradient
from pref_model.types import Floats, Ints, Preferences

# Above this many cells the completed matrix is kept as sparse + low rank, never written out.
DENSE_CELLS = 1 << 23
_OVERSAMPLE = 8
_ROWS = 1 << 16
_FILL_SHRINKAGE = 0.4


class SvdStart(NamedTuple):
    """Balanced factors of the completed matrix.

    Attributes:
        user_weights: (U, d) float64, V sqrt(S), columns in falling order of S.
        pair_features: (M, d) float64, U sqrt(S); user_weights @ pair_features.T is in logits.
        logit_scale: Logits per unit of the factored matrix (1 for the raw variant).
        n_refills: Imputation rounds made (0 for a full matrix).
    """

    user_weights: Floats
    pair_features: Floats
    logit_scale: float
    n_refills: int


class Spectrum(NamedTuple):
    """Singular values of the pair-centered matrix beside what pure noise would show.

    Attributes:
        singular_values: (k,) falling, of the centered matrix with missing cells at zero.
        noise_edge: Largest singular value expected of noise of the same size and coverage.
    """

    singular_values: Floats
    noise_edge: float


class _Cells(NamedTuple):
    """Observed cells, one an entry, sorted by (user, pair)."""

    user: Ints
    pair: Ints
    value: Floats
    weight: Floats
    label: Floats
    shape: tuple[int, int]

    @property
    def coverage(self) -> float:
        return self.value.size / max(self.shape[0] * self.shape[1], 1)


def svd_start(
    preferences: Preferences,
    n_users: int,
    n_pairs: int,
    d: int,
    *,
    center: bool = True,
    is_user_centered: bool = False,
    shrinkage: float = 1.0,
    max_refills: int = 30,
    seed: int = 0,
) -> SvdStart:
    """Factor the answers into Lambda_0 = V sqrt(S) and Phi_0 = U sqrt(S) (Algorithm 1, step 1).

    Labels become 2A - 1, so a tie is zero. Missing cells are filled with the pair's shrunk mean
    plus a rank-d residual, refitted until it settles, with singular values lowered by a share of
    the noise edge; fills are clipped to [-1, 1] where the matrix is small enough to write out.
    The pair mean, the taste everybody shares, takes part in the *final* truncated SVD: it comes
    out as a direction in which the mean user weight is not zero, which the model
    weights . features can express and a centered factorization would have thrown away.
    A one-parameter logistic fit then turns the matrix into logits.

    Args:
        preferences: Observed cells; repeated cells are averaged by weight.
        n_users: U.
        n_pairs: M.
        d: Base rewards; components beyond min(U, M) are zero.
        center: False gives the paper's raw variant: 0/1 values with missing = 1/2, ten refills
            of rank 100, no logit scale. Its first component is mostly the constant 1/2.
        is_user_centered: Also remove each user's shrunk mean (a habit of choosing the first
            response, which no antisymmetric pair feature can express).
        shrinkage: Pseudo-observations of "no preference" in every pair (and user) mean.
        max_refills: Rounds of imputation at most.
        seed: Start of the subspace iteration for matrices too large for an exact SVD.

    Returns:
        `SvdStart`; the columns' signs make every mean user weight non-negative.

    Raises:
        BadSetting: d < 1 or no cell observed.

    Departures: centering, shrunk fills and the logit scale are ours (METHOD section 4);
    `center=False` is the paper's. Oracle: `reference.svd_start`.
    """
    if d < 1:
        raise BadSetting(f"svd: found d={d}, expected at least 1 base reward")
    cells = _collect(preferences, n_users, n_pairs, is_raw=not center)
    if not center:
        return _raw_start(cells, d, seed)
    offset, pair_mean = _means(cells, shrinkage, is_user_centered)
    residual = cells.value - pair_mean[cells.pair] - offset[cells.user]
    left, right, n_refills = _impute(cells, residual, d, max_refills, seed)
    ones = np.ones((n_users, 1))
    # User offsets only steady the imputation: they are not put back (see is_user_centered).
    filled_left = np.hstack([ones, left])
    filled_right = np.hstack([pair_mean[:, None], right])
    observed = cells.value - offset[cells.user]
    factors = _complete_svd(cells, observed, filled_left, filled_right, d, seed, clip=True)
    weights, features = _balanced(*factors, d)
    margin = _at(weights, features, cells)
    scale = _logit_scale(margin, cells.label, cells.weight)
    return SvdStart(weights * np.sqrt(scale), features * np.sqrt(scale), scale, n_refills)


def spectrum(
    preferences: Preferences, n_users: int, n_pairs: int, k: int = 20, *, seed: int = 0
) -> Spectrum:
    """Return the top k singular values of the pair-centered answers and the noise edge.

    The edge is sigma sqrt(coverage) (sqrt U + sqrt M), the largest singular value of a U x M
    matrix of independent noise with the residual's variance sigma^2 and the same coverage
    (Bai-Yin). Components above it are more than noise.
    """
    cells = _collect(preferences, n_users, n_pairs, is_raw=False)
    _, pair_mean = _means(cells, 1.0, False)
    residual = cells.value - pair_mean[cells.pair]
    none_left, none_right = np.zeros((n_users, 0)), np.zeros((n_pairs, 0))
    _, singular, _ = _complete_svd(cells, residual, none_left, none_right, k, seed, clip=False)
    return Spectrum(singular[:k], _noise_edge(residual, cells))


def _collect(preferences: Preferences, n_users: int, n_pairs: int, *, is_raw: bool) -> _Cells:
    keep = preferences.weight > 0.0
    if not np.any(keep):
        raise BadSetting("svd: found no observed preference, expected at least one; judge first")
    cell = preferences.user[keep] * n_pairs + preferences.pair[keep]
    unique, inverse = np.unique(cell, return_inverse=True)
    weight: Floats = np.bincount(inverse, weights=preferences.weight[keep]).astype(np.float64)
    total = np.bincount(inverse, weights=preferences.weight[keep] * preferences.label[keep])
    label: Floats = total / weight
    value: Floats = label if is_raw else 2.0 * label - 1.0
    return _Cells(unique // n_pairs, unique % n_pairs, value, weight, label, (n_users, n_pairs))


def _means(cells: _Cells, shrinkage: float, is_user_centered: bool) -> tuple[Floats, Floats]:
    n_users, n_pairs = cells.shape
    count = np.bincount(cells.pair, minlength=n_pairs)
    total = np.bincount(cells.pair, weights=cells.value, minlength=n_pairs)
    pair_mean = total / np.maximum(count + shrinkage, 1e-12)
    if not is_user_centered:
        return np.zeros(n_users), pair_mean
    rest = cells.value - pair_mean[cells.pair]
    user_count = np.bincount(cells.user, minlength=n_users)
    user_total = np.bincount(cells.user, weights=rest, minlength=n_users)
    return user_total / np.maximum(user_count + shrinkage, 1e-12), pair_mean


def _noise_edge(residual: Floats, cells: _Cells) -> float:
    n_users, n_pairs = cells.shape
    sigma = float(np.sqrt(np.mean(residual**2)))
    return sigma * float(np.sqrt(cells.coverage)) * float(np.sqrt(n_users) + np.sqrt(n_pairs))


def _impute(
    cells: _Cells, residual: Floats, d: int, max_refills: int, seed: int
) -> tuple[Floats, Floats, int]:
    """Rank-d fills of the missing cells: factors (U, d), (M, d) and the rounds made.

    Alternating ridge regressions on the observed cells minimize |residual - a b^T|^2 +
    g (|a|^2 + |b|^2), whose fills are those of singular values lowered by g (Hastie et al.
    2015). At g = the noise edge only what noise could not produce survives, which proved too
    much: 0.4 of it predicted hidden margins best or nearly so at 3 to 50 % coverage.
    """
    n_users, n_pairs = cells.shape
    if residual.size == n_users * n_pairs:
        return np.zeros((n_users, d)), np.zeros((n_pairs, d)), 0
    place = (cells.user, cells.pair)
    observed = sp.csr_array((residual, place), shape=cells.shape)
    present = sp.csr_array((np.ones_like(residual), place), shape=cells.shape)
    across, present_across = observed.T.tocsr(), present.T.tocsr()
    ridge = max(_FILL_SHRINKAGE * _noise_edge(residual, cells), 1e-9)
    _, singular, v = _subspace_svd(observed, None, None, min(d, *cells.shape), seed, max_steps=5)
    right = np.zeros((n_pairs, d))
    right[:, : singular.size] = v * np.sqrt(singular)
    left = np.zeros((n_users, d))
    small = 1e-5 * max(float(np.mean(residual**2)), 1e-12) * n_users * n_pairs
    for refill in range(1, max_refills + 1):
        before = left, right
        left = _ridge_rows(observed, present, right, ridge)
        right = _ridge_rows(across, present_across, left, ridge)
        if _square_change(left, right, *before) <= small:
            return left, right, refill
    return left, right, max_refills


def _square_change(left: Floats, right: Floats, old_left: Floats, old_right: Floats) -> float:
    """Return |left right^T - old_left old_right^T|^2 over all cells, from d x d products."""
    now = np.sum((left.T @ left) * (right.T @ right))
    old = np.sum((old_left.T @ old_left) * (old_right.T @ old_right))
    both = np.sum((left.T @ old_left) * (right.T @ old_right))
    return float(max(now + old - 2.0 * both, 0.0))


def _at(left: Floats, right: Floats, cells: _Cells) -> Floats:
    """Return sum_d left[user, d] right[pair, d] of every observed cell, some rows at a time."""
    found = np.empty(cells.user.size)
    for low in range(0, found.size, _ROWS):
        rows = slice(low, low + _ROWS)
        user, pair = left.take(cells.user[rows], axis=0), right.take(cells.pair[rows], axis=0)
        np.einsum("nd,nd->n", user, pair, out=found[rows])
    return found


def _ridge_rows(
    observed: sp.csr_array, present: sp.csr_array, right: Floats, ridge: float
) -> Floats:
    """Solve min_a |observed_row - a right^T|^2 + ridge |a|^2 over the present cells, by row."""
    d = right.shape[1]
    # Gram matrices are symmetric: the upper triangles alone halve memory and time.
    row, column = np.triu_indices(d)
    upper = present @ (right[:, row] * right[:, column])
    gram = np.empty((present.shape[0], d, d))
    gram[:, row, column] = upper
    gram[:, column, row] = upper
    gram[:, np.arange(d), np.arange(d)] += ridge
    solved: Floats = np.linalg.solve(gram, (observed @ right)[:, :, None])[:, :, 0]
    return solved


def _complete_svd(
    cells: _Cells, observed: Floats, left: Floats, right: Floats, k: int, seed: int, *, clip: bool
) -> tuple[Floats, Floats, Floats]:
    """Top-k SVD of [observed where observed, left @ right.T elsewhere]: (U, k), (k,), (M, k)."""
    n_users, n_pairs = cells.shape
    k = min(k, n_users, n_pairs)
    if n_users * n_pairs <= DENSE_CELLS:
        full = left @ right.T
        if clip:
            np.clip(full, -1.0, 1.0, out=full)
        full[cells.user, cells.pair] = observed
        if min(n_users, n_pairs) <= 512:
            u, singular, vt = np.linalg.svd(full, full_matrices=False)
            return u[:, :k], singular[:k], vt[:k].T
        return _subspace_svd(full, None, None, k, seed)
    fills = _at(left, right, cells)
    change = sp.csr_array((observed - fills, (cells.user, cells.pair)), shape=cells.shape)
    return _subspace_svd(change, left, right, k, seed)


def _subspace_svd(
    matrix: "Floats | sp.csr_array",
    left: Floats | None,
    right: Floats | None,
    k: int,
    seed: int,
    max_steps: int = 40,
) -> tuple[Floats, Floats, Floats]:
    """Block power iteration for matrix + left @ right.T (Halko et al. 2011, algorithm 4.4)."""

    def times(block: Floats) -> Floats:
        out: Floats = matrix @ block
        return out if left is None or right is None else out + left @ (right.T @ block)

    def transposed(block: Floats) -> Floats:
        out: Floats = matrix.T @ block
        return out if left is None or right is None else out + right @ (left.T @ block)

    width = min(k + _OVERSAMPLE, *matrix.shape)
    rng = np.random.default_rng([seed, *matrix.shape])
    basis = np.linalg.qr(rng.standard_normal((matrix.shape[1], width)))[0]
    previous = np.zeros(width)
    for _ in range(max_steps):
        image = np.linalg.qr(times(basis))[0]
        basis, upper = np.linalg.qr(transposed(image))
        singular = np.linalg.svd(upper, compute_uv=False)
        if np.max(np.abs(singular[:k] - previous[:k])) <= 1e-6 * singular[0]:
            break
        previous = singular
    small_u, singular, small_vt = np.linalg.svd(times(basis), full_matrices=False)
    return small_u[:, :k], singular[:k], (basis @ small_vt.T)[:, :k]


def _balanced(u: Floats, singular: Floats, v: Floats, d: int) -> tuple[Floats, Floats]:
    root = np.sqrt(singular)
    sign = np.where(u.mean(axis=0) < 0.0, -1.0, 1.0)
    weights, features = np.zeros((len(u), d)), np.zeros((len(v), d))
    weights[:, : root.size], features[:, : root.size] = u * root * sign, v * root * sign
    return weights, features


def _raw_start(cells: _Cells, d: int, seed: int) -> SvdStart:
    n_users, n_pairs = cells.shape
    n_refills = 0 if cells.value.size == n_users * n_pairs else 10
    left, right = np.full((n_users, 1), 0.5), np.ones((n_pairs, 1))
    for _ in range(n_refills):
        u, singular, v = _complete_svd(cells, cells.value, left, right, 100, seed, clip=False)
        left, right = u * singular, v
    factors = _complete_svd(cells, cells.value, left, right, d, seed, clip=False)
    weights, features = _balanced(*factors, d)
    return SvdStart(weights, features, 1.0, n_refills)


def _logit_scale(margin: Floats, label: Floats, weight: Floats) -> float:
    """Newton for the a in [1/2, 20] that maximizes sum_n w_n log p(label_n | a margin_n)."""
    scale = 2.0  # 2A - 1 = tanh(f / 2), so logits are twice the matrix near zero
    for _ in range(50):
        slope = float(np.sum(weight * margin_gradient(scale * margin, label) * margin))
        bend = float(np.sum(weight * curvature(scale * margin) * margin**2))
        step = slope / bend if bend > 0.0 else 0.0
        moved = float(np.clip(scale + np.clip(step, -1.0, 1.0), 0.5, 20.0))
        if abs(moved - scale) < 1e-9:
            return moved
        scale = moved
    return scale
