import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pref_model import reference
from pref_model.likelihood import (
    curvature,
    log_likelihood,
    log_sigmoid,
    margin_gradient,
    torch_log_likelihood,
)

EXTREMES = [-1e3, -800.0, -745.2, -40.0, -1.0, -1e-9, 0.0, 0.3, 20.5, 37.0, 45.0, 800.0, 1e3]


@pytest.mark.parametrize("margin", EXTREMES)
@pytest.mark.parametrize("label", [0.0, 0.25, 0.5, 1.0])
def test_log_likelihood_agrees_with_sixty_digit_arithmetic(margin, label):
    expected = reference.log_likelihood(margin, label)
    found = float(log_likelihood(np.array(margin), np.array(label)))
    assert found == pytest.approx(expected, rel=1e-14, abs=1e-323)
    twin = torch_log_likelihood(
        torch.tensor(margin, dtype=torch.float64), torch.tensor(label, dtype=torch.float64)
    )
    assert float(twin) == pytest.approx(expected, rel=1e-14, abs=1e-323)


@pytest.mark.parametrize("margin", EXTREMES)
@pytest.mark.parametrize("label", [0.0, 0.25, 0.5, 1.0])
def test_closed_gradient_and_curvature_agree_with_autograd_at_extreme_margins(margin, label):
    x = torch.tensor(margin, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(
        torch_log_likelihood(x, torch.tensor(label, dtype=torch.float64)), x, create_graph=True
    )
    (bend,) = torch.autograd.grad(slope, x)
    assert float(margin_gradient(np.array(margin), np.array(label))) == pytest.approx(
        float(slope.detach()), rel=1e-12, abs=1e-16
    )
    assert float(curvature(np.array(margin))) == pytest.approx(-float(bend), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("margin", [-90.0, -38.0, 0.0, 38.0, 90.0])
def test_gradient_keeps_the_tail_that_one_minus_sigmoid_loses(margin):
    for label in (0.0, 1.0):
        assert float(margin_gradient(np.array(margin), np.array(label))) == pytest.approx(
            reference.margin_gradient(margin, label), rel=1e-13
        )


@given(st.floats(-800, 800), st.floats(0, 1))
def test_swapping_responses_negates_margin_and_changes_no_likelihood(margin, label):
    here = float(log_likelihood(np.array(margin), np.array(label)))
    there = float(log_likelihood(np.array(-margin), np.array(1.0 - label)))
    assert here <= 0.0
    assert here == pytest.approx(there, rel=1e-12, abs=1e-12)


def test_log_sigmoid_is_finite_where_the_naive_form_is_not():
    assert log_sigmoid(np.array([-800.0])) == -800.0
    assert np.all(np.isfinite(log_sigmoid(np.array([-1e308, 1e308]))))
