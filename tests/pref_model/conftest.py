"""Tiny worlds with known answers for this room's tests."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit

from pref_model.types import Preferences, make_preferences


class World(NamedTuple):
    differences: np.ndarray  # (M, D)
    user_weights: np.ndarray  # (U, d)
    pair_features: np.ndarray  # (M, d)
    labels: np.ndarray  # (U, M): 0, 1/2, 1


def _planted_world(
    n_users=60, n_pairs=80, d=3, width=40, seed=0, shared=1.5, scale=2.0, noise=0.05, n_orders=2
) -> World:
    """Users and pairs with d planted factors, a shared taste, and features that carry them."""
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((n_users, d))
    users[:, 0] += shared
    head = rng.standard_normal((d, width)) / np.sqrt(width)
    differences = rng.standard_normal((n_pairs, width))
    features = differences @ head.T * scale
    probability = expit(users @ features.T)
    labels = np.mean([rng.random(probability.shape) < probability for _ in range(n_orders)], axis=0)
    return World(
        differences + noise * rng.standard_normal(differences.shape), users, features, labels
    )


def _cells(labels: np.ndarray, users, pairs) -> Preferences:
    """Observed cells of the named users (renumbered from 0) and pairs (kept numbers)."""
    users, pairs = np.asarray(users), np.asarray(pairs)
    block = labels[np.ix_(users, pairs)]
    row, column = np.nonzero(~np.isnan(block))
    return make_preferences(row, pairs[column], block[row, column])


@pytest.fixture(scope="session")
def planted_world():
    return _planted_world


@pytest.fixture(scope="session")
def cells():
    return _cells
