from __future__ import annotations

import numpy as np
import pytest

from pref_model.agreement import cohen_kappa, krippendorff_alpha
from pref_model.judge_effect import compare_factors

SETTINGS = {"d": 3, "head_l2": [1.0], "steps": 60}


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair differences (60, 12) and margins (30, 60) of rank 3."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(size=(60, 12))
    head = rng.normal(size=(3, 12))
    return differences, 1.5 * rng.normal(size=(30, 3)) @ head @ differences.T / 3.0


def labels(margins: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-margins))
    found = (rng.random(margins.shape) < chance).astype(float)
    return np.where(rng.random(margins.shape) < 0.8, found, np.nan)


def test_the_same_labels_give_the_same_factors() -> None:
    differences, margins = world(0)
    given = labels(margins, 1)
    found = compare_factors(differences, given, given, settings=SETTINGS, seed=0)
    assert found.margin_correlation == pytest.approx(1.0)
    assert found.subspace_cosine == pytest.approx(1.0)


def test_a_judge_of_other_tastes_changes_the_factors_more_than_noise_does() -> None:
    differences, margins = world(0)
    _, others = world(5)
    first = labels(margins, 1)
    noise = compare_factors(differences, first, labels(margins, 2), settings=SETTINGS, seed=0)
    other = compare_factors(differences, first, labels(others, 2), settings=SETTINGS, seed=0)
    assert noise.margin_correlation > 0.6 > 0.3 > abs(other.margin_correlation)
    assert noise.subspace_cosine > other.subspace_cosine


def test_more_base_rewards_than_pairs_are_lowered() -> None:
    differences, margins = world(0)
    few = labels(margins, 1)[:, :2]
    found = compare_factors(differences[:2], few, few, settings=SETTINGS, seed=0)
    assert found.margin_correlation == pytest.approx(1.0)


def test_kappa_is_that_of_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 200).astype(float)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, 3, 200))
    assert cohen_kappa(first, second) == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_alpha_of_a_published_example_with_missing_values() -> None:
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", four observers: 0.743.
    nan = np.nan
    ratings = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize(
    "measure", [cohen_kappa, lambda a, b: krippendorff_alpha(np.array([a, b]))]
)
def test_agreement_by_chance_is_nothing_and_perfect_agreement_is_one(measure: object) -> None:
    assert callable(measure)
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 2, (2, 20_000)).astype(float)
    assert measure(one, other) == pytest.approx(0.0, abs=0.02)
    assert measure(one, one) == pytest.approx(1.0)
    assert np.isnan(measure(one[:0], one[:0]))
    assert np.isnan(measure(np.ones(5), np.ones(5)))
