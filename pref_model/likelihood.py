"""The Bernoulli likelihood of a preference (eq 1, 4, 5), exact for any finite margin.

It knows nothing of users, networks or optimizers, and it never clamps: a clamped loss and its
gradient disagree exactly where a confident model needs them.
"""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from pref_model.types import Floats

if TYPE_CHECKING:
    import torch


def log_sigmoid(margin: Floats) -> Floats:
    """Return log s(x) = -log(1 + exp(-x)), elementwise, in nats.

    Numerics: logaddexp keeps full relative precision on both sides; log(expit(x)) is -inf below
    x = -745 and rounds to 0 above x = 37.
    """
    result: Floats = -np.logaddexp(0.0, -np.asarray(margin, dtype=np.float64))
    return result


def log_likelihood(margin: Floats, label: Floats) -> Floats:
    """Return A log s(f) + (1 - A) log(1 - s(f)), elementwise, in nats (eq 5, f from eq 4).

    Args:
        margin: (...) finite logits f = user weights . pair features.
        label: (...) in [0, 1]; 1/2 is a tie and pulls the margin to zero.

    Returns:
        (...) values <= 0.

    Numerics: both terms are non-positive, so nothing cancels; softplus(f) - A f, the usual short
    form, loses every digit for A = 1 and f > 37. Oracle: `reference.log_likelihood`.
    """
    return label * log_sigmoid(margin) + (1.0 - label) * log_sigmoid(-np.asarray(margin))


def margin_gradient(margin: Floats, label: Floats) -> Floats:
    """Return d log_likelihood / d margin = A - s(f), elementwise.

    Numerics: written A s(-f) - (1 - A) s(f), which keeps the tail exp(-f) that 1 - s(f) rounds
    away for f > 37. Oracle: autograd of `torch_log_likelihood`.
    """
    result: Floats = label * expit(-margin) - (1.0 - label) * expit(margin)
    return result


def curvature(margin: Floats) -> Floats:
    """Return s'(f) = s(f) s(-f), elementwise: the weight of an answer in eq 8. In (0, 1/4]."""
    result: Floats = expit(margin) * expit(-margin)
    return result


def torch_log_likelihood(margin: "torch.Tensor", label: "torch.Tensor") -> "torch.Tensor":
    """The torch twin of `log_likelihood` (eq 5): (...) logits and labels to (...) nats <= 0.

    Differentiable at any finite margin; its gradient is `margin_gradient`.
    `logsigmoid` is exact; `softplus` is not used because torch replaces it by x above 20.
    """
    from torch.nn.functional import logsigmoid

    return label * logsigmoid(margin) + (1.0 - label) * logsigmoid(-margin)
