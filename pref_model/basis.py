"""One canonical basis for a fitted reward model, and a retrain mapped onto a previous one.

The factorization is unique only up to an invertible map (Lambda R^-1, R Phi). This module fixes
that map after fitting; it trains nothing and changes no margin of the model it is given.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from pref_model.adapt import UserPrior
from pref_model.errors import BadArray, BadSetting
from pref_model.model import RewardModel
from pref_model.types import Bools, Floats, finite_matrix

# A direction in which users differ this much less than in the largest one is no direction.
_RANK = 1e-6


class BasisChange(NamedTuple):
    """A change of basis that leaves margins alone: weights lambda T, features T^-1 phi.

    Attributes:
        to_weights: T, (d, d) float64.
        to_features: T^-1 (or the pseudo-inverse where users span fewer directions), (d, d).
    """

    to_weights: Floats
    to_features: Floats

    def weights(self, weights: npt.ArrayLike) -> Floats:
        """Return user weights (..., d) in the new basis."""
        result: Floats = np.asarray(weights, dtype=np.float64) @ self.to_weights
        return result

    def features(self, features: npt.ArrayLike) -> Floats:
        """Return response or pair features (..., d) in the new basis."""
        result: Floats = np.asarray(features, dtype=np.float64) @ self.to_features.T
        return result

    def prior(self, prior: UserPrior) -> UserPrior:
        """Return a prior over user weights in the new basis."""
        return UserPrior(
            self.weights(prior.mean), self.to_weights.T @ prior.covariance @ self.to_weights
        )

    def model(self, model: RewardModel) -> RewardModel:
        """Return the model with its head and its users' weights in the new basis."""
        head = self.to_features @ model.head.astype(np.float64)
        return replace(
            model,
            head=head.astype(np.float32),
            user_weights=self.weights(model.user_weights).astype(np.float32),
        )


class Alignment(NamedTuple):
    """A retrain in the basis of a previous model.

    Attributes:
        model: The retrained model, its head and users' weights in the previous basis.
        change: The map from the retrain's own basis.
        error: Relative root-mean-square change of the stored users' margins on the held-out
            pairs: |Lambda (phi_old - phi_new)| / |Lambda phi_old|. 0 is a perfect alignment.
        ranking: How the stored users' choices on the held-out pairs change.
    """

    model: RewardModel
    change: BasisChange
    error: float
    ranking: "RankingChange"


class RankingChange(NamedTuple):
    """How far two sets of margins (U, M) rank pairs differently.

    Attributes:
        users_share: Share of users for whom at least one pair's preferred response changes.
        pairs_share: Share of all (user, pair) cells whose preferred response changes.
        order_tau: Mean over users of Kendall's tau-b between the two orders of pairs.
    """

    users_share: float
    pairs_share: float
    order_tau: float


def canonical_change(user_weights: npt.ArrayLike, pair_features: npt.ArrayLike) -> BasisChange:
    """Find the basis with whitened user weights and variance-ordered base rewards.

    With Lambda (U, d) and Phi (M, d) the new factors are those of the singular value
    decomposition of the margins Lambda Phi^T = P S Q^T: Lambda' = sqrt(U) P, so that
    Lambda'^T Lambda' / U = I, and Phi' = Q S / sqrt(U), with orthogonal columns in falling order
    of length. So |Phi'_k|^2 / M is the mean squared margin (squared logits) that base reward k
    explains, and the parts add up. Each sign makes the users' mean weight positive: more of a
    base reward is better on average (third moment, then the largest entry, where the mean
    vanishes).

    The second moment is whitened, not the covariance: it stays defined when all users share a
    taste (classic RLHF: one weight of 1), and explained parts then sum to the whole.

    Args:
        user_weights: (U, d) of the training users.
        pair_features: (M, d) of the training pairs, same basis.

    Returns:
        The change from the given basis. Any invertible reparametrization of the input leads to
        the same canonical factors while the explained parts differ from each other.

    Raises:
        BadArray: Shapes disagree, or no user has a non-zero weight.

    Oracle: `reference.canonical_factors`.
    """
    weights = finite_matrix(user_weights, "user weights")
    features = finite_matrix(pair_features, "pair features", weights.shape[1])
    n_users = len(weights)
    _, size, right = np.linalg.svd(weights, full_matrices=False)
    is_used = size > _RANK * size.max(initial=0.0)
    if not is_used.any():
        raise BadArray("basis: found only zero user weights, expected a fitted model")
    # Lambda = L diag(s) R; in the coordinates L the margins are L (diag(s) R Phi^T).
    inner = (size[:, None] * right)[is_used] @ features.T
    rotation, _, _ = np.linalg.svd(inner, full_matrices=True)
    rank, d = int(is_used.sum()), weights.shape[1]
    to_weights, to_features = np.zeros((d, d)), np.zeros((d, d))
    to_weights[:, :rank] = (right[is_used].T / size[is_used]) @ rotation * np.sqrt(n_users)
    to_features[:rank] = rotation.T @ (size[:, None] * right)[is_used] / np.sqrt(n_users)
    whitened = weights @ to_weights[:, :rank]
    sign = np.array([_sign(column) for column in whitened.T])
    to_weights[:, :rank] *= sign
    to_features[:rank] *= sign[:, None]
    return BasisChange(to_weights, to_features)


def canonicalize(model: RewardModel, pair_differences: Floats) -> RewardModel:
    """Return the same model in its canonical basis (`canonical_change`).

    Args:
        model: A fitted model.
        pair_differences: (M, D) embeddings of the training pairs, first - second. They fix the
            rotation, so the same pairs must be given to compare two results entry by entry.

    Returns:
        A model whose margins differ by float32 rounding only. Weights that were adapted in the
        old basis no longer fit: adapt again, or map them with `canonical_change(...).weights`.
    """
    change = canonical_change(model.user_weights, model.pair_features(pair_differences))
    return change.model(model)


