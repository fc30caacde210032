import numpy as np
import pytest

from benchmarks.ablations import ARMS, one_seed
from benchmarks.comparators import TRIES, evaluate, markdown, summarize
from benchmarks.matrix import FOLDS, Matrix, by_user, split
from pref_model.comparators.interface import Corpus
from pref_model.comparators.linear import PerUser


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(0)
    users = [f"user-{one:02d}" for one in range(23)]
    pairs = [f"pair-{one:02d}" for one in range(60)]
    corpus = Corpus(*rng.standard_normal((2, 60, 5)))
    taste = rng.standard_normal((23, 5))
    labels = (taste @ corpus.differences.T > 0.0).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return Matrix(users, pairs, labels, corpus, {})


def test_five_seeds_make_every_user_new_exactly_once_and_no_cell_is_on_both_sides(matrix):
    splits = [split(matrix, seed) for seed in range(FOLDS)]
    fresh = np.concatenate([one.fresh for one in splits])
    assert sorted(fresh) == list(range(23))
    assert not np.array_equal(split(matrix, FOLDS).fresh, splits[0].fresh)
    for one in splits:
        assert not set(one.known) & set(one.fresh)
        assert not set(one.seen) & set(one.new)
        assert len(one.new) == 12
        study = one.study(matrix)
        assert set(study.train.pair) <= set(one.seen)
        assert set(study.validation.pair) <= set(one.new)
        assert study.train.user.max() < study.n_users == len(one.known)


def test_a_user_s_figure_is_the_mean_over_the_seeds_in_which_it_was_new(matrix):
    splits = [split(matrix, seed) for seed in (0, FOLDS)]
    found = by_user(matrix, splits, [np.zeros((len(splits[0].fresh), 2)), np.ones((5, 2))])
    both = np.intersect1d(splits[0].fresh, splits[1].fresh)
    only = np.setdiff1d(splits[1].fresh, splits[0].fresh)
    np.testing.assert_array_equal(found[both], 0.5)
    np.testing.assert_array_equal(found[only], 1.0)
    never = np.setdiff1d(np.arange(23), np.concatenate([one.fresh for one in splits]))
    assert np.isnan(found[never]).all()


def test_every_method_has_five_tries_or_five_strengths_of_its_own():
    sizes = {name: len(tries) for name, tries in TRIES.items()}
    assert {name: size for name, size in sizes.items() if size != 5} == {
        "pref": 1,
        "classic": 1,
        "per_user": 1,
    }
    assert len(TRIES["pref"][0].config.head_l2) == len(TRIES["classic"][0].config.head_l2) == 5
    assert len(TRIES["per_user"][0].ridges) == 5


def test_more_answers_help_and_the_table_has_a_row_a_method(matrix):
    one = split(matrix, 0)
    best, curve = evaluate((PerUser(),), matrix, one, 0)
    assert best == 0
    assert curve.shape == (len(one.fresh), 6)
    assert np.nanmean(curve[:, 5]) > np.nanmean(curve[:, 0]) + 0.1
    curves = {"pref": curve, "per_user": curve}
    rows = [row for name in curves for row in summarize(name, curves, 1.0)]
    assert all(row["minus_pref"] == 0.0 for row in rows)
    assert "| per_user | +0.000 [+0.000, +0.000]" in markdown(rows)


def test_fewer_base_rewards_than_the_world_has_cost_auc(matrix):
    full, one = (one_seed(ARMS[name], matrix, 0) for name in ("full method", "d = 1"))
    assert full[-1] > one[-1] + 0.1
