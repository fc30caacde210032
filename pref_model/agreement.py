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


def share(count: int, total: int, level: float = 0.95) -> Share:
    """``count / total`` with the Clopper-Pearson interval.

    Args:
        count: Successes, 0 to ``total``.
        total: Trials.
        level: Coverage, e.g. 0.95.
    """
    if total == 0:
        return Share(np.nan, np.nan, np.nan)
    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(stats.beta.ppf(1.0 - tail, count + 1, total - count))
    return Share(count / total, low, high)


def audit_orders(
    first_won_ab: NDArray[np.bool_], first_won_ba: NDArray[np.bool_], level: float = 0.95
) -> OrderAudit:
    """Consistency and position bias from cells judged in both orders.

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
        first_won_ab: (n,) bool, the first position won when A was shown first.
        first_won_ba: (n,) bool, the same cells when B was shown first.
        level: Coverage of both intervals.
    """
    n = len(first_won_ab)
    both_first = int(np.sum(first_won_ab & first_won_ba))
    both_second = int(np.sum(~first_won_ab & ~first_won_ba))
    per_cell = (first_won_ab.astype(float) + first_won_ba.astype(float)) / 2.0
    discordant = share(both_first, both_first + both_second, level)
    with np.errstate(divide="ignore"):
        bias = Share(*(0.5 * float(_logit(p)) for p in discordant))
    return OrderAudit(n, n - both_first - both_second, _mean_share(per_cell, level), bias)


def _mean_share(values: NDArray[np.float64], level: float) -> Share:
    if len(values) == 0:
        return Share(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    half = float(stats.norm.ppf(0.5 + level / 2.0)) * spread
    return Share(mean, max(0.0, mean - half), min(1.0, mean + half))


def _logit(p: float) -> np.float64:
    return np.float64(np.log(np.float64(p)) - np.log1p(-np.float64(p)))
