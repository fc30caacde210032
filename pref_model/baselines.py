"""Classic RLHF (eq 2) and a model per user, on the same frozen features as the factorization.

Both get the care the factorization gets (priors, validation), so that a gap is not an artefact;
neither shares anything between users beyond what its name says.
"""

from typing import NamedTuple

import numpy as np

from pref_model.adapt import UserPrior, adapt_users
from pref_model.errors import BadArray
from pref_model.likelihood import log_likelihood
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.threads import one_blas_thread
from pref_model.types import Floats, Ints, Preferences

MOST_RIDGE_USERS = 128
# Users at once; some copies of their rows (K, D) are held.
_BLOCK_USERS = 32
DEFAULT_RIDGES: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class UserHeads(NamedTuple):
    """One linear reward a user, on scaled features.

    Attributes:
        heads: (U, D) float64, on embeddings divided by `feature_scale`.
        feature_scale: (D,) float64.
    """

    heads: Floats
    feature_scale: Floats

    def scores(self, embeddings: Floats) -> Floats:
        """Return rewards (U, R), or margins (U, M) when given pair differences."""
        result: Floats = (self.heads / self.feature_scale) @ embeddings.T
        return result


@one_blas_thread()
def fit_classic(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    config: FitConfig,
    run: RunConfig,
    validation: Preferences | None = None,
    *,
    text_columns: int = 0,
) -> RewardModel:
    """Fit one reward for everybody (eq 2): d = 1, every user weight fixed at 1.

    The start (ridge from differences to the pairs' mean logits), the head prior, its choice on
    validation and early stopping are those of `fit.fit_reward_model`.

    Args:
        pair_differences: (M, D) embeddings, first - second.
        preferences: Training cells.
        n_users: U.
        config: d and user_l2 are ignored.
        run: Where to run, and the seed.
        validation: Cells on other pairs, for strength and early stopping.
        text_columns: See `fit.prepare_features`.

    Returns:
        `RewardModel` with head (1, D) and user_weights (U, 1) of ones; `response_features`
        are the rewards themselves.
    """
    from pref_model.distill import distill
    from pref_model.fit import Start, fit_from_start, prepare_features

    scaled, scale, train, check = prepare_features(
        pair_differences, preferences, n_users, validation, config.ties, text_columns
    )
    seen, pair = np.unique(train.pair, return_inverse=True)
    count = np.bincount(pair, weights=train.weight)
    first = np.bincount(pair, weights=train.weight * train.label)
    # One half observation each way keeps unanimous pairs finite.
    target = np.log((first + 0.5) / (count - first + 0.5))
    fitted = distill(scaled[seen], target[:, None], weights=np.maximum(count, 1e-9))
    return fit_from_start(
        scaled,
        scale,
        train,
        check,
        Start(fitted.head, np.ones((n_users, 1))),
        config,
        run,
        is_user_learned=False,
    )


@one_blas_thread()
def fit_user_heads(
    pair_differences: Floats, asked: Ints, labels: Floats, feature_scale: Floats, ridge: float
) -> UserHeads:
    """Fit a logistic head to each user's own answers (METHOD section 6), nothing shared.

    min over w of -sum_k log p(A_k | w . x_k) + (ridge / 2) |w|^2. The optimum lies in the span
    of the K < D rows, so with X^T = Q R the problem is solved for Q^T w in K dimensions by
    `adapt.adapt_users` and is exact, also for repeated rows.

    Args:
        pair_differences: (M, D).
        asked: (U, K) rows of `pair_differences` that each user was asked about.
        labels: (U, K) in [0, 1], nan where absent; a row without a label may be any.
        feature_scale: (D,) > 0, the scale of the reward model it stands beside.
        ridge: > 0, in units of the scaled features (mean squared length 1).
    """
    scale = np.asarray(feature_scale, dtype=np.float64)
    heads = np.empty((len(asked), pair_differences.shape[1]))
    for begin in range(0, len(asked), _BLOCK_USERS):
        block = slice(begin, begin + _BLOCK_USERS)
        spans = _spans(pair_differences[asked[block]], scale)
        heads[block] = _heads_in(spans, labels[block], scale, ridge).heads
    return UserHeads(heads, scale)


