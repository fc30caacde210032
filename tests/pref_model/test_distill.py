import numpy as np
import pytest

from pref_model import reference
from pref_model.distill import distill
from pref_model.errors import BadArray


@pytest.mark.parametrize(("rows", "width"), [(30, 8), (12, 40), (15, 15)])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 100.0])
def test_leave_one_out_error_equals_refitting_without_each_row(rows, width, ridge):
    rng = np.random.default_rng(rows)
    x, y = rng.standard_normal((rows, width)), rng.standard_normal((rows, 2))
    found = distill(x, y, np.array([ridge]))
    expected = np.mean(reference.leave_one_out_errors(x, y, ridge) ** 2)
    assert found.loo_error == pytest.approx(expected, rel=1e-6)


def test_head_solves_the_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 50)), rng.standard_normal((20, 3))
    found = distill(x, y)
    left = (x.T @ x + found.ridge * np.eye(50)) @ found.head.T
    np.testing.assert_allclose(left, x.T @ y, atol=1e-8)


def test_strength_grows_with_noise_and_pure_noise_has_no_r2():
    rng = np.random.default_rng(1)
    x, head = rng.standard_normal((80, 300)), rng.standard_normal((2, 300))
    clean = distill(x, x @ head.T)
    noisy = distill(x, x @ head.T + 40.0 * rng.standard_normal((80, 2)))
    assert clean.ridge < noisy.ridge
    noise = distill(x, rng.standard_normal((80, 2)))
    assert noise.loo_r2 < 0.1


def test_swapping_responses_changes_no_head():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((20, 30)), rng.standard_normal((20, 2))
    sign = rng.choice([-1.0, 1.0], (20, 1))
    np.testing.assert_allclose(distill(x, y).head, distill(sign * x, sign * y).head, atol=1e-10)


def test_a_pair_of_weight_two_counts_as_two_pairs():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((10, 4)), rng.standard_normal((10, 1))
    weights = np.ones(10)
    weights[0] = 2.0
    ridge = 0.7
    repeated = distill(np.vstack([x, x[:1]]), np.vstack([y, y[:1]]), np.array([ridge]))
    weighted = distill(x, y, np.array([ridge / weights.mean()]), weights)
    np.testing.assert_allclose(weighted.head, repeated.head, atol=1e-10)


def test_all_zero_features_give_a_zero_head():
    assert np.all(distill(np.zeros((4, 3)), np.ones((4, 1))).head == 0.0)


def test_disagreeing_shapes_are_refused():
    with pytest.raises(BadArray, match="same M"):
        distill(np.zeros((4, 3)), np.zeros((5, 1)))
