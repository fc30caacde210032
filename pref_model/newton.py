"""Batched Newton steps for many small penalized logistic regressions (eq 6, eq 8) at once.

It works in coordinates in which the prior is N(0, I); priors and bases are `adapt`'s business.
"""

from typing import NamedTuple

import numpy as np

from pref_model.likelihood import log_likelihood
from pref_model.types import Bools, Floats

# The gradient is compared with the rounding of the sums it is made of.
_ROUNDING = 64.0 * np.finfo(float).eps
# With a step that moves no margin by more than this, the full Newton step surely rises.
_SAFE_MOVE = 1.5
_HALVINGS = 40


class Answered(NamedTuple):
    """The answers of a block of users, whitened: margin = offset + features @ z.

    Attributes:
        features: (U, K, d) pair features times the prior's root; rows of absent answers are 0.
        offset: (U, K) margins at the prior's mean, logits.
        labels: (U, K) in [0, 1].
        weights: (U, K) >= 0; 0 marks an absent answer.
    """

    features: Floats
    offset: Floats
    labels: Floats
    weights: Floats

    def of(self, rows: Bools) -> "Answered":
        """Return the same for some of the users."""
        return Answered(*(part[rows] for part in self))


def maximize(
    answered: Answered, guess: Floats, tolerance: float, max_iterations: int
) -> tuple[Floats, Floats, int]:
    """Maximize sum_k w_k log p(A_k | f_k) - |z|^2 / 2 over z for every user of a block.

    Args:
        answered: The block.
        guess: (U, d) first guess of z.
        tolerance: Largest entry of the gradient left.
        max_iterations: Newton steps at most.

    Returns:
        z (U, d); the negative Hessian there (U, d, d), I + sum_k w_k s'(f_k) phi_k phi_k^T; the
        number of Newton steps of the slowest user.

    Numerics: along a step of largest margin move r the second derivative changes by at most a
    factor exp(r t) (|s''| <= s'), so with decrement D the full step changes the objective by at
    least D (1 - (e^r - 1 - r) / r^2), positive for r <= 1.79. Only users beyond `_SAFE_MOVE`
    are line-searched, which spares nearly every logarithm. Users that have converged leave the
    block once they are a quarter of it. Oracle: `reference.adapt_user`.
    """
    z = guess.copy()
    place = np.arange(len(z))
    here, now = answered, guess.copy()
    n_steps = 0
    hessian = np.empty((*z.shape, z.shape[1]))
    for step_number in range(max_iterations + 1):
        margin = _margin(here, now)
        pull, bend = _pull_and_bend(here, margin)
        gradient = np.matmul(pull[:, None, :], here.features)[:, 0, :] - now
        curved = np.matmul((here.features * bend[:, :, None]).transpose(0, 2, 1), here.features)
        diagonal = np.einsum("uii->ui", curved)
        diagonal += 1.0
        is_open = _is_open(here, now, pull, gradient, tolerance)
        if step_number == max_iterations:
            is_open[:] = False
        n_open = int(is_open.sum())
        if n_open <= 0.75 * len(now):
            done = ~is_open
            z[place[done]], hessian[place[done]] = now[done], curved[done]
            if n_open == 0:
                break
            place, here, now, margin = (
                place[is_open],
                here.of(is_open),
                now[is_open],
                margin[is_open],
            )
            gradient, curved = gradient[is_open], curved[is_open]
            is_open = np.ones(n_open, dtype=bool)
        n_steps += 1
        step = np.linalg.solve(curved, gradient[:, :, None])[:, :, 0]
        step[~is_open] = 0.0
        along = np.matmul(here.features, step[:, :, None])[:, :, 0]
        is_far = np.abs(along).max(axis=1, initial=0.0) > _SAFE_MOVE
        if np.any(is_far):
            length = _backtrack(
                here.of(is_far),
                margin[is_far],
                along[is_far],
                now[is_far],
                step[is_far],
                gradient[is_far],
            )
            step[is_far] *= length[:, None]
        now = now + step
    return z, hessian, n_steps


def _margin(here: Answered, z: Floats) -> Floats:
    moved: Floats = np.matmul(here.features, z[:, :, None])[:, :, 0]
    moved += here.offset
    return moved


def _pull_and_bend(here: Answered, margin: Floats) -> tuple[Floats, Floats]:
    """Return w (A - s(f)) and w s'(f) from one exponential, exact at any finite margin.

    With e = exp(-|f|): s(|f|) = 1 / (1 + e), s(-|f|) = e / (1 + e), and neither is rounded to
    one where its complement still counts.
    """
    tail = np.exp(-np.abs(margin))
    high = 1.0 / (1.0 + tail)
    low = tail * high
    is_positive = margin >= 0.0
    first, second = np.where(is_positive, high, low), np.where(is_positive, low, high)
    pull: Floats = here.labels * second - (1.0 - here.labels) * first
    return here.weights * pull, here.weights * (high * low)


def _is_open(here: Answered, z: Floats, pull: Floats, gradient: Floats, tolerance: float) -> Bools:
    """Whose gradient is above both the tolerance and the rounding of its own terms."""
    largest = np.abs(gradient)
    is_open: Bools = np.any(largest > tolerance, axis=1)
    if np.any(is_open):
        rows = np.flatnonzero(is_open)
        size = np.matmul(np.abs(pull[rows])[:, None, :], np.abs(here.features[rows]))[:, 0, :]
        size += np.abs(z[rows])
        is_open[rows] = np.any(largest[rows] > np.maximum(tolerance, _ROUNDING * size), axis=1)
    return is_open


def _backtrack(
    here: Answered, margin: Floats, along: Floats, z: Floats, step: Floats, gradient: Floats
) -> Floats:
    """Halve each user's step until the log posterior rises enough (Armijo); returns (U,)."""
    slope = np.sum(gradient * step, axis=1)
    value = np.sum(here.weights * log_likelihood(margin, here.labels), axis=1)
    value -= 0.5 * np.sum(z**2, axis=1)
    length = np.ones(len(z))
    slack = _ROUNDING * np.abs(value)  # the last steps change less than the sum can show
    for _ in range(_HALVINGS):
        moved = z + length[:, None] * step
        new = np.sum(
            here.weights * log_likelihood(margin + length[:, None] * along, here.labels), axis=1
        )
        new -= 0.5 * np.sum(moved**2, axis=1)
        short = new < value + 1e-4 * length * slope - slack
        if not np.any(short):
            break
        length[short] *= 0.5
    return length
