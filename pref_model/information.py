"""What an answer would tell about a user: mutual information of a logit with Gaussian error.

It scores numbers; which pairs they belong to is `questions`' business.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter
from scipy.special import expit, ndtr, xlogy

from pref_model.likelihood import curvature
from pref_model.types import Floats

_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
# Beyond 30 logits an answer carries less than 1e-11 nats.
_LOGIT_STEP = 0.5
_LOGITS = np.arange(-30.0, 30.0 + _LOGIT_STEP, _LOGIT_STEP)
# E s(g) is nearly s(f / sqrt(1 + c q)): in that coordinate the table is smooth at any width.
_PROBIT = np.pi / 8.0
_LARGEST = 20.0
_STEPS = (300, 192)
# Cells beyond each edge, so that the spline's end conditions, which decay by 0.27 a cell, are far.
_MARGIN = 14


def mutual_information(margin: Floats, variance: Floats) -> Floats:
    """Return BALD's h(E s(g)) - E h(s(g)) for g ~ N(margin, variance), in nats, from a table.

    A cubic spline holds the value over v^2 on a grid of u = |f| / sqrt(1 + pi q / 8) on [0, 20]
    and v = (2 / pi) arctan sqrt(q) on [0, 1]; beyond u = 20, where less than 1e-7 nats are left,
    the value falls as exp(-u), which keeps the order. Made once a process, in a quarter second.

    Args:
        margin: (...) f, logits.
        variance: (...) q >= 0, squared logits; the shape of `margin`.

    Returns:
        (...) in [0, log 2].

    Numerics: within 2e-8 nats of `mutual_information_exact` everywhere; near a known logit, where
    the value goes as v^2, relatively within 1e-5. The value is even in f and in v, and past v = 1
    (an infinite width) both entropies go on as analytic functions of 1 / sqrt(q), which is how
    the table gets values beyond its edges.
    Oracle: `mutual_information_exact`, and `reference.question_score` by adaptive quadrature.
    """
    coefficients = _coefficients()
    u = np.abs(margin) / np.sqrt(1.0 + _PROBIT * variance)
    v = (2.0 / np.pi) * np.arctan(np.sqrt(variance))
    place = np.empty((2, *u.shape))
    np.multiply(u, _STEPS[0] / _LARGEST, out=place[0])
    np.minimum(place[0], _STEPS[0], out=place[0])
    np.multiply(v, _STEPS[1], out=place[1])
    place += _MARGIN
    gain: Floats = map_coordinates(coefficients, place, order=3, prefilter=False)
    gain *= v**2
    is_beyond = u > _LARGEST
    if np.any(is_beyond):
        gain[is_beyond] *= np.exp(_LARGEST - u[is_beyond])
    return np.clip(gain, 0.0, np.log(2.0), out=gain)


@lru_cache(maxsize=1)
def _coefficients() -> Floats:
    """Spline coefficients of the table, its margins included."""
    steps = [np.arange(-_MARGIN, n + _MARGIN + 1) for n in _STEPS]
    u = np.abs(steps[0] * (_LARGEST / _STEPS[0]))
    v = np.abs(steps[1] / _STEPS[1])
    is_known = v == 0.0
    narrowness = 1.0 / np.tan(0.5 * np.pi * np.where(is_known, 1.0, v))  # 1 / sqrt(q)
    deviation = 1.0 / np.maximum(np.abs(narrowness), 1e-9)
    margin = u[:, None] * np.sqrt(1.0 + _PROBIT * deviation**2)
    total, noise = _entropies(margin, np.broadcast_to(deviation, margin.shape))
    # E h(s(g)) is odd in 1 / sqrt(q), h(E s(g)) even.
    ratio = (total - np.where(narrowness < 0.0, -noise, noise)) / np.where(is_known, 1.0, v) ** 2
    # Near a known logit the value is q s'(f) / 2.
    ratio[:, is_known] = 0.125 * np.pi**2 * curvature(u)[:, None]
    coefficients: Floats = spline_filter(ratio, order=3, mode="mirror")
    coefficients.flags.writeable = False
    return coefficients


def mutual_information_exact(margin: Floats, variance: Floats) -> Floats:
    """Return the same by quadrature to about 1e-10 nats; 100 times slower. Shapes (...)."""
    total, noise = _entropies(margin, np.sqrt(variance))
    return np.maximum(total - noise, 0.0)


def _entropies(margin: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Return h(E s(g)) and E h(s(g)), g ~ N(margin, deviation^2), in nats."""
    total, noise = np.empty_like(margin), np.empty_like(margin)
    is_narrow = deviation <= 1.0
    for part, expectations in ((is_narrow, _narrow), (~is_narrow, _wide)):
        if np.any(part):
            first, second, noise[part] = expectations(margin[part], deviation[part])
            total[part] = -_xlogx(first) - _xlogx(second)
    return total, noise


def _narrow(margin: Floats, deviation: Floats) -> tuple[Floats, Floats, Floats]:
    """E s(g), E s(-g), E h(s(g)) for g ~ N(margin, deviation^2), by Gauss-Hermite."""
    first, noise = np.zeros_like(margin), np.zeros_like(margin)
    for node, weight in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
        logit = margin + node * deviation
        first += weight * expit(logit)
        noise += weight * _entropy(logit)
    return first, 1.0 - first, noise


def _wide(margin: Floats, deviation: Floats) -> tuple[Floats, Floats, Floats]:
    """The same where the Gaussian is wider than the logistic's bend.

    Gauss-Hermite nodes then step over the bend. The trapezoidal rule on the logit itself is
    exact to rounding for both integrals (their integrands are analytic in a strip of width pi);
    E s(g) = integral of s'(t) P(g > t) dt.
    """
    first, second, noise = (np.zeros_like(margin) for _ in range(3))
    for node in _LOGITS:
        z = (margin - node) / deviation
        bend = _LOGIT_STEP * float(curvature(np.asarray(node)))
        first += bend * ndtr(z)
        second += bend * ndtr(-z)
        density = np.exp(-0.5 * z**2) / (deviation * np.sqrt(2.0 * np.pi))
        noise += _LOGIT_STEP * float(_entropy(np.asarray(node))) * density
    return first, second, noise


def _entropy(logit: Floats) -> Floats:
    """Return h(s(x)) in nats: log(1 + e^-|x|) + |x| e^-|x| / (1 + e^-|x|)."""
    size = np.abs(logit)
    tail = np.exp(-size)
    entropy: Floats = np.log1p(tail) + size * tail / (1.0 + tail)
    return entropy


def _xlogx(p: Floats) -> Floats:
    result: Floats = xlogy(p, p)
    return result
