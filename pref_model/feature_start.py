"""A start for the factorization where no two users answered the same pair: from features alone.

It replaces the SVD of Algorithm 1, which needs a shared pair to compare users on. It trains
nothing by gradient.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from pref_model.distill import distill
from pref_model.train_head import Start
from pref_model.types import Floats, Preferences

_NEWTON_STEPS = 50


def feature_start(scaled: Floats, train: Preferences, n_users: int, d: int) -> Start:
    """Classic RLHF as the first base reward, where users pull it as the others.

    1. The head w of one reward for everybody: ridge regression from pair differences to the
       pairs' shrunk mean logits, as `baselines.fit_classic` begins.
    2. Each user's score g_u = sum_m c_um [(A_um - s(w x_m)) x_m - mean over all answers], the
       direction in which the user pulls w more than users do on average. To first order the
       user's own head is w + t g_u, t the variance of the users' heads under an isotropic prior.
    3. t by maximum likelihood of answers left out one at a time, t >= 0: margin
       w x_m + t (g_u - own part of m) x_m. Where users do not differ it comes out as 0.
    4. The d - 1 leading right singular vectors of the scores (U, D) are the other rows of the
       head; t times the projections are the users' weights on them.

    Args:
        scaled: (M, D) scaled pair differences.
        train: Training cells.
        n_users: U.
        d: Base rewards.

    Returns:
        `Start`: head (d, D) and user weights (U, d), the first weight 1 for everybody. Components
        beyond min(U, D) + 1 are zero.

    Derived here (a random-effects model to first order); METHOD names no start for such data.
    """
    seen, pair = np.unique(train.pair, return_inverse=True)
    count = np.bincount(pair, weights=train.weight)
    first = np.bincount(pair, weights=train.weight * train.label)
    target = np.log((first + 0.5) / (count - first + 0.5))
    common = distill(scaled[seen], target[:, None], weights=np.maximum(count, 1e-9)).head
    features = scaled[train.pair]
    margin = features @ common[0]
    pull = (train.weight * (train.label - expit(margin)))[:, None] * features
    # What is left for everybody alike belongs to the common head, not to any user.
    pull = pull - train.weight[:, None] * (pull.sum(axis=0) / train.weight.sum())
    scores = np.zeros((n_users, scaled.shape[1]))
    np.add.at(scores, train.user, pull)
    others = np.einsum("nd,nd->n", scores[train.user] - pull, features)
    spread = user_spread(margin, others, train.label, train.weight)
    _, singular, directions = np.linalg.svd(scores, full_matrices=False)
    n_kept = min(d - 1, int(np.sum(singular > 1e-12 * singular.max(initial=0.0))))
    head, weights = np.zeros((d, scaled.shape[1])), np.zeros((n_users, d))
    head[0], weights[:, 0] = common[0], 1.0
    head[1 : n_kept + 1] = directions[:n_kept]
    weights[:, 1 : n_kept + 1] = spread * scores @ directions[:n_kept].T
    return Start(head, weights)


def user_spread(margin: Floats, others: Floats, label: Floats, weight: Floats) -> float:
    """Maximize sum c [A log s(f) + (1 - A) log s(-f)], f = margin + t others, over t >= 0.

    Concave in one unknown: Newton steps, halved where they would leave t >= 0.

    Args:
        margin: (N,) logits at t = 0.
        others: (N,) what the user's other answers add a unit of t.
        label: (N,) in [0, 1].
        weight: (N,) >= 0.
    """
    t = 0.0
    for _ in range(_NEWTON_STEPS):
        probability = expit(margin + t * others)
        slope = float(np.sum(weight * (label - probability) * others))
        bend = float(np.sum(weight * probability * (1.0 - probability) * others**2))
        if bend <= 0.0 or (t == 0.0 and slope <= 0.0):
            return t
        step = slope / bend
        new = t + step if t + step > 0.0 else t / 2.0
        if abs(new - t) <= 1e-10 * max(t, 1.0):
            return new
        t = new
    return t
