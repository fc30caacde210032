import numpy as np
import pytest

from pref_model.bestofn import best_of_n
from pref_model.errors import BadArray


def test_each_prompt_gets_its_best_candidate_for_each_user():
    rewards = np.array([[0.1, 0.9, 0.5, 0.2], [3.0, -1.0, 0.0, 1.0]])
    candidates = np.array([[0, 1, 2], [3, 2, -1]])
    np.testing.assert_array_equal(best_of_n(rewards, candidates), [[1, 2], [0, 3]])
    np.testing.assert_array_equal(best_of_n(rewards[0], candidates), [1, 2])


def test_equal_rewards_fall_to_the_candidate_listed_first():
    rewards = np.zeros(4)
    assert best_of_n(rewards, np.array([[2, 0, 1]]))[0] == 2


def test_a_shift_of_all_rewards_changes_no_choice():
    rng = np.random.default_rng(0)
    rewards, candidates = rng.standard_normal((3, 20)), rng.permutation(20).reshape(5, 4)
    np.testing.assert_array_equal(
        best_of_n(rewards, candidates), best_of_n(rewards + 5.0, candidates)
    )


def test_padding_is_never_chosen_even_below_all_candidates():
    assert best_of_n(np.array([-1e300, 5.0]), np.array([[-1, 0]]))[0] == 0


@pytest.mark.parametrize(
    ("rewards", "candidates", "words"),
    [
        ([1.0], [[-1]], "without candidates"),
        ([1.0], [[1]], "candidate row 1"),
        ([np.nan], [[0]], "nan reward"),
    ],
)
def test_bad_pools_are_told_in_one_line(rewards, candidates, words):
    with pytest.raises(BadArray, match=words):
        best_of_n(np.array(rewards), np.array(candidates))
