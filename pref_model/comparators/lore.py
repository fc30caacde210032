"""LoRe (arXiv 2504.14439): every user's reward is a convex mixture of a few linear ones."""

from dataclasses import dataclass

import numpy as np
import torch

from pref_model.comparators.descent import Cells, adapt_logits, descend, nll, seeded, tensors
from pref_model.comparators.interface import Answers, Corpus, Scaling, Study
from pref_model.types import Floats


@dataclass(frozen=True)
class Lore:
    """r_u(x, y) = e(x, y)^T V softmax(omega_u), e frozen; a margin is r_u(A) - r_u(B).

    V (D, B) and omega (U, B) are trained together by the likelihood of eq 5; a new user trains
    omega alone, from the uniform mixture. METHOD section 6.

    Departures: embeddings are scaled (mean squared length 1), the validation part stops the fit,
    and `basis_l2` may shrink V, - (l2 / 2) |V|^2 in units of one label (0 is the published form).

    Attributes:
        n_bases: B.
        learning_rate: Adam, of the joint fit (published: 0.5).
        adapt_learning_rate: Adam, of a new user's omega.
        steps: Joint steps at most.
        adapt_steps: Steps of a new user.
        basis_l2: Shrinkage of V.
    """

    n_bases: int = 8
    learning_rate: float = 0.1
    adapt_learning_rate: float = 0.1
    steps: int = 400
    adapt_steps: int = 100
    basis_l2: float = 1.0
    name: str = "lore"

    @classmethod
    def paper(cls) -> "Lore":
        """Return the published settings."""
        return cls(learning_rate=0.5, adapt_learning_rate=0.5, steps=1000, basis_l2=0.0)

    def fit(self, study: Study, seed: int) -> "FittedLore":
        """Train V and the training users' mixtures."""
        scaling = Scaling.of(study)
        first, second = tensors(scaling.apply(study.corpus))
        differences, width = first - second, first.shape[1]
        module = seeded(seed, lambda: _Mixture(width, self.n_bases, study.n_users))
        train, check = Cells(study.train), Cells(study.validation)

        def loss(step: int) -> torch.Tensor:
            shrunk = 0.5 * self.basis_l2 * module.bases.square().sum() / train.weight.sum()
            return train.loss(module(differences, train.pair, train.user)) + shrunk

        def look() -> float:
            return float(check.loss(module(differences, check.pair, check.user)))

        descend(
            module,
            loss,
            look if study.validation.user.size else None,
            learning_rate=self.learning_rate,
            steps=self.steps,
        )
        return FittedLore(self, scaling, module.bases.detach())


class _Mixture(torch.nn.Module):
    def __init__(self, width: int, n_bases: int, n_users: int) -> None:
        super().__init__()
        self.bases = torch.nn.Parameter(0.1 * torch.randn(width, n_bases))
        self.users = torch.nn.Parameter(0.1 * torch.randn(n_users, n_bases))

    def forward(
        self, differences: torch.Tensor, pair: torch.Tensor, user: torch.Tensor
    ) -> torch.Tensor:
        features = (differences @ self.bases)[pair]
        return (features * self.users.softmax(dim=1)[user]).sum(dim=1)


@dataclass(frozen=True)
class FittedLore:
    """V after training; a user is a mixture (B,), non-negative, summing to one."""

    config: Lore
    scaling: Scaling
    bases: torch.Tensor

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Fit omega to the answers and return softmax(omega): (U, B)."""
        features = torch.as_tensor(self._features(corpus)[answers.pair], dtype=torch.float32)

        def margins(logits: torch.Tensor) -> torch.Tensor:
            return (features * logits.softmax(dim=1)[:, None, :]).sum(dim=2)

        logits = adapt_logits(
            margins,
            nll,
            answers,
            self.bases.shape[1],
            learning_rate=self.config.adapt_learning_rate,
            steps=self.config.adapt_steps,
        )
        return logits.softmax(dim=1).double().numpy()

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        return np.asarray(users @ self._features(corpus).T)

    def _features(self, corpus: Corpus) -> Floats:
        result: Floats = self.scaling.apply(corpus).differences @ self.bases.double().numpy()
        return result