def explained_variance(user_weights: Floats, pair_features: Floats) -> Floats:
    """Return each base reward's part of the mean squared margin.

    Part k is mean_u lambda_uk^2 mean_m phi_mk^2 / mean_um (lambda_u . phi_m)^2.

    Args:
        user_weights: (U, d).
        pair_features: (M, d), same basis.

    Returns:
        (d,), without unit; sums to 1 in the canonical basis, where the parts do not overlap.
    """
    parts = np.mean(user_weights**2, axis=0) * np.mean(pair_features**2, axis=0)
    total = float(np.mean((user_weights @ pair_features.T) ** 2))
    result: Floats = parts / max(total, np.finfo(float).tiny)
    return result


def align(
    model: RewardModel,
    reference_features: Floats,
    model_features: Floats,
    stored_weights: Floats,
    *,
    held_out: Bools | None = None,
    method: Literal["least_squares", "procrustes"] = "least_squares",
) -> Alignment:
    """Map a retrained model onto a previous basis, so that stored user weights stay usable.

    Finds A with phi_old ~ A phi_new on shared pairs. What has to be kept are the margins
    lambda^T phi_old of users stored with the previous model, so A minimizes
    sum_u sum_m (lambda_u^T (phi_old,m - A phi_new,m))^2. With enough users that minimum does not
    depend on them: it is least squares from the new features to the old. Shared pairs are used
    and not shared users, because stored users need not be in the retrain, and because features
    of the same texts are known without noise while weights come from a few answers.

    Args:
        model: The retrain.
        reference_features: (M, d) pair features by the previous model, its basis.
        model_features: (M, d) of the same pairs by the retrain; another encoder is fine.
        stored_weights: (U, d) weights in the previous basis that must stay usable.
        held_out: (M,) booleans, pairs kept for `error` and `ranking`; every fifth when None.
        method: "least_squares", or "procrustes": the best rotation and reflection times one
            scale, right only when both bases are canonical and the pairs alike, but with fewer
            free numbers.

    Raises:
        BadArray: Shapes disagree, fewer pairs than d, or the retrain lost a direction.
        BadSetting: Unknown method, or the numbers of base rewards differ.

    Numerics: least squares shrinks towards zero the directions on which the models disagree; the
    share of it is in `error`. Oracle: `reference.aligned_map` and
    `scipy.linalg.orthogonal_procrustes`.
    """
    old = finite_matrix(reference_features, "reference features")
    new = finite_matrix(model_features, "model features")
    stored = finite_matrix(stored_weights, "stored weights", old.shape[1])
    if old.shape[1] != new.shape[1]:
        raise BadSetting(
            f"align: found {new.shape[1]} base rewards against {old.shape[1]} before, expected "
            "as many; retrain with the same d"
        )
    if len(old) != len(new):
        raise BadArray(f"align: found {len(old)} and {len(new)} pairs, expected the same pairs")
    is_held = np.arange(len(old)) % 5 == 4 if held_out is None else held_out.astype(bool)
    fitted = ~is_held
    if int(fitted.sum()) < old.shape[1] or not is_held.any():
        raise BadArray(
            f"align: found {int(fitted.sum())} shared pairs to fit and {int(is_held.sum())} to "
            f"check, expected at least {old.shape[1]} and 1"
        )
    if method == "least_squares":
        to_features = np.linalg.lstsq(new[fitted], old[fitted], rcond=None)[0].T
    elif method == "procrustes":
        left, size, right = np.linalg.svd(old[fitted].T @ new[fitted])
        to_features = left @ right * (size.sum() / max(float(np.sum(new[fitted] ** 2)), 1e-300))
    else:
        raise BadSetting(f"align: found method '{method}', expected least_squares or procrustes")
    if np.linalg.cond(to_features) > 1.0 / _RANK:
        raise BadArray(
            "align: found a retrain without one of the previous base rewards, expected all of "
            "them; retrain with more data, or start a new basis"
        )
    change = BasisChange(np.linalg.inv(to_features), to_features)
    before, after = stored @ old[is_held].T, stored @ change.features(new[is_held]).T
    size_before = float(np.linalg.norm(before))
    error = float(np.linalg.norm(before - after)) / max(size_before, np.finfo(float).tiny)
    return Alignment(change.model(model), change, error, ranking_change(before, after))


def ranking_change(before: Floats, after: Floats) -> RankingChange:
    """Compare two sets of margins (U, M) of the same users and held-out pairs.

    Raises:
        BadArray: Shapes disagree or are empty.
    """
    if before.shape != after.shape or before.ndim != 2 or before.size == 0:
        raise BadArray(
            f"ranking: found margins {before.shape} and {after.shape}, expected one (U, M)"
        )
    flipped = np.sign(before) != np.sign(after)
    taus = [float(kendalltau(a, b).statistic) for a, b in zip(before, after, strict=True)]
    is_ranked = ~np.isnan(taus)
    order = float(np.mean(np.array(taus)[is_ranked])) if is_ranked.any() else float("nan")
    return RankingChange(float(flipped.any(axis=1).mean()), float(flipped.mean()), order)


def _sign(column: Floats) -> float:
    """The sign that makes a whitened column's mean positive; for a zero mean, its skewness."""
    for moment in (column.mean(), np.mean(column**3)):
        if abs(moment) > 1e-6:
            return 1.0 if moment > 0.0 else -1.0
    return 1.0 if column[np.abs(column).argmax()] >= 0.0 else -1.0
