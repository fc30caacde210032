"""Which pair to ask a new user next (Algorithm 2, METHOD section 5), many users at once.

It chooses among existing pairs with recorded answers; it writes no responses and asks no one.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from pref_model.adapt import Posterior, UserPrior, adapt_users
from pref_model.errors import BadArray, BadSetting
from pref_model.information import mutual_information
from pref_model.likelihood import curvature
from pref_model.threads import one_blas_thread
from pref_model.types import Bools, Floats, Ints

Rule = Literal["random", "variance", "authors", "d_optimal", "bald", "v_optimal"]
RULES: tuple[Rule, ...] = get_args(Rule)
_BLOCK_CELLS = 1 << 18
_SLICE_NUMBERS = 1 << 18


class Questionnaire(NamedTuple):
    """What was asked of each user, in order, and what was believed afterwards.

    Attributes:
        asked: (U, K) int64, row of the pair; -1 where nothing was left to ask.
        answers: (U, K) float64 in [0, 1]; nan where nothing was asked.
        scores: (U, K) float64, the rule's score of the asked pair when it was chosen.
        n_answers: The numbers of answers at which the posterior was kept, rising.
        means: (len(n_answers), U, d) float64, MAP weights after that many questions.
        covariances: (len(n_answers), U, d, d) float64.
    """

    asked: Ints
    answers: Floats
    scores: Floats
    n_answers: tuple[int, ...]
    means: Floats
    covariances: Floats


@one_blas_thread()
def question_scores(
    rule: Rule,
    features: Floats,
    mean: Floats,
    covariance: Floats,
    targets: Floats | None = None,
) -> Floats:
    """Score every pair for every user; the next question is the largest.

    With f = m^T phi, q = phi^T S phi, w = s'(f):

    - variance: q (eq 9; keeps asking what is already certain)
    - authors: w^2 q (their published code)
    - d_optimal: w q (log-determinant gain to first order)
    - bald: h(E s(g)) - E h(s(g)), g ~ N(f, q), from a table of the integral (nats)
    - v_optimal: w sum_t w_t (phi^T S phi_t)^2 / (1 + w q), the drop of the summed variance of
      the targets' probabilities
    - random: zero everywhere; `run_questionnaire` draws instead

    Args:
        rule: One of `RULES`.
        features: (M, d) candidate pair features.
        mean: (U, d) posterior means.
        covariance: (U, d, d) posterior covariances.
        targets: (T, d) pairs whose prediction matters (v_optimal); the candidates when None.

    Returns:
        (U, M) float64, >= 0.

    Raises:
        BadSetting: Unknown rule.

    Oracle: `reference.question_score`.
    """
    if rule not in RULES:
        raise BadSetting(
            f"questions: found rule '{rule}', expected one of {', '.join(RULES)}; check the name"
        )
    n_users, n_pairs = len(mean), len(features)
    if rule == "random":
        return np.zeros((n_users, n_pairs))
    scores = np.empty((n_users, n_pairs))
    pairs = _slices(n_pairs, features.shape[1])
    rows = max(1, _BLOCK_CELLS // max(n_pairs, 1))
    for low in range(0, n_users, rows):
        users = slice(low, low + rows)
        reach = None
        if rule == "v_optimal":
            reach = _reach(mean[users], covariance[users], features if targets is None else targets)
        for part in pairs:
            scores[users, part] = _score_block(
                rule, features[part], mean[users], covariance[users], reach
            )
    return scores


def least_known_direction(covariance: Floats) -> tuple[Floats, Floats]:
    """Return the unconstrained maximizer of eq 9: the direction of pair features to ask about.

    Over unit vectors phi, phi^T H^-1 phi is largest at the top eigenvector of H^-1. For a fresh
    pair, generate one response whose base rewards lie along +nu and one along -nu (Algorithm 2).

    Args:
        covariance: (U, d, d) or (d, d) posterior covariances H^-1.

    Returns:
        nu, unit vectors (U, d) or (d,), whose largest entry is positive (the sign has no
        meaning: swapping the two responses flips it); the variances nu^T H^-1 nu, (U,) or ().

    Departure: a unit length is one in the given basis; in the whitened basis of `basis` it is one
    standard deviation of the training users.
    """
    values, vectors = np.linalg.eigh(covariance)
    top = vectors[..., -1]
    largest = np.take_along_axis(top, np.abs(top).argmax(axis=-1)[..., None], axis=-1)
    return top * np.where(largest < 0.0, -1.0, 1.0), values[..., -1]


@one_blas_thread()
def run_questionnaire(
    pair_features: Floats,
    prompt_of_pair: Ints,
    answers: Floats,
    prior: UserPrior,
    rule: Rule,
    n_questions: int,
    user_keys: Sequence[str],
    *,
    seed: int = 0,
    n_answers: Sequence[int] | None = None,
    targets: Floats | None = None,
) -> Questionnaire:
    """Ask every user `n_questions` questions one after another, refitting after each answer.

    Users do not influence each other. A pair without a recorded answer is never asked, and no
    user sees a prompt twice. Random choices are hashed from (seed, user key), and ties in a
    score fall to the pair that comes first in that same random order, so neither the order of
    the users nor their company changes what one of them is asked.

    Args:
        pair_features: (M, d) features, first - second.
        prompt_of_pair: (M,) integer id of each pair's prompt.
        answers: (U, M) in [0, 1], nan where no answer is available.
        prior: Prior over user weights in the same basis.
        rule: One of `RULES`.
        n_questions: K, questions at most.
        user_keys: (U,) stable ids.
        seed: Seed of the random choices.
        n_answers: Numbers of answers at which to keep the posterior, each in 0..K; (K,) if None.
        targets: (T, d) target pairs of v_optimal; all pairs when None.

    Raises:
        BadArray: Shapes disagree.
        BadSetting: Unknown rule or a number of answers outside 0..K.
    """
    n_users, n_pairs = answers.shape
    if pair_features.shape[0] != n_pairs or prompt_of_pair.shape != (n_pairs,):
        raise BadArray(
            f"questions: found {pair_features.shape[0]} feature rows and "
            f"{prompt_of_pair.size} prompts for {n_pairs} columns of answers, expected as many"
        )
    if len(user_keys) != n_users:
        raise BadArray(
            f"questions: found {len(user_keys)} user keys for {n_users} rows of answers, "
            "expected one a row"
        )
    kept_at = (n_questions,) if n_answers is None else tuple(sorted(set(n_answers)))
    if not kept_at or kept_at[0] < 0 or kept_at[-1] > n_questions:
        raise BadSetting(
            f"questions: found answers counts {kept_at}, expected numbers from 0 to {n_questions}"
        )
    d = pair_features.shape[1]
    _, prompt = np.unique(prompt_of_pair, return_inverse=True)
    # (U, M): random priority of each pair for each user, a permutation.
    priority = (
        np.stack([_priority(seed, key, n_pairs) for key in user_keys])
        if n_users
        else (np.zeros((0, n_pairs), dtype=np.int64))
    )
    is_open: Bools = np.logical_not(np.isnan(answers))
    asked = np.full((n_users, n_questions), -1, dtype=np.int64)
    given = np.full((n_users, n_questions), np.nan)
    scored = np.full((n_users, n_questions), np.nan)
    phi = np.zeros((n_users, n_questions, d))
    posterior = Posterior(
        np.tile(prior.mean, (n_users, 1)), np.tile(prior.covariance, (n_users, 1, 1)), 0
    )
    means, covariances = [], []
    rows = np.arange(n_users)
    for step in range(n_questions + 1):
        if step in kept_at:
            means.append(posterior.mean)
            covariances.append(posterior.covariance)
        if step == n_questions:
            break
        scores = question_scores(rule, pair_features, posterior.mean, posterior.covariance, targets)
        choice = _choose(scores, priority, is_open)
        has_question: Bools = np.asarray(is_open.any(axis=1))
        asked[:, step] = np.where(has_question, choice, -1)
        given[:, step] = np.where(has_question, answers[rows, choice], np.nan)
        scored[:, step] = np.where(has_question, scores[rows, choice], np.nan)
        phi[:, step] = np.where(has_question[:, None], pair_features[choice], 0.0)
        is_open &= ~((prompt[None, :] == prompt[choice][:, None]) & has_question[:, None])
        if rule != "random" or step + 1 in kept_at:
            done = slice(0, step + 1)
            posterior = adapt_users(
                phi[:, done],
                given[:, done],
                (asked[:, done] >= 0).astype(np.float64),
                prior,
                start=posterior.mean,
            )
    shape = (len(kept_at), n_users, d)
    return Questionnaire(
        asked,
        given,
        scored,
        kept_at,
        np.array(means).reshape(shape),
        np.array(covariances).reshape(*shape, d),
    )


def _slices(n_pairs: int, d: int) -> list[slice]:
    """Cut pairs into slices too small for the linear algebra library to split over threads.

    On a busy machine its threads cost ten times what they save; a slice also stays in the cache.
    """
    size = max(1, _SLICE_NUMBERS // (d * d))
    return [slice(low, min(low + size, n_pairs)) for low in range(0, n_pairs, size)]


def _reach(mean: Floats, covariance: Floats, targets: Floats) -> Floats:
    """Return S (sum_t w_t phi_t phi_t^T) S: (U, d, d)."""
    d = targets.shape[1]
    need = np.zeros((len(mean), d, d))
    for part in _slices(len(targets), d):
        phi = targets[part]
        weight = curvature(mean @ phi.T)
        need += np.matmul((weight[:, :, None] * phi).transpose(0, 2, 1), phi)
    result: Floats = covariance @ need @ covariance
    return result


def _score_block(
    rule: Rule, features: Floats, mean: Floats, covariance: Floats, reach: Floats | None
) -> Floats:
    variance = _quadratic(features, covariance)
    if rule == "variance":
        return variance
    margin = mean @ features.T
    if rule == "bald":
        return mutual_information(margin, variance)
    certainty = curvature(margin)
    if rule == "authors":
        return certainty**2 * variance
    if reach is None:
        return certainty * variance
    return certainty * _quadratic(features, reach) / (1.0 + certainty * variance)


def _quadratic(features: Floats, matrices: Floats) -> Floats:
    """Return phi_m^T A_u phi_m for positive semidefinite A: (U, M) >= 0."""
    form: Floats = np.einsum("umd,md->um", features @ matrices, features)
    np.maximum(form, 0.0, out=form)  # rounding may leave a zero form below zero
    return form


def _choose(scores: Floats, priority: Ints, is_open: Bools) -> Ints:
    """Largest score among open pairs; equal scores fall to the lowest priority number."""
    best = np.where(is_open, scores, -np.inf)
    top = best.max(axis=1, keepdims=True)
    is_tied = is_open & (best >= top - 1e-12 * np.abs(top))
    rank = np.where(is_tied, priority, np.iinfo(np.int64).max)
    chosen: Ints = np.argmin(rank, axis=1).astype(np.int64)
    return chosen


def _priority(seed: int, key: str, n_pairs: int) -> Ints:
    digest = hashlib.sha256(f"questions:{seed}:{key}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return rng.permutation(n_pairs).astype(np.int64)
