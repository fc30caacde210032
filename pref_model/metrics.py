"""AUC and win rate per user, and intervals that resample users; it fits nothing."""

import numpy as np
from scipy.stats import rankdata

from pref_model.errors import BadArray, BadSetting
from pref_model.types import Floats, Interval, Ints


def auc_per_user(scores: Floats, labels: Floats) -> Floats:
    """Return each user's area under the ROC curve over pairs (METHOD section 2).

    AUC = (sum of ranks of preferred-first pairs - n1 (n1 + 1) / 2) / (n1 n0), the
    Mann-Whitney statistic; equal scores get midranks and so count half.

    Args:
        scores: (U, M) margins for "first is preferred"; any monotone scale.
        labels: (U, M) in [0, 1]: above 1/2 first preferred, below 1/2 second, 1/2 a tie (left
            out), nan not observed (left out).

    Returns:
        (U,) float64 in [0, 1]; nan where the user has only one class.

    Raises:
        BadArray: Shapes disagree, or a used score is nan.

    Edge cases: with balanced random orientation 1/2 is chance. Oracle: sklearn roc_auc_score.
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise BadArray(
            f"auc: found scores {scores.shape} and labels {labels.shape}, expected one (U, M)"
        )
    is_used = ~np.isnan(labels) & (labels != 0.5)
    if np.any(np.isnan(scores[is_used])):
        raise BadArray("auc: found a nan score for an observed pair, expected a number")
    result = np.full(len(scores), np.nan)
    for user in range(len(scores)):
        used = is_used[user]
        is_first = labels[user, used] > 0.5
        n_first = int(is_first.sum())
        n_second = is_first.size - n_first
        if n_first and n_second:
            ranks = rankdata(scores[user, used])
            surplus = float(ranks[is_first].sum()) - n_first * (n_first + 1) / 2.0
            result[user] = surplus / (n_first * n_second)
    return result


def mean_by_user(user: Ints, value: Floats, n_users: int) -> Floats:
    """Return each user's mean of `value` (a win 1, a tie 1/2, a loss 0): (U,), nan if none.

    Averaging within a user first gives every user the same say, however many prompts were
    judged.
    """
    if user.shape != value.shape or user.ndim != 1:
        raise BadArray(f"mean_by_user: found {user.shape} and {value.shape}, expected one (N,)")
    is_used = ~np.isnan(value)
    count = np.bincount(user[is_used], minlength=n_users)
    total = np.bincount(user[is_used], weights=value[is_used], minlength=n_users)
    result = np.full(n_users, np.nan)
    np.divide(total, count, out=result, where=count > 0)
    return result


def cluster_bootstrap_mean(
    values: Floats, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over users with a percentile interval from resampling users (METHOD section 7).

    Users are the clusters: pairs of one user share the user's weights, so resampling pairs
    would make the interval too narrow. For the paired comparison of two methods pass the
    per-user differences.

    Args:
        values: (U,) one value a user; nan users (undefined AUC) are left out.
        draws: Resamples, at least 1,000 for a figure that is published.
        level: Coverage in (0, 1).
        seed: Seed of the resampling.

    Returns:
        `Interval`; all nan with n = 0 when no user has a value, low = high = mean for one.

    Raises:
        BadSetting: level or draws out of range.
    """
    if not 0.0 < level < 1.0 or draws < 1:
        raise BadSetting(
            f"bootstrap: found level={level} and draws={draws}, expected 0 < level < 1, draws >= 1"
        )
    kept = np.sort(values[~np.isnan(values)])  # sorted: the order of users changes nothing
    if kept.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng([seed, kept.size])
    means = np.empty(draws)
    for low in range(0, draws, 256):
        size = min(256, draws - low)
        means[low : low + size] = kept[rng.integers(0, kept.size, (size, kept.size))].mean(axis=1)
    tail = (1.0 - level) / 2.0
    low_q, high_q = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(kept.mean()), float(low_q), float(high_q), int(kept.size))


def pair_accuracy(margins: Floats, labels: Floats) -> Floats:
    """Whether each pair is ranked as its user did: 1, 0, or 1/2 for a margin of zero.

    Args:
        margins: (N,) for "first is preferred"; only the sign counts.
        labels: (N,) in [0, 1]; 1/2 is a tie.

    Returns:
        (N,) float64; nan for ties, which no ranking can get right or wrong.

    Raises:
        BadArray: Shapes disagree, or a margin is nan.
    """
    if margins.shape != labels.shape or margins.ndim != 1 or np.any(np.isnan(margins)):
        raise BadArray(
            f"accuracy: found margins {margins.shape} and labels {labels.shape}, expected one (N,)"
            " without nan"
        )
    right = np.where(margins == 0.0, 0.5, ((margins > 0.0) == (labels > 0.5)).astype(np.float64))
    return np.where(labels == 0.5, np.nan, right)


def cluster_bootstrap_pooled(
    user: Ints, values: Floats, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over all observations, with a percentile interval from resampling users.

    Where users have a test pair or two each, a mean of users' means gives a user with one pair
    the say of a user with ten; here every pair counts the same, and pairs of one user still
    stand or fall together: a draw takes users with replacement and divides the sum of their
    values by the number of them.

    Args:
        user: (N,) int64 >= 0, whose observation it is.
        values: (N,) for example `pair_accuracy`, or differences of two methods; nan left out.
        draws: Resamples, at least 1,000 for a figure that is published.
        level: Coverage in (0, 1).
        seed: Seed of the resampling.

    Returns:
        `Interval` with n = number of users; all nan with n = 0 where nothing was observed.

    Raises:
        BadArray: Shapes disagree.
        BadSetting: level or draws out of range.

    Oracle: with one observation a user it is `cluster_bootstrap_mean`.
    """
    if user.shape != values.shape or user.ndim != 1:
        raise BadArray(f"bootstrap: found {user.shape} and {values.shape}, expected one (N,)")
    if not 0.0 < level < 1.0 or draws < 1:
        raise BadSetting(
            f"bootstrap: found level={level} and draws={draws}, expected 0 < level < 1, draws >= 1"
        )
    kept = ~np.isnan(values)
    users, place = np.unique(user[kept], return_inverse=True)
    if users.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    count = np.bincount(place).astype(np.float64)
    total = np.bincount(place, weights=values[kept])
    order = np.lexsort((count, total))  # sorted: the order of users changes nothing
    count, total = count[order], total[order]
    rng = np.random.default_rng([seed, users.size])
    means = np.empty(draws)
    for low in range(0, draws, 256):
        size = min(256, draws - low)
        drawn = rng.integers(0, users.size, (size, users.size))
        means[low : low + size] = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    tail = (1.0 - level) / 2.0
    low_q, high_q = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(total.sum() / count.sum()), float(low_q), float(high_q), int(users.size))
