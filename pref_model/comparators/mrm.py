"""A meta-learned linear basis: bases and a start from which few gradient steps fit a user."""

from dataclasses import dataclass

import numpy as np
import torch

from pref_model.comparators.descent import UserTable, descend, nll, seeded, tensors
from pref_model.comparators.interface import Answers, Corpus, Scaling, Study
from pref_model.types import Floats


@dataclass(frozen=True)
class Mrm:
    """r_u = lambda_u^T W e, where lambda_u is n gradient steps from a learned start lambda_0.

    Inner: lambda <- lambda + alpha (1/k) sum_k (A_k - s(lambda^T phi_k)) phi_k on a user's k
    support answers, phi = W (e_A - e_B). Outer: Adam on (W, lambda_0, log alpha)
    minimizes the loss of the user's other answers, through the inner steps (MAML). METHOD
    section 6.

    Departures: k is drawn anew for every step so that one model serves every k, the inner step
    size is learned too, and `head_l2` shrinks W.

    Attributes:
        d: Bases.
        inner_steps: n.
        inner_rate: First alpha.
        learning_rate: Adam, outer.
        steps: Outer steps at most.
        support: Numbers of support answers drawn from.
        head_l2: - (l2 / 2) |W|^2 in units of one label.
    """

    d: int = 8
    inner_steps: int = 5
    inner_rate: float = 1.0
    learning_rate: float = 0.01
    steps: int = 400
    support: tuple[int, ...] = (1, 3, 5, 10, 20, 40)
    head_l2: float = 1.0
    name: str = "mrm"

    def fit(self, study: Study, seed: int) -> "FittedMrm":
        """Meta-train on the training users; validation adapts them to 10 answers."""
        scaling = Scaling.of(study)
        first, second = tensors(scaling.apply(study.corpus))
        differences, table = first - second, UserTable(study)
        module = seeded(seed, lambda: _Meta(first.shape[1], self.d, self.inner_rate))
        rng, everyone = np.random.default_rng([seed, self.d]), np.arange(study.n_users)
        n_cells = float(study.train.weight.sum())
        widest = int(table.is_there.sum(axis=1).max(initial=0))

        def loss(step: int) -> torch.Tensor:
            every = table.draw(rng, everyone, widest)
            k = min(int(rng.choice(self.support)), max(widest // 2, 1))
            users = module.adapt(differences, every.head(k), self.inner_steps)
            rest = Answers(every.pair[:, k:], every.label[:, k:])
            shrunk = 0.5 * self.head_l2 * module.head.square().sum() / n_cells
            return module.loss(differences, users, rest) + shrunk

        fixed = table.draw(np.random.default_rng([seed, 1]), everyone, 10)
        check = study.validation

        def look() -> float:
            users = module.adapt(differences, fixed, self.inner_steps)
            features = (differences @ module.head.T)[torch.as_tensor(check.pair)]
            margin = (features * users[torch.as_tensor(check.user)]).sum(dim=1)
            return float(nll(margin, torch.as_tensor(check.label, dtype=torch.float32)).mean())

        descend(
            module,
            loss,
            look if check.user.size else None,
            learning_rate=self.learning_rate,
            steps=self.steps,
        )
        return FittedMrm(self, scaling, module)


class _Meta(torch.nn.Module):
    def __init__(self, width: int, d: int, inner_rate: float) -> None:
        super().__init__()
        self.head = torch.nn.Parameter(torch.randn(d, width))
        self.start = torch.nn.Parameter(0.1 * torch.randn(d))
        self.log_rate = torch.nn.Parameter(torch.tensor(float(np.log(inner_rate))))

    def adapt(self, differences: torch.Tensor, answers: Answers, n_steps: int) -> torch.Tensor:
        phi = (differences @ self.head.T)[torch.as_tensor(answers.pair)]  # (U, K, d)
        label = torch.as_tensor(np.nan_to_num(answers.label, nan=0.5), dtype=torch.float32)
        present = torch.as_tensor(~np.isnan(answers.label), dtype=torch.float32)
        share = present / present.sum(dim=1, keepdim=True).clamp(min=1.0)
        users = self.start.expand(len(label), -1)
        for _ in range(n_steps):
            margin = (phi * users[:, None, :]).sum(dim=2)
            pull = share * (label - margin.sigmoid())
            users = users + self.log_rate.exp() * (pull[:, :, None] * phi).sum(dim=1)
        return users

    def loss(
        self, differences: torch.Tensor, users: torch.Tensor, answers: Answers
    ) -> torch.Tensor:
        phi = (differences @ self.head.T)[torch.as_tensor(answers.pair)]
        label = torch.as_tensor(np.nan_to_num(answers.label, nan=0.5), dtype=torch.float32)
        present = torch.as_tensor(~np.isnan(answers.label), dtype=torch.float32)
        lost = nll((phi * users[:, None, :]).sum(dim=2), label)
        return (present * lost).sum() / present.sum().clamp(min=1.0)


@dataclass(frozen=True)
class FittedMrm:
    """Bases and start after meta-training; a user is lambda (d,)."""

    config: Mrm
    scaling: Scaling
    module: _Meta

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Take the inner steps from lambda_0: (U, d)."""
        first, second = tensors(self.scaling.apply(corpus))
        with torch.no_grad():
            users = self.module.adapt(first - second, answers, self.config.inner_steps)
        return users.double().numpy()

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        head = self.module.head.detach().double().numpy()
        result: Floats = users @ (self.scaling.apply(corpus).differences @ head.T).T
        return result
