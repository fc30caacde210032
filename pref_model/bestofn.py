"""Best-of-N: the response of a pool that a user's reward ranks first; it generates nothing."""

import numpy as np

from pref_model.errors import BadArray, BadSetting
from pref_model.types import Floats, Ints


def best_of_n(response_rewards: Floats, candidates: Ints) -> Ints:
    """Return argmax over candidates of lambda^T phi (METHOD section 6), prompt by prompt.

    Args:
        response_rewards: (..., R) rewards of every response, for one user or many.
        candidates: (P, N) rows of the responses each prompt may use; -1 pads short pools.

    Returns:
        (..., P) int64, the chosen row of `response_rewards`. Equal rewards fall to the
        candidate listed first, so the result does not depend on the machine.

    Raises:
        BadArray: A prompt without candidates, a row out of range, or a nan reward.
    """
    n_responses = response_rewards.shape[-1]
    is_there = candidates >= 0
    if candidates.ndim != 2 or not np.all(is_there.any(axis=1)):
        raise BadArray("best_of_n: found a prompt without candidates, expected at least one")
    if candidates.max(initial=-1) >= n_responses:
        raise BadArray(
            f"best_of_n: found candidate row {candidates.max()}, expected below {n_responses}"
        )
    rewards = response_rewards[..., np.where(is_there, candidates, 0)]
    if np.any(np.isnan(rewards) & is_there):
        raise BadArray("best_of_n: found a nan reward among the candidates, expected numbers")
    position = np.argmax(np.where(is_there, rewards, -np.inf), axis=-1)
    chosen: Ints = candidates[np.arange(len(candidates)), position].astype(np.int64)
    return chosen


def best_of_n_bound(n: int) -> float:
    """Return N / (N + 1), the highest win rate of Best-of-N over one more response like the N.

    Let utilities U_0 (the base) to U_N be exchangeable, and a judge prefer i to j with probability
    F(U_i - U_j), F rising and F(-x) = 1 - F(x), ties as halves: any Bradley-Terry judge, or the
    mean over both orders of one with a position bias. A choice that does not look at the base wins
    at most E F(max_{j > 0} U_j - U_0). By exchangeability that is the mean over k of
    F(max_{j != k} U_j - U_k). The terms of the two largest are F(x) and F(-x) and add up to 1;
    the other N - 1 are at most 1. So the sum is at most N, and the mean N / (N + 1).

    It holds for plain samples. It does not hold for revisions toward traits, which are other
    texts than the base: all of them may beat it.

    Args:
        n: Candidates, at least 1.

    Raises:
        BadSetting: n below 1.
    """
    if n < 1:
        raise BadSetting(f"best of n: found n={n}, expected at least 1")
    return n / (n + 1)
