"""What a fitted reward model is, what was asked for, and how it was run; it trains nothing."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from pref_model.errors import BadSetting
from pref_model.types import Floats, Floats32, finite_matrix


@dataclass(frozen=True)
class FitConfig:
    """What is fitted. Changing any of these changes the model.

    Attributes:
        d: Base rewards.
        start: "svd" (ours), "svd_raw" (the paper's uncentered variant), "random" (ablation), or
            "features" (no shared pairs needed; `unshared.fit_unshared` alone takes it).
        user_l2: beta of eq 5: sum of log likelihoods - (beta / 2) |Lambda|^2.
        head_l2: Strengths tried for the head, - (strength / 2) |W|^2 in the same units, with
            inputs scaled to mean squared length 1; the best on validation is kept, the middle
            one is used where there is no validation part.
        head_learning_rate: AdamW step size of the head.
        user_learning_rate: AdamW step size of the user weights.
        steps: Gradient steps at most.
        batch_pairs: Pairs a batch, each with all its labels.
        evaluate_every: Steps between two looks at the validation part.
        patience: Looks without improvement before stopping.
        ties: "half" keeps ties as labels of 1/2, "drop" leaves them out as the authors do.
    """

    d: int = 8
    start: Literal["svd", "svd_raw", "features", "random"] = "svd"
    user_l2: float = 1.0
    head_l2: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    head_learning_rate: float = 0.003
    user_learning_rate: float = 0.01
    steps: int = 500
    batch_pairs: int = 32
    evaluate_every: int = 10
    patience: int = 15
    ties: Literal["half", "drop"] = "half"

    def __post_init__(self) -> None:
        for name in ("d", "batch_pairs", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise BadSetting(f"fit: found {name}={getattr(self, name)}, expected at least 1")
        if self.steps < 0:
            raise BadSetting(f"fit: found steps={self.steps}, expected 0 or more")
        if self.user_l2 < 0.0 or not self.head_l2 or min(self.head_l2) < 0.0:
            raise BadSetting(
                f"fit: found user_l2={self.user_l2} and head_l2={self.head_l2}, "
                "expected strengths >= 0 and at least one for the head"
            )
        if self.start not in ("svd", "svd_raw", "features", "random"):
            raise BadSetting(
                f"fit: found start='{self.start}', expected svd, svd_raw, features or random"
            )
        if self.ties not in ("half", "drop"):
            raise BadSetting(f"fit: found ties='{self.ties}', expected half or drop")


@dataclass(frozen=True)
class RunConfig:
    """How a fit is run. On one device these change nothing but the seed's draws.

    Attributes:
        device: "cpu", "cuda" or "mps"; "auto" lets Accelerate choose.
        seed: Seed of batch order and of random starts.
    """

    device: str = "cpu"
    seed: int = 0


class FitPoint(NamedTuple):
    """One look at a fit: mean negative log likelihoods in nats a label.

    `validation_nll` is None where no validation part was given.
    """

    head_l2: float
    step: int
    train_nll: float
    validation_nll: float | None


@dataclass(frozen=True)
class RewardModel:
    """d base rewards on top of a frozen encoder, and the weights of the training users.

    Attributes:
        head: (d, D) float32, acts on scaled embeddings.
        feature_mean: (D,) float32; moves every reward by one constant, so it cancels in pairs.
        feature_scale: (D,) float32 > 0, from training pairs only.
        user_weights: (U, d) float32, training users in the order they were given.
        config: What was asked for.
        head_l2: The strength that was kept.
        history: Looks at the kept fit, in order.
    """

    head: Floats32
    feature_mean: Floats32
    feature_scale: Floats32
    user_weights: Floats32
    config: FitConfig
    head_l2: float
    history: tuple[FitPoint, ...] = field(default=())

    @property
    def d(self) -> int:
        """Number of base rewards."""
        return int(self.head.shape[0])

    def response_features(self, embeddings: Floats) -> Floats:
        """Return phi(x, y) of eq 3, (R, d) float64, for embeddings (R, D).

        Raises:
            BadArray: Another embedding width, or a non-finite value.
        """
        values = finite_matrix(embeddings, "embeddings", self.head.shape[1])
        directions = self._directions()
        return values @ directions.T - directions @ self.feature_mean.astype(np.float64)

    def pair_features(self, pair_differences: Floats) -> Floats:
        """Return phi_m = phi(first) - phi(second), (M, d) float64, for differences (M, D)."""
        values = finite_matrix(pair_differences, "pair differences", self.head.shape[1])
        return values @ self._directions().T

    def _directions(self) -> Floats:
        """Return the head on embeddings as they are, (d, D): no scaled copy of them is needed."""
        return self.head.astype(np.float64) / self.feature_scale
