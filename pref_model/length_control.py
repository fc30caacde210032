"""Length-controlled win rate: what the win rate would be were both responses of one length.

It measures no lengths and judges nothing. Length is often the preference itself, so this stands
beside the raw win rate and never in its place.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from pref_model.errors import BadArray, BadSetting, FitFailed
from pref_model.likelihood import curvature, log_likelihood, margin_gradient
from pref_model.types import Floats, Interval, Ints

# Precision of the zero-mean priors that keep separable data finite, in observations: a hundredth
# of one on the effects of length and difficulty, none on the intercept.
_RIDGE = 0.01
# Difficulties of prompts are random effects of this precision in the joint fit.
_DIFFICULTY_RIDGE = 1.0
_MOST_STEPS = 100
# Of the Newton decrement, nats a comparison; far below what rounding does to the likelihood.
_TOLERANCE = 1e-20
_SLACK = 1e-12


class Comparisons(NamedTuple):
    """One method's judged comparisons with the base response.

    Attributes:
        user: (N,) int64, row of the user.
        prompt: (N,) int64, row of the prompt, numbered alike for all methods.
        value: (N,) 1 a win, 1/2 a tie, 0 a loss; nan is left out.
        length_gap: (N,) length of the personalized response less that of the base, in any unit.
    """

    user: Ints
    prompt: Ints
    value: Floats
    length_gap: Floats


class LengthControlled(NamedTuple):
    """A method's length-controlled win rate.

    Attributes:
        rate: The win rate at equal lengths, with its interval over users.
        length_logit: phi, what one unit of tanh(gap / sd) adds to the logit of a win.
        mean_gap: Mean length gap in the comparisons' unit, every user with the same say.
    """

    rate: Interval
    length_logit: float
    mean_gap: float


class _Fit(NamedTuple):
    weights: Floats
    gradient_rows: Floats


def length_controlled(
    methods: dict[str, Comparisons],
    n_prompts: int,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, LengthControlled]:
    """Win rates predicted at zero length gap (METHOD section 7, arXiv 2404.04475).

    For comparison i of method m, of prompt x and with length gap g_i (its standard deviation over
    the method's comparisons sd_m):

        logit P(win_i) = theta_m + phi_m tanh(g_i / sd_m) + psi_m gamma_x
        rate_m = mean over users of their mean over prompts of s(theta_m + psi_m gamma_x)

    gamma_x, the difficulty of the prompt, is fitted once for all methods together with psi = 1
    and gamma ~ N(0, 1), then held; theta, phi, psi follow method by method. Every user has the
    same say, and a tie counts as half a win and half a loss. Departures from the source: users
    weigh alike, since here they differ in how many prompts they judged; the priors above take the
    place of cross-validated ridge.

    Where all gaps are zero the rate is the raw win rate, by the normal equation of theta.

    Args:
        methods: Comparisons by method.
        n_prompts: Number of prompts that rows count into.
        draws: Resamples of users. A draw moves the weights by one Newton step from the fit, the
            one-step bootstrap, rather than fitting anew.
        level: Coverage in (0, 1).
        seed: Seed of the resampling.

    Returns:
        By method. The rate is the raw one where every comparison has the same outcome, since
        nothing is left for length to explain (length_logit is then nan); it is nan where there is
        no comparison, or all gaps are the same and not zero, so that length cannot be told apart.

    Raises:
        BadArray: Shapes disagree, or a gap is not finite.
        BadSetting: level or draws out of range.
        FitFailed: The maximization did not converge.
    """
    if not 0.0 < level < 1.0 or draws < 1:
        raise BadSetting(
            f"bootstrap: found level={level} and draws={draws}, expected 0 < level < 1, draws >= 1"
        )
    kept = {name: _kept(name, one) for name, one in methods.items()}
    usable = {name: one for name, one in kept.items() if len(one.value)}
    difficulty = _difficulties(usable, n_prompts) if usable else np.zeros(n_prompts)
    return {
        name: _controlled(one, difficulty, draws=draws, level=level, seed=seed)
        for name, one in kept.items()
    }


def _kept(name: str, given: Comparisons) -> Comparisons:
    if any(part.shape != given.user.shape or part.ndim != 1 for part in given):
        raise BadArray(
            f"length control: found {', '.join(str(part.shape) for part in given)} for {name},"
            " expected four columns of one length"
        )
    rows = ~np.isnan(given.value)
    kept = Comparisons(
        given.user[rows], given.prompt[rows], given.value[rows], given.length_gap[rows]
    )
    if not np.all(np.isfinite(kept.length_gap)):
        raise BadArray(f"length control: found a length gap of {name} that is no finite number")
    return kept


def _say(user: Ints) -> Floats:
    """Weights that give every user the same say, as many together as there are comparisons."""
    _, row, count = np.unique(user, return_inverse=True, return_counts=True)
    weights: Floats = len(user) / len(count) / count[row]
    return weights


def _squashed(length_gap: Floats) -> Floats:
    spread = float(length_gap.std())
    squashed: Floats = np.tanh(length_gap / spread) if spread > 0.0 else np.sign(length_gap)
    return squashed


def _difficulties(methods: dict[str, Comparisons], n_prompts: int) -> Floats:
    """Gamma of every prompt, from all methods together; 0 for a prompt that nobody judged."""
    n_methods = len(methods)
    design, values, weights = [], [], []
    for number, one in enumerate(methods.values()):
        rows = np.zeros((len(one.value), 2 * n_methods + n_prompts))
        rows[:, number] = 1.0
        rows[:, n_methods + number] = _squashed(one.length_gap)
        rows[np.arange(len(rows)), 2 * n_methods + one.prompt] = 1.0
        design.append(rows)
        values.append(one.value)
        weights.append(_say(one.user))
    ridge = np.full(2 * n_methods + n_prompts, _RIDGE)
    ridge[2 * n_methods :] = _DIFFICULTY_RIDGE
    fit = _fitted(np.concatenate(design), np.concatenate(values), np.concatenate(weights), ridge)
    return fit.weights[2 * n_methods :]


def _controlled(
    one: Comparisons, difficulty: Floats, *, draws: int, level: float, seed: int
) -> LengthControlled:
    nothing = Interval(np.nan, np.nan, np.nan, 0)
    if not len(one.value):
        return LengthControlled(nothing, np.nan, np.nan)
    weights = _say(one.user)
    mean_gap = float(np.average(one.length_gap, weights=weights))
    users, user = np.unique(one.user, return_inverse=True)
    if np.all(one.value == 0.0) or np.all(one.value == 1.0):
        outcome = float(one.value[0])
        same = Interval(outcome, outcome, outcome, len(users))
        return LengthControlled(same, np.nan, mean_gap)
    if np.ptp(one.length_gap) == 0.0 and one.length_gap[0] != 0.0:
        return LengthControlled(nothing, np.nan, mean_gap)
    design = np.stack(
        [np.ones(len(user)), _squashed(one.length_gap), difficulty[one.prompt]], axis=1
    )
    ridge = np.array([0.0, _RIDGE, _RIDGE])
    fit = _fitted(design, one.value, weights, ridge)
    # Rows of a user: its part of the score and of the information, and where it predicts.
    score = np.stack([np.bincount(user, column) for column in fit.gradient_rows.T], axis=1)
    bend = curvature(design @ fit.weights) * weights
    products = np.einsum("n,ni,nj->nij", bend, design, design).reshape(len(user), 9)
    information = np.stack([np.bincount(user, column) for column in products.T], axis=1)
    where = np.zeros((len(users), len(difficulty)))
    np.add.at(where, (user, one.prompt), 1.0)
    where /= where.sum(axis=1, keepdims=True)

    rng = np.random.default_rng([seed, len(users)])
    rates = np.empty(draws)
    for low in range(0, draws, 256):
        size = min(256, draws - low)
        times = rng.multinomial(len(users), np.full(len(users), 1.0 / len(users)), size)
        hessian = (times @ information).reshape(size, 3, 3) + np.diag(ridge)
        step = np.linalg.solve(hessian, (times @ score - ridge * fit.weights)[:, :, None])
        moved = fit.weights + step[:, :, 0]
        predicted = expit(moved[:, :1] + moved[:, 2:] * difficulty) @ where.T
        rates[low : low + size] = (times * predicted).sum(axis=1) / len(users)
    tail = (1.0 - level) / 2.0
    low_q, high_q = np.quantile(rates, [tail, 1.0 - tail])
    here = expit(fit.weights[0] + fit.weights[2] * difficulty) @ where.T
    rate = Interval(float(here.mean()), float(low_q), float(high_q), len(users))
    return LengthControlled(rate, float(fit.weights[1]), mean_gap)


def _fitted(design: Floats, value: Floats, weight: Floats, ridge: Floats) -> _Fit:
    """Maximize sum_i w_i log p(y_i | x_i b) - sum_j r_j b_j^2 / 2 by damped Newton steps."""
    b = np.zeros(design.shape[1])

    def objective(at: Floats) -> float:
        fit = float(weight @ log_likelihood(design @ at, value))
        return fit - 0.5 * float(ridge @ at**2)

    now = objective(b)
    for _ in range(_MOST_STEPS):
        margin = design @ b
        rows = design * (weight * margin_gradient(margin, value))[:, None]
        gradient = rows.sum(axis=0) - ridge * b
        hessian = (design * (weight * curvature(margin))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        # The decrement bounds what is left to gain, in nats of the whole sample.
        if float(gradient @ step) < _TOLERANCE * len(value):
            return _Fit(b, rows)
        size = 1.0
        while (then := objective(b + size * step)) < now - _SLACK * abs(now) and size > _SLACK:
            size /= 2.0
        b, now = b + size * step, then
    raise FitFailed(
        f"length control: {len(value)} comparisons, no convergence in {_MOST_STEPS} Newton steps;"
        " expected a concave likelihood; this is a fault of the program"
    )
