"""Win rates with intervals for users and their prompts, and how many users a width takes.

It judges nothing: a win is 1, a tie 1/2, a loss 0, and what could not be read is nan.
"""

import math

import numpy as np

from pref_model.errors import BadArray, BadSetting
from pref_model.types import Floats, Interval, Ints

# Cells resampled at once; a bound on memory, not on anything that is computed.
_CELLS_AT_ONCE = 4_000_000


def nested_bootstrap_mean(
    user: Ints, value: Floats, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over users of each user's mean, resampling users, then prompts within users.

    METHOD section 7. Every user has the same say, however many prompts were judged. A draw takes
    U users with replacement and, for each of them anew, as many of its values as it has. To
    compare two methods, pass the differences of the cells that both have.

    The two levels make the interval a little wider than users alone would: the spread of users'
    means holds the chance of their prompts already. It errs on the side of caution; with one
    value a user, or with equal values within users, it is the plain bootstrap over users.

    Args:
        user: (N,) int64 >= 0, whose value it is.
        value: (N,) for example 1, 1/2 or 0; nan is left out.
        draws: Resamples, at least 1,000 for a figure that is published.
        level: Coverage in (0, 1).
        seed: Seed of the resampling.

    Returns:
        `Interval` with n = number of users; all nan with n = 0 where nothing was observed.

    Raises:
        BadArray: Shapes disagree.
        BadSetting: level or draws out of range.

    Oracle: a loop over draws, users and cells.
    """
    if user.shape != value.shape or user.ndim != 1:
        raise BadArray(f"win rate: found {user.shape} and {value.shape}, expected one (N,)")
    if not 0.0 < level < 1.0 or draws < 1:
        raise BadSetting(
            f"bootstrap: found level={level} and draws={draws}, expected 0 < level < 1, draws >= 1"
        )
    kept = ~np.isnan(value)
    order = np.lexsort((value[kept], user[kept]))
    values = value[kept][order]
    _, start, count = np.unique(user[kept][order], return_index=True, return_counts=True)
    n_users = len(count)
    if n_users == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng([seed, n_users, len(values)])
    means = np.empty(draws)
    step = max(1, _CELLS_AT_ONCE // len(values))
    for low in range(0, draws, step):
        size = min(step, draws - low)
        drawn = rng.integers(0, n_users, size * n_users)
        sizes = count[drawn]
        ends = np.cumsum(sizes)
        within = (rng.random(ends[-1]) * np.repeat(sizes, sizes)).astype(np.int64)
        picked = values[np.repeat(start[drawn], sizes) + within]
        by_user = np.add.reduceat(picked, ends - sizes) / sizes
        means[low : low + size] = by_user.reshape(size, n_users).mean(axis=1)
    tail = (1.0 - level) / 2.0
    low_q, high_q = np.quantile(means, [tail, 1.0 - tail])
    mean = float((np.add.reduceat(values, start) / count).mean())
    return Interval(mean, float(low_q), float(high_q), n_users)


def users_for_half_width(found: Interval, half_width: float) -> int | None:
    """Users that an interval of that half-width takes, everything else as it was.

    Users are independent, so the width falls with 1 / sqrt(U): U' = U (w / half_width)^2 with w
    half the width of the interval found, rounded up.

    Args:
        found: An interval over users.
        half_width: The wanted half-width, in the interval's own unit; 0.05 is 5 points.

    Returns:
        A number of users; None where fewer than two users, or no spread, say nothing.

    Raises:
        BadSetting: half_width is not positive.
    """
    if not half_width > 0.0:
        raise BadSetting(f"power: found half_width={half_width}, expected a positive number")
    now = (found.high - found.low) / 2.0
    if found.n < 2 or not now > 0.0:
        return None
    return math.ceil(found.n * (now / half_width) ** 2)
