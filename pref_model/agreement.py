"""What a judge's two orders say about the judge: consistency, position bias. It reads no text."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Share(NamedTuple):
    """A share with its exact (Clopper-Pearson) interval; nan where nothing was counted."""

    share: float
    low: float
    high: float


class OrderAudit(NamedTuple):
    """Counts over cells asked in both orders with two valid verdicts, and the estimates.

    ``first_share`` is the share of valid verdicts, of such cells, won by the response shown first.
    ``position_bias_logit`` is b in P(first wins) = s(margin + b).
    """

    n_complete: int
    n_consistent: int
    first_share: Share
    position_bias_logit: Share


class Shares(NamedTuple):
    """`Share` of many slices at once: three (S,) float64, nan where nothing was counted."""

    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class OrderAudits(NamedTuple):
    """`OrderAudit` of many slices at once; every entry, and every part of a `Shares`, is (S,)."""

    n_complete: NDArray[np.int64]
    n_consistent: NDArray[np.int64]
    first_share: Shares
    position_bias_logit: Shares


def share(count: int, total: int, level: float = 0.95) -> Share:
    """``count / total`` with the Clopper-Pearson interval.

    Args:
        count: Successes, 0 to ``total``.
        total: Trials.
        level: Coverage, e.g. 0.95.
    """
    return _only(shares(np.array([count]), np.array([total]), level))


def shares(counts: NDArray[np.int64], totals: NDArray[np.int64], level: float = 0.95) -> Shares:
    """`share` of many slices at once: ``counts`` of ``totals``, both (S,)."""
    tail = (1.0 - level) / 2.0
    failures = totals - counts
    # At the ends a parameter is 0, where the quantile is not defined and the bound is known.
    low = stats.beta.ppf(tail, np.maximum(counts, 1), failures + 1)
    high = stats.beta.ppf(1.0 - tail, counts + 1, np.maximum(failures, 1))
    nothing = totals == 0
    values = (
        counts / np.maximum(totals, 1),
        np.where(counts == 0, 0.0, low),
        np.where(failures == 0, 1.0, high),
    )
    return Shares(*(np.where(nothing, np.nan, one) for one in values))


def audit_orders(
    first_won_ab: NDArray[np.bool_], first_won_ba: NDArray[np.bool_], level: float = 0.95
) -> OrderAudit:
    """Consistency and position bias from cells judged in both orders; see `audit_counts`.

    Args:
        first_won_ab: (n,) bool, the first position won when A was shown first.
        first_won_ba: (n,) bool, the same cells when B was shown first.
        level: Coverage of both intervals.
    """
    found = audit_counts(
        np.array([len(first_won_ab)]),
        np.array([np.sum(first_won_ab & first_won_ba)]),
        np.array([np.sum(~first_won_ab & ~first_won_ba)]),
        level,
    )
    return OrderAudit(
        int(found.n_complete[0]),
        int(found.n_consistent[0]),
        _only(found.first_share),
        _only(found.position_bias_logit),
    )


def audit_counts(
    n_complete: NDArray[np.int64],
    both_first: NDArray[np.int64],
    both_second: NDArray[np.int64],
    level: float = 0.95,
) -> OrderAudits:
    """Consistency and position bias of many slices, each from three counts of its cells.

    With margin m for A and position bias b, P(first wins) is s(m + b) in order ab and s(−m + b)
    in order ba. A judge that names the first position both times does so with probability
    s(m + b) s(−m + b), the second both times with s(−m − b) s(m − b). Since s(x)/s(−x) = exp(x),
    the ratio of the two is exp(2b) whatever m is. So among the inconsistent cells the first
    position's share is s(2b), a plain binomial: b = ½ logit(share), and the exact binomial
    interval carries over. No model of the margins is needed. (The same conditioning as in
    McNemar's test; derived here.)

    The interval of ``first_share`` treats cells as independent and the two verdicts of a cell as
    one observation: first positions won in a cell are 0, 1 or 2.

    Args:
        n_complete: (S,) cells with a verdict in both orders.
        both_first: (S,) of them, cells whose first position won both times.
        both_second: (S,) likewise the second.
        level: Coverage of both intervals.
    """
    discordant = shares(both_first, both_first + both_second, level)
    with np.errstate(divide="ignore"):
        bias = Shares(*(0.5 * _logit(one) for one in discordant))
    consistent = n_complete - both_first - both_second
    return OrderAudits(
        n_complete, consistent, _first_shares(n_complete, both_first, both_second, level), bias
    )


def _first_shares(
    n: NDArray[np.int64],
    ones: NDArray[np.int64],
    zeros: NDArray[np.int64],
    level: float,
) -> Shares:
    """Mean and normal interval of values that are 1, 0 and otherwise one half."""
    some = np.maximum(n, 1)
    mean = 0.5 + 0.5 * (ones - zeros) / some
    # Σ (x − mean)² over values of ½ ± ½ or 0, from the counts.
    squares = 0.25 * (ones + zeros) - n * (mean - 0.5) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.maximum(squares, 0.0) / (n - 1)) / np.sqrt(some)
    half = float(stats.norm.ppf(0.5 + level / 2.0)) * np.where(n > 1, spread, np.nan)
    values = (mean, np.maximum(0.0, mean - half), np.minimum(1.0, mean + half))
    return Shares(*(np.where(n == 0, np.nan, one) for one in values))


def _only(found: Shares) -> Share:
    return Share(*(float(one[0]) for one in found))


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(p) - np.log1p(-p))


def cohen_kappa(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Agreement of two raters beyond chance: (p_o − p_e) / (1 − p_e) (Cohen 1960).

    Args:
        first: (n,) codes of one rater's choices.
        second: (n,) the other's on the same items.

    Returns:
        κ; nan where nothing was rated or both always say the same one thing.
    """
    if len(first) == 0:
        return float("nan")
    codes = np.union1d(first, second)
    observed = float(np.mean(first == second))
    expected = float(sum(np.mean(first == one) * np.mean(second == one) for one in codes))
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else float("nan")


def krippendorff_alpha(ratings: NDArray[np.float64]) -> float:
    """Nominal α = 1 − D_o / D_e over units with two ratings or more (Krippendorff 2004).

    With n_c ratings of value c in all pairable units, n of them together, D_e is the chance that
    two of them differ, 1 − Σ n_c (n_c − 1) / (n (n − 1)); D_o is the share of differing pairs
    within units, a unit with m ratings weighing as m of them.

    Args:
        ratings: (raters, units) codes, nan where a rater says nothing.

    Returns:
        α; nan where no unit has two ratings, or all ratings are equal.
    """
    known = ~np.isnan(ratings)
    per_unit = known.sum(axis=0)
    pairable = per_unit > 1
    values = np.unique(ratings[:, pairable][known[:, pairable]])
    counts = np.array([(ratings[:, pairable] == one).sum(axis=0) for one in values])
    total = per_unit[pairable]
    n = float(total.sum())
    if n == 0.0:
        return float("nan")
    by_value = counts.sum(axis=1)
    expected = 1.0 - float((by_value * (by_value - 1)).sum()) / (n * (n - 1.0))
    alike = (counts * (counts - 1)).sum(axis=0) / (total - 1)
    observed = 1.0 - float(alike.sum()) / n
    return 1.0 - observed / expected if expected > 0.0 else float("nan")
