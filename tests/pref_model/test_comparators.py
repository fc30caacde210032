from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import expit

from pref_model.comparators.interface import Answers, Corpus, Study, random_answers
from pref_model.comparators.linear import Classic, PerUser, Pref
from pref_model.comparators.lore import Lore
from pref_model.comparators.mrm import Mrm
from pref_model.comparators.pal import Pal
from pref_model.comparators.vpl import Vpl
from pref_model.metrics import auc_per_user
from pref_model.model import FitConfig
from pref_model.types import make_preferences

CONFIG = FitConfig(d=2, steps=100, head_l2=(1.0,))
METHODS = (
    Pref(CONFIG),
    Classic(CONFIG),
    PerUser(),
    Lore(n_bases=4, steps=150),
    Mrm(d=3, steps=150),
    Pal("A", n_prototypes=4, width=16, steps=250, learning_rate=0.01),
    Pal("B", n_prototypes=4, width=16, steps=250, learning_rate=0.01),
    Vpl(width=16, steps=300, learning_rate=0.005),
)
PERSONAL = tuple(one for one in METHODS if one.name != "classic")


class World(NamedTuple):
    study: Study
    new_labels: np.ndarray  # (V, M) of new users
    seen: np.ndarray
    new: np.ndarray


@pytest.fixture(scope="module")
def world():
    """Two opposed camps, and new users from both: what suits one camp repels the other."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n_pairs, width, n_users = 90, 10, 40
    corpus = Corpus(*rng.standard_normal((2, n_pairs, width)))
    taste = np.zeros((n_users + 16, width))
    taste[::2, 0], taste[1::2, 0], taste[:, 1] = 2.5, -2.5, 0.8
    chance = expit(taste @ corpus.differences.T)
    labels = (rng.random(chance.shape) < chance).astype(float)
    labels[rng.random(labels.shape) < 0.05] = 0.5
    seen, new = np.arange(60), np.arange(60, n_pairs)

    def cells(pairs):
        user, pair = np.meshgrid(np.arange(n_users), pairs, indexing="ij")
        user, pair = user.ravel(), pair.ravel()
        return make_preferences(user, pair, labels[user, pair])

    study = Study(corpus, cells(seen), cells(new), n_users)
    return World(study, labels[n_users:], seen, new)


@pytest.fixture(scope="module")
def fitted(world):
    return {one.name: one.fit(world.study, 3) for one in METHODS}


def quality(world, fitted, k):
    answers = random_answers(world.new_labels, world.seen, k, seed=1)
    users = fitted.adapt(world.study.corpus, answers)
    margins = fitted.score(users, world.study.corpus.take(world.new))
    return float(np.nanmean(auc_per_user(margins, world.new_labels[:, world.new])))


@pytest.mark.parametrize("method", PERSONAL, ids=lambda one: one.name)
def test_a_few_answers_tell_the_camps_apart(method, world, fitted):
    assert quality(world, fitted[method.name], 20) > 0.75
    assert quality(world, fitted[method.name], 20) > quality(world, fitted["classic"], 20) + 0.1


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_swapping_the_responses_negates_every_margin(method, world, fitted):
    corpus = world.study.corpus
    users = fitted[method.name].adapt(
        corpus, random_answers(world.new_labels, world.seen, 5, seed=1)
    )
    margins = fitted[method.name].score(users, corpus)
    swapped = fitted[method.name].score(users, Corpus(corpus.second, corpus.first))
    np.testing.assert_allclose(swapped, -margins, atol=1e-4)
    assert margins.shape == (len(world.new_labels), len(corpus.first))


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_users_are_adapted_alone_and_absent_answers_count_for_nothing(method, world, fitted):
    corpus, one = world.study.corpus, fitted[method.name]
    answers = random_answers(world.new_labels, world.seen, 6, seed=1)
    whole = one.adapt(corpus, answers)
    alone = one.adapt(corpus, Answers(answers.pair[3:4], answers.label[3:4]))
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-4)
    label = answers.label.copy()
    label[:, 5] = np.nan
    other = answers.pair.copy()
    other[:, 5] = 0
    here = one.adapt(corpus, Answers(answers.pair, label))
    there = one.adapt(corpus, Answers(other, label))
    np.testing.assert_allclose(here, there, atol=1e-5)
    silent = one.adapt(corpus, Answers(answers.pair, np.full_like(answers.label, np.nan)))
    assert np.all(np.isfinite(one.score(silent, corpus)))


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_the_same_seed_gives_the_same_margins(method, world, fitted):
    corpus = world.study.corpus
    answers = random_answers(world.new_labels, world.seen, 5, seed=1)
    again = method.fit(world.study, 3)
    first, second = (
        one.score(one.adapt(corpus, answers), corpus) for one in (fitted[method.name], again)
    )
    np.testing.assert_array_equal(first, second)


def test_mixtures_of_lore_and_pal_are_shares(world, fitted):
    answers = random_answers(world.new_labels, world.seen, 10, seed=1)
    for name in ("lore", "pal_a", "pal_b"):
        users = fitted[name].adapt(world.study.corpus, answers)
        assert np.all(users >= 0.0)
        np.testing.assert_allclose(users.sum(axis=1), 1.0, atol=1e-6)


def test_lore_scores_as_its_formula(world, fitted):
    users = np.array([[0.1, 0.2, 0.3, 0.4]])
    one = fitted["lore"]
    scaled = one.scaling.apply(world.study.corpus)
    expected = (scaled.first - scaled.second) @ (one.bases.numpy() @ users[0])
    np.testing.assert_allclose(one.score(users, world.study.corpus)[0], expected, rtol=1e-5)


def test_mrm_without_answers_keeps_its_start_and_one_step_is_the_gradient(world, fitted):
    one, corpus = fitted["mrm"], world.study.corpus
    none = one.adapt(corpus, Answers(np.zeros((1, 2), np.int64), np.full((1, 2), np.nan)))
    start = one.module.start.detach().numpy()
    np.testing.assert_allclose(none[0], start, rtol=1e-6)
    scaled = one.scaling.apply(corpus)
    phi = (scaled.first - scaled.second)[7] @ one.module.head.detach().double().numpy().T
    rate = float(one.module.log_rate.detach().exp())
    expected = start + rate * (1.0 - expit(phi @ start)) * phi
    first, second = (torch.as_tensor(side, dtype=torch.float32) for side in scaled)
    answer = Answers(np.array([[7]]), np.array([[1.0]]))
    found = one.module.adapt(first - second, answer, 1).detach().numpy()
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_pal_a_prefers_what_is_nearer_to_the_ideal_point(world, fitted):
    one = fitted["pal_a"]
    scaled = one.scaling.apply(world.study.corpus)
    first, second = (torch.as_tensor(side, dtype=torch.float32) for side in scaled)
    mixture = np.array([[0.7, 0.1, 0.1, 0.1]])
    with torch.no_grad():
        ideal = one.module.f(torch.as_tensor(mixture, dtype=torch.float32) @ one.module.prototypes)
        expected = torch.linalg.vector_norm(
            one.module.f(second) - ideal, dim=1
        ) - torch.linalg.vector_norm(one.module.f(first) - ideal, dim=1)
    found = one.score(mixture, world.study.corpus)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_pal_b_is_bounded_by_its_largest_scale(world, fitted):
    one = fitted["pal_b"]
    with torch.no_grad():
        one.module.log_scale.fill_(50.0)
        margins = one.score(np.full((1, 4), 0.25), world.study.corpus)
        one.module.log_scale.fill_(float(np.log(1.0 / 0.07)))
    assert np.abs(margins).max() <= 200.0 + 1e-3


def test_vpl_does_not_depend_on_the_order_of_answers_nor_on_which_side_was_first(world, fitted):
    one, corpus = fitted["vpl"], world.study.corpus
    answers = random_answers(world.new_labels, world.seen, 8, seed=2)
    here = one.adapt(corpus, answers)
    turned = one.adapt(corpus, Answers(answers.pair[:, ::-1].copy(), answers.label[:, ::-1].copy()))
    np.testing.assert_allclose(turned, here, atol=1e-5)
    mirrored = Corpus(corpus.second, corpus.first)
    swapped = one.adapt(mirrored, Answers(answers.pair, 1.0 - answers.label))
    np.testing.assert_allclose(swapped, here, atol=1e-5)


def test_published_settings_can_be_chosen():
    assert Vpl.paper().width == 512
    assert (Pal.paper("B").learning_rate, Pal.paper("B").steps) == (1e-5, 500)
    assert Lore.paper().learning_rate == 0.5


def test_random_answers_depend_on_seed_and_row_and_leave_nan_to_the_end():
    labels = np.tile([0.0, 1.0, np.nan, 0.5, np.nan], (3, 1))
    found = random_answers(labels, np.arange(5), 4, seed=0)
    assert not np.isnan(found.label[:, :3]).any()
    assert np.isnan(found.label[:, 3]).all()
    again = random_answers(labels[:1], np.arange(5), 4, seed=0)
    np.testing.assert_array_equal(again.pair[0], found.pair[0])
