import numpy as np
import pytest
from scipy.special import expit

from pref_model import reference
from pref_model.information import mutual_information, mutual_information_exact


def grid():
    margin = np.concatenate([[0.0], np.logspace(-3, 3, 13)])
    deviation = np.concatenate([[0.0], np.logspace(-3, 4, 15)])
    f, s = np.meshgrid(margin, deviation)
    return f.ravel(), s.ravel() ** 2


def test_the_quadrature_equals_adaptive_integration():
    rng = np.random.default_rng(0)
    for f, s in zip(rng.uniform(-6, 6, 12), np.logspace(-1.5, 1.5, 12), strict=True):
        found = mutual_information_exact(np.array([f]), np.array([s**2]))[0]
        expected = reference.question_score(
            "bald", np.ones(1), np.array([f]), np.array([[s**2]]), np.ones((1, 1))
        )
        assert found == pytest.approx(expected, abs=1e-7)


def test_the_table_equals_the_quadrature_at_any_belief():
    f, q = grid()
    np.testing.assert_allclose(
        mutual_information(f, q), mutual_information_exact(f, q), rtol=0.0, atol=5e-8
    )
    rng = np.random.default_rng(1)
    f, q = 8.0 * rng.standard_normal(20_000), 10.0 ** rng.uniform(-9, 8, 20_000)
    np.testing.assert_allclose(
        mutual_information(f, q), mutual_information_exact(f, q), rtol=0.0, atol=5e-8
    )


def test_among_nearly_known_logits_the_table_keeps_the_leading_term():
    f = np.linspace(0.0, 12.0, 50)
    q = np.full(50, 1e-9)
    np.testing.assert_allclose(mutual_information(f, q), 0.5 * q * expit(f) * expit(-f), rtol=1e-5)


def test_information_is_even_in_the_margin_and_at_most_one_bit():
    f, q = grid()
    np.testing.assert_array_equal(mutual_information(f, q), mutual_information(-f, q))
    assert np.all(mutual_information(f, q) >= 0.0)
    assert np.all(mutual_information(f, q) <= np.log(2.0) + 1e-12)


def test_a_known_logit_tells_nothing_and_an_unknown_sign_tells_a_bit():
    assert mutual_information(np.array([1.3]), np.zeros(1))[0] == pytest.approx(0.0, abs=1e-15)
    assert mutual_information(np.zeros(1), np.array([1e8]))[0] == pytest.approx(
        np.log(2.0), abs=2e-4
    )


def test_among_pairs_that_are_all_but_certain_the_less_certain_tells_more():
    f = np.array([17.0, 20.0, 40.0, 200.0])
    gain = mutual_information(f, np.full(4, 0.5))
    assert np.all(np.diff(gain) < 0.0)