class _Spans(NamedTuple):
    """What each user's rows span: (U, D, k) orthonormal, and the rows in it, (U, K, k)."""

    basis: Floats
    inner: Floats


def _spans(differences: Floats, feature_scale: Floats) -> _Spans:
    scaled = differences / feature_scale
    basis, upper = np.linalg.qr(scaled.transpose(0, 2, 1))  # (U, D, k), (U, k, K)
    return _Spans(basis, upper.transpose(0, 2, 1))


def _heads_in(spans: _Spans, labels: Floats, feature_scale: Floats, ridge: float) -> UserHeads:
    weights = (~np.isnan(labels)).astype(np.float64)
    prior = UserPrior.ridge(spans.inner.shape[2], ridge)
    fitted = adapt_users(spans.inner, labels, weights, prior)
    heads = np.matmul(spans.basis, fitted.mean[:, :, None])[:, :, 0]
    return UserHeads(heads, np.asarray(feature_scale, dtype=np.float64))


def _answered_first(rng: np.random.Generator, pairs: Ints, answers: Floats) -> Ints:
    """The pairs in random order, those the user has answered before the others."""
    shuffled = rng.permutation(pairs)
    return shuffled[np.argsort(np.isnan(answers[shuffled]), kind="stable")]


@one_blas_thread()
def choose_user_ridge(
    pair_differences: Floats,
    answers: Floats,
    train_pairs: Ints,
    validation_pairs: Ints,
    feature_scale: Floats,
    n_answers: int,
    *,
    ridges: tuple[float, ...] = DEFAULT_RIDGES,
    seed: int = 0,
) -> float:
    """Choose the per-user ridge on training users: fit on k random seen pairs, judge on new ones.

    One number is chosen, so of very many users the first 128 are asked: memory and time are then
    bounded whatever the number of users. A user with fewer than k answers gives those there are.

    Args:
        pair_differences: (M, D).
        answers: (U, M) of training users, nan where absent.
        train_pairs: Rows to draw the k answers from.
        validation_pairs: Rows to judge on.
        feature_scale: (D,).
        n_answers: k.
        ridges: Strengths tried; the one with the best mean log likelihood is returned.
        seed: Seed of the drawn pairs.

    Raises:
        BadArray: Fewer training pairs than answers, or nothing observed to judge on.
    """
    if n_answers < 1 or len(train_pairs) < n_answers or len(validation_pairs) == 0:
        raise BadArray(
            f"choose_user_ridge: found {len(train_pairs)} training and {len(validation_pairs)} "
            f"validation pairs for {n_answers} answers, expected at least as many and one"
        )
    rng = np.random.default_rng([seed, n_answers])
    answers = answers[:MOST_RIDGE_USERS]
    chosen = np.stack(
        [
            _answered_first(rng, train_pairs, answers[user])[:n_answers]
            for user in range(len(answers))
        ]
    )
    given = np.take_along_axis(answers, chosen, axis=1)
    held = answers[:, validation_pairs]
    is_held = ~np.isnan(held)
    if not is_held.any():
        raise BadArray("choose_user_ridge: found no observed validation answer, expected some")
    log_likelihoods = np.zeros(len(ridges))
    for begin in range(0, len(answers), _BLOCK_USERS):
        block = slice(begin, begin + _BLOCK_USERS)
        spans = _spans(pair_differences[chosen[block]], feature_scale)
        for row, ridge in enumerate(ridges):
            model = _heads_in(spans, given[block], feature_scale, ridge)
            margin = model.scores(pair_differences[validation_pairs])[is_held[block]]
            log_likelihoods[row] += log_likelihood(margin, held[block][is_held[block]]).sum()
    return ridges[int(log_likelihoods.argmax())]
