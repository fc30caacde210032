from dataclasses import replace

import numpy as np
import pytest

from pref_model.arms import FULL, GROUPS, arms
from pref_model.comparators.interface import Corpus, random_answers
from pref_model.comparators.linear import Classic, PerUser, Pref
from pref_model.errors import BadSetting
from pref_model.model import FitConfig
from pref_model.protocol import Arm, Matrix, Split, mean_by_user, run_cell

FIT = FitConfig(d=4, head_l2=(1.0,), steps=40)
COUNTS = (1, 5, 10, 40)


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    users = [f"user-{one:02d}" for one in range(23)]
    pairs = [f"pair-{one:02d}" for one in range(60)]
    corpus = Corpus(*rng.standard_normal((2, 60, 5)))
    taste = rng.standard_normal((23, 5))
    labels = (taste @ corpus.differences.T > 0.0).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return Matrix(users, pairs, np.arange(60), labels, corpus)


@pytest.fixture(scope="module")
def split():
    return Split(np.arange(18), np.arange(18, 23), np.arange(48), np.arange(48, 60))


def test_a_method_learns_from_seen_users_and_seen_pairs_alone(matrix, split):
    study = split.study(matrix)
    assert set(study.train.pair) <= set(split.seen)
    assert set(study.validation.pair) <= set(split.new)
    assert study.train.user.max() < study.n_users == len(split.known)
    hidden = matrix.labels.copy()
    hidden[np.ix_(split.fresh, split.new)] = np.nan
    seen = run_cell(Arm((PerUser(),)), matrix._replace(labels=hidden), split, 0, (5,))
    assert np.isnan(seen).all()


def test_a_user_s_figure_is_the_mean_over_the_seeds_in_which_it_was_new():
    rows = [np.array([0, 1]), np.array([1, 2])]
    found = mean_by_user(4, rows, [np.zeros((2, 3)), np.ones((2, 3))])
    np.testing.assert_array_equal(found[:3], [[0.0] * 3, [0.5] * 3, [1.0] * 3])
    assert np.isnan(found[3]).all()


def test_every_method_has_five_tries_or_five_strengths_of_its_own():
    methods = arms(FitConfig(), (1,), (10,))["methods"]
    sizes = {name: len(arm.tries) for name, arm in methods.items()}
    assert {name: size for name, size in sizes.items() if size != 5} == {
        "pref": 1,
        "classic": 1,
        "per_user": 1,
    }
    assert len(FitConfig().head_l2) == len(PerUser().ridges) == 5


def test_arms_have_one_name_each_and_differ_from_the_full_method():
    every = arms(FIT, (1, 4), (10,))
    assert tuple(every) == GROUPS
    names = [name for members in every.values() for name in members]
    assert len(set(names)) == len(names)
    full = every["methods"][FULL]
    others = [arm for members in every.values() for name, arm in members.items() if name != FULL]
    assert full not in [replace(one, is_long=True) for one in others]
    assert "d = 4" not in every["rewards"]


def test_more_answers_help_and_fewer_labels_or_base_rewards_cost(matrix, split):
    per_user = run_cell(Arm((PerUser(),)), matrix, split, 0, COUNTS)
    assert per_user.shape == (5, 4)
    assert np.nanmean(per_user[:, 3]) > np.nanmean(per_user[:, 0]) + 0.1
    full, one, few = (
        np.nanmean(run_cell(arm, matrix, split, 0, (40,)))
        for arm in (
            Arm((Pref(FIT),)),
            Arm((Pref(replace(FIT, d=1)),)),
            Arm((Pref(FIT),), n_labels=150),
        )
    )
    assert full > one + 0.1
    assert full > few


def test_the_try_that_is_kept_is_the_best_on_seen_users(matrix, split):
    bad = replace(FIT, steps=0, d=1)
    both = run_cell(Arm((Pref(bad), Pref(FIT))), matrix, split, 0, (10,))
    np.testing.assert_array_equal(both, run_cell(Arm((Pref(FIT),)), matrix, split, 0, (10,)))


def test_chosen_questions_are_about_seen_pairs_and_only_methods_that_can_ask_choose(matrix, split):
    fitted = Pref(FIT).fit(split.study(matrix), 0)
    asked = fitted.ask(matrix, split.fresh, split.seen, "d_optimal", 10, 0)
    assert set(asked.pair.ravel()) <= set(split.seen)
    assert all(len(set(row)) == 10 for row in asked.pair)
    np.testing.assert_array_equal(asked.label, matrix.labels[split.fresh[:, None], asked.pair])
    assert not np.array_equal(
        asked.pair, random_answers(matrix.labels[split.fresh], split.seen, 10, seed=0).pair
    )
    with pytest.raises(BadSetting, match="cannot ask"):
        run_cell(Arm((Classic(FIT),), rule="variance"), matrix, split, 0, (5,))
    with pytest.raises(BadSetting, match="found rule 'best'"):
        fitted.ask(matrix, split.fresh, split.seen, "best", 10, 0)


def test_chosen_answers_are_those_the_posterior_was_asked_with(matrix, split):
    found = run_cell(Arm((Pref(FIT),), rule="d_optimal"), matrix, split, 0, (5, 10))
    assert found.shape == (5, 2)
    assert np.nanmean(found[:, 1]) > 0.6
