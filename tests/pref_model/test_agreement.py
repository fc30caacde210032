from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pref_model.agreement import audit_orders, share


def draw(bias: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """First-position wins of a judge with margins of every size, in both orders."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1.5, n)
    ab = rng.random(n) < 1 / (1 + np.exp(-(margin + bias)))
    ba = rng.random(n) < 1 / (1 + np.exp(-(-margin + bias)))
    return ab, ba


@pytest.mark.parametrize("bias", [-0.8, 0.0, 0.35, 1.2])
def test_the_bias_is_recovered_whatever_the_margins(bias: float) -> None:
    found = audit_orders(*draw(bias, 200_000, seed=1)).position_bias_logit
    assert found.share == pytest.approx(bias, abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(300):
        found = audit_orders(*draw(0.35, 400, seed)).position_bias_logit
        hits += found.low <= 0.35 <= found.high
    # Exact binomial intervals cover at least 95 %; 300 draws have a deviation of 1.3 points.
    assert hits / 300 > 0.93


def test_negating_the_positions_negates_the_bias() -> None:
    ab, ba = draw(0.5, 1000, seed=2)
    there, back = audit_orders(ab, ba), audit_orders(~ab, ~ba)
    assert there.position_bias_logit.share == pytest.approx(-back.position_bias_logit.share)
    assert there.n_consistent == back.n_consistent


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 17), (500, 1000)])
def test_a_share_s_interval_is_the_exact_binomial_one(count: int, total: int) -> None:
    found = share(count, total)
    oracle = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_nothing_counted_is_nothing_known() -> None:
    found = audit_orders(np.zeros(0, bool), np.zeros(0, bool))
    assert found.n_complete == 0
    assert np.isnan(found.first_share.share)
    assert np.isnan(found.position_bias_logit.share)
