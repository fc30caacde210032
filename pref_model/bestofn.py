"""Best-of-N: the response of a pool that a user's reward ranks first; it generates nothing."""

import numpy as np

from pref_model.errors import BadArray
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
