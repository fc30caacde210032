"""How many base rewards the answers support, by the likelihood of answers held out.

It sees no text and chooses nothing for the caller; `svd.spectrum` is the other view.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pref_model.errors import BadSetting
from pref_model.likelihood import log_likelihood
from pref_model.svd import svd_start
from pref_model.types import Bools, Floats, Ints, Preferences


class RankCurve(NamedTuple):
    """Cross-validated likelihood by number of base rewards.

    Attributes:
        d: (K,) int64, numbers tried, rising.
        mean_log_likelihood: (K,) nats a held-out label, weighted, mean over all labels.
        standard_error: (K,) of the difference to the best number, over users; 0 at the best.
        best: The number with the highest mean.
        chosen: The smallest number within one standard error of the best.
    """

    d: Ints
    mean_log_likelihood: Floats
    standard_error: Floats
    best: int
    chosen: int


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

    The score is eq 5's likelihood without its prior, at the margins of `svd_start` for each d;
    what is held out is single cells, so every user and every pair is still seen elsewhere. It
    answers which rank the matrix has, not how well new pairs are predicted from their texts.

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
    score = np.zeros((tried.size, kept.user.size))
    for part in np.unique(fold):
        rest = _some(kept, fold != part)
        held = fold == part
        for row, d in enumerate(tried):
            start = svd_start(rest, n_users, n_pairs, int(d), seed=seed)
            margin = np.einsum(
                "nd,nd->n",
                start.user_weights[kept.user[held]],
                start.pair_features[kept.pair[held]],
            )
            score[row, held] = log_likelihood(margin, kept.label[held])
    total = kept.weight.sum()
    mean = score @ kept.weight / total
    best = int(np.argmax(mean))
    error = np.zeros(tried.size)
    for row in range(tried.size):
        lost = (score[best] - score[row] - (mean[best] - mean[row])) * kept.weight
        by_user = np.bincount(kept.user, weights=lost, minlength=n_users)
        error[row] = np.sqrt(np.sum(by_user**2)) / total
    chosen = int(np.flatnonzero(mean[best] - mean <= error)[0])
    return RankCurve(tried, mean, error, int(tried[best]), int(tried[chosen]))


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
