"""How many base rewards the answers support, by the likelihood of answers held out.

It sees no text and chooses nothing for the caller; `svd.spectrum` is the other view.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from pref_model.errors import BadSetting
from pref_model.likelihood import log_likelihood
from pref_model.svd import svd_start
from pref_model.threads import one_blas_thread
from pref_model.types import Bools, Floats, Ints, Preferences


class RankCurve(NamedTuple):
    """Cross-validated likelihood by number of base rewards.

    Attributes:
        d: (K,) int64, numbers tried, rising.
        mean_log_likelihood: (K,) nats a held-out label, weighted, mean over all labels.
        standard_error: (K,) of the difference to the best number, over users; 0 at the best.
        mean_error: (K,) standard error of the mean itself, over users.
        best: The number with the highest mean.
        chosen: The smallest number within one standard error of the best.
    """

    d: Ints
    mean_log_likelihood: Floats
    standard_error: Floats
    mean_error: Floats
    best: int
    chosen: int


@one_blas_thread()
def rank_curve(
    preferences: Preferences,
    n_users: int,
    n_pairs: int,
    numbers: Sequence[int] = (1, 2, 3, 4, 6, 8, 10, 12),
    *,
    folds: int = 5,
    seed: int = 0,
) -> RankCurve:
    """Hold out each fifth of the cells in turn, factor the rest, and score the held-out labels.

    The score is eq 5's likelihood without its prior, at the margins of `svd_start` for each d,
    times one scale a number d that the other folds' held-out cells choose: with few cells a user,
    margins are too sure of themselves, and a high d would lose by its size instead of its
    directions. What is held out is single cells, so every user and every pair is still seen
    elsewhere. It answers which rank the matrix has, not how well new pairs are predicted from
    their texts.

    Args:
        preferences: Observed cells; a cell's fold follows from (seed, user, pair), so that order
            changes nothing and repeated cells stay together.
        n_users: U.
        n_pairs: M.
        numbers: Values of d to try, each at least 1.
        folds: Parts, at least 2.
        seed: Seed of the folds.

    Raises:
        BadSetting: No number, fewer than two folds, or fewer cells than folds.

    Numerics: the standard error is that of the weighted mean difference to the best number, with
    users as independent clusters, since neighboring d fail on the same labels.
    """
    tried = np.unique(np.asarray(numbers, dtype=np.int64))
    if tried.size == 0 or tried[0] < 1 or folds < 2:
        raise BadSetting(
            f"rank: found numbers {list(numbers)} and folds={folds}, expected d >= 1, folds >= 2"
        )
    kept = _some(preferences, preferences.weight > 0.0)
    fold = _folds(kept, n_pairs, folds, seed)
    if np.unique(fold).size < 2:
        raise BadSetting(f"rank: found {kept.user.size} cells, expected enough for two folds")
    margins = np.zeros((tried.size, kept.user.size))
    for part in np.unique(fold):
        rest = _some(kept, fold != part)
        held = fold == part
        for row, d in enumerate(tried):
            start = svd_start(rest, n_users, n_pairs, int(d), seed=seed)
            margins[row, held] = np.einsum(
                "nd,nd->n",
                start.user_weights[kept.user[held]],
                start.pair_features[kept.pair[held]],
            )
    score = np.stack([_calibrated(margin, kept, fold) for margin in margins])
    total = kept.weight.sum()
    mean = score @ kept.weight / total
    best = int(np.argmax(mean))

    def error(values: Floats, middle: float) -> float:
        by_user = np.bincount(kept.user, (values - middle) * kept.weight, n_users)
        return float(np.sqrt(np.sum(by_user**2)) / total)

    rows = range(tried.size)
    apart = np.array([error(score[best] - score[row], mean[best] - mean[row]) for row in rows])
    own = np.array([error(score[row], mean[row]) for row in rows])
    chosen = int(np.flatnonzero(mean[best] - mean <= apart)[0])
    return RankCurve(tried, mean, apart, own, int(tried[best]), int(tried[chosen]))


def _calibrated(margin: Floats, cells: Preferences, fold: Ints) -> Floats:
    """(N,) log likelihoods of held-out cells, each fold's margins scaled by what fits the others.

    The likelihood is concave in the scale, so the bounded search finds its one maximum.
    """
    found = np.zeros(margin.size)
    for part in np.unique(fold):
        rest, held = fold != part, fold == part

        def lost(scale: float, rest: Bools = rest) -> float:
            return -float(
                cells.weight[rest] @ log_likelihood(scale * margin[rest], cells.label[rest])
            )

        scale = minimize_scalar(lost, bounds=(0.0, 2.0), method="bounded").x
        found[held] = log_likelihood(scale * margin[held], cells.label[held])
    return found


def _some(cells: Preferences, keep: Bools) -> Preferences:
    return Preferences(cells.user[keep], cells.pair[keep], cells.label[keep], cells.weight[keep])


def _folds(cells: Preferences, n_pairs: int, folds: int, seed: int) -> Ints:
    """(N,) fold of each cell: a random permutation of the distinct cells, dealt out in turn."""
    unique, inverse = np.unique(cells.user * n_pairs + cells.pair, return_inverse=True)
    rng = np.random.default_rng([seed, n_pairs])
    dealt = np.empty(unique.size, dtype=np.int64)
    dealt[rng.permutation(unique.size)] = np.arange(unique.size) % folds
    result: Ints = dealt[inverse]
    return result
