"""Ties, soft labels and weights: what the fit gets is what the preferences and settings say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pref_model.types import Preferences
from tasks._stages.fit import STAGE
from tasks._stages.worlds import load_world
from tests.tasks.stages import worlds
from tests.tasks.stages.conftest import Bench


def rewrite(bench: Bench, change: dict[str, Any], every: int) -> None:
    """Changes every so many rows of the preferences."""
    rows = bench.rows("preferences")
    bench.put("preferences", [{**r, **change} if n % every == 0 else r for n, r in enumerate(rows)])


def train_part(bench: Bench, **config: Any) -> Preferences:
    return load_world(bench.inputs(STAGE, **{**worlds.FIT, **config})).part("train")


@pytest.fixture
def world(bench: Bench) -> Bench:
    worlds.put_world(bench)
    return bench


def test_a_label_weighs_as_many_as_its_verdicts_or_all_weigh_alike(world: Bench) -> None:
    rewrite(world, {"n_valid": 6, "n_asked": 6}, every=3)
    by_verdicts = train_part(world, weights="verdicts")
    assert sorted(set(by_verdicts.weight)) == [1.0, 3.0]
    assert np.mean(by_verdicts.weight == 3.0) == pytest.approx(1 / 3, abs=0.02)
    assert set(train_part(world, weights="equal").weight) == {1.0}


def test_soft_labels_and_ties_reach_the_fit_as_they_are(world: Bench) -> None:
    rewrite(world, {"preference_prob": 0.73, "is_tie": False}, every=2)
    labels = train_part(world).label
    assert np.isclose(labels, 0.73).sum() == labels.size / 2
    assert np.isclose(labels, 0.5).any()


@pytest.mark.parametrize("changed", [{"ties": "drop"}, {"weights": "verdicts"}])
def test_either_choice_is_another_version_and_another_model(
    world: Bench, changed: dict[str, Any]
) -> None:
    rewrite(world, {"n_valid": 6, "n_asked": 6}, every=3)
    plain = world.run(STAGE, **worlds.FIT, **({} if "ties" in changed else {"weights": "equal"}))
    before = world.rows("user_weights")
    other = world.run(STAGE, **{**worlds.FIT, **changed})
    assert other.version != plain.version
    assert world.rows("user_weights") != before


def test_a_heavier_label_counts_like_the_same_label_given_again(world: Bench) -> None:
    """Weight 3 on a cell is the likelihood of three such cells."""
    from pref_model.adapt import UserPrior, adapt_users

    rng = np.random.default_rng(0)
    phi, label = rng.standard_normal((1, 4, 2)), np.array([[1.0, 0.0, 0.5, 1.0]])
    prior = UserPrior.ridge(2, 1.0)
    heavy = adapt_users(phi, label, np.array([[3.0, 1.0, 1.0, 1.0]]), prior)
    place = [0, 0, 0, 1, 2, 3]
    again = adapt_users(phi[:, place], label[:, place], np.ones((1, 6)), prior)
    np.testing.assert_allclose(heavy.mean, again.mean, atol=1e-7)
