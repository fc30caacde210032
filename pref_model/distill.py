"""Ridge regression from pair differences to the SVD's pair features, with its strength chosen.

It solves one linear problem exactly; it does not iterate and does not see any label.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import svd

from pref_model.errors import BadArray
from pref_model.types import Floats


class Distilled(NamedTuple):
    """A linear head fitted to target pair features.

    Attributes:
        head: (d, D) float64, predicted features = differences @ head.T.
        ridge: The strength that minimized the leave-one-out error.
        loo_error: Mean squared leave-one-out residual at that strength (squared logits).
        loo_r2: 1 - loo error / mean square of the targets; at or below 0 nothing was learnt.
    """

    head: Floats
    ridge: float
    loo_error: float
    loo_r2: float


def distill(
    differences: Floats,
    targets: Floats,
    ridges: Floats | None = None,
    weights: Floats | None = None,
) -> Distilled:
    """Fit min_W sum_m c_m |W x_m - phi_m|^2 + a |W|^2, choosing a by leave-one-out.

    This is the second step of Algorithm 1 ("fit the network so that its pair features match"),
    solved instead of iterated because the encoder is frozen. There is no bias: swapping the two
    responses must negate the features. With X = P S Q^T the hat matrix is
    P S^2/(S^2 + a) P^T and the left-out residual is e_m / (1 - h_mm), so the whole path costs one
    SVD of X, also when M is far below D.

    Args:
        differences: (M, D) standardized pair differences, first - second.
        targets: (M, d) logit units, pair features from `svd.svd_start`.
        ridges: (A,) candidate strengths > 0; by default 49 values over twelve decades around
            the mean squared singular value.
        weights: (M,) > 0, trust in each pair (its number of labels); equal when None.

    Raises:
        BadArray: Shapes disagree, or no strength was offered.

    Numerics: 1 - h_mm is summed as sum_j P_mj^2 a/(S_j^2 + a) + (1 - sum_j P_mj^2), never as a
    difference from one, which cancels for M <= D. Oracle: `reference.leave_one_out_errors`.
    """
    if differences.ndim != 2 or targets.ndim != 2 or len(differences) != len(targets):
        raise BadArray(
            f"distill: found differences {differences.shape} and targets {targets.shape}, "
            "expected (M, D) and (M, d) with the same M"
        )
    root = np.ones(len(targets)) if weights is None else np.sqrt(weights / np.mean(weights))
    # In LAPACK's own layout, in place: two copies fewer of what is largest here.
    left, singular, right = svd(
        np.multiply(differences, root[:, None], order="F"),
        full_matrices=False,
        overwrite_a=True,
        check_finite=False,
    )
    # Directions the differences do not have; left in, they would carry rounding into the head.
    noise = np.finfo(float).eps * max(differences.shape) * singular.max(initial=0.0)
    singular = np.where(singular > noise, singular, 0.0)
    square = singular**2
    if ridges is None:
        ridges = max(float(np.mean(square)), np.finfo(float).tiny) * np.logspace(-6.0, 6.0, 49)
    if ridges.size == 0 or not np.all(ridges > 0.0):
        raise BadArray("distill: found no positive ridge strength, expected at least one")
    weighted = targets * root[:, None]
    projected = left.T @ weighted
    left_square = left**2
    outside = np.maximum(1.0 - np.sum(left_square, axis=1), 0.0)
    residual_outside = weighted - left @ projected
    errors = np.empty(ridges.size)
    for index, ridge in enumerate(ridges):
        kept = ridge / (square + ridge)
        residual = residual_outside + left @ (kept[:, None] * projected)
        leverage_left = left_square @ kept + outside
        # A row of zeros has leverage 0 and residual = target; only 0/0 needs a guard.
        left_out = residual / np.maximum(leverage_left, np.finfo(float).tiny)[:, None]
        errors[index] = np.mean(left_out**2)
    best = int(np.argmin(errors))
    gain = singular / (square + ridges[best])
    head = (right.T @ (gain[:, None] * projected)).T
    scale = float(np.mean(weighted**2))
    return Distilled(
        head=head,
        ridge=float(ridges[best]),
        loo_error=float(errors[best]),
        loo_r2=1.0 - float(errors[best]) / scale if scale > 0.0 else 0.0,
    )
