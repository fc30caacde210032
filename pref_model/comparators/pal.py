"""PAL (arXiv 2406.08469): users are mixtures of shared prototypes, as ideal points or as angles."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, relu

from pref_model.comparators.descent import Cells, adapt_logits, descend, nll, seeded, tensors
from pref_model.comparators.interface import Answers, Corpus, Scaling, Study
from pref_model.types import Floats

_LOG_SCALE_CAP = float(np.log(100.0))


@dataclass(frozen=True)
class Pal:
    """PAL-A and PAL-B; w_u = softmax of user logits over K prototypes (METHOD section 6).

    A, ideal point: a = f(sum_k w_k p_k) with p_k in the embedding space;
    margin = |f(e_B) - a| - |f(e_A) - a|; hinge loss max(0, 1 - y margin), y = 2 A - 1.
    B: a(x) = sum_k w_k g_k(e_x), r = exp(tau) cos(f(e_y), a(x)), tau_0 = ln(1 / 0.07),
    exp(tau) <= 100; likelihood of eq 1. A new user fits w alone; f, p, g and tau stay fixed.

    Departures: f and g_k are a hidden layer wide and the embeddings scaled; a tie (y = 0) has no
    hinge and is left out of A; the prompt alone has no embedding here, so e_x is the mean of
    the pair's two embeddings, which share the prompt; validation stops the fit.

    Attributes:
        kind: "A" or "B".
        n_prototypes: K.
        width: Hidden units, and the dimension of the space of ideal points.
        learning_rate: Adam, of the joint fit.
        adapt_learning_rate: Adam, of a new user's logits.
        steps: Joint steps at most.
        adapt_steps: Steps of a new user.
        batch: Cells a step.
    """

    kind: Literal["A", "B"] = "A"
    n_prototypes: int = 8
    width: int = 64
    learning_rate: float = 0.001
    adapt_learning_rate: float = 0.1
    steps: int = 600
    adapt_steps: int = 100
    batch: int = 512

    @property
    def name(self) -> str:
        """pal_a or pal_b."""
        return f"pal_{self.kind.lower()}"

    @classmethod
    def paper(cls, kind: Literal["A", "B"]) -> "Pal":
        """Return the settings of PReF's table 1."""
        return cls(kind, 8, 512, 1e-5, 1e-5, 500, 500, 32)

    def fit(self, study: Study, seed: int) -> "FittedPal":
        """Train prototypes, maps and the training users' mixtures."""
        scaling = Scaling.of(study)
        sides = tensors(scaling.apply(study.corpus))
        module = seeded(seed, lambda: _Pal(self, sides[0].shape[1], study.n_users))
        train, check = Cells(study.train), Cells(study.validation)
        rng = np.random.default_rng([seed, self.n_prototypes])

        def margins(user: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
            mixture = module.users[user].softmax(dim=1)
            kept, rows = torch.unique(pair, return_inverse=True)  # a pair serves all its cells
            one: torch.Tensor = module(sides[0][kept], sides[1][kept], mixture[:, None, :], rows)
            return one[:, 0]

        def loss(step: int) -> torch.Tensor:
            rows = torch.as_tensor(rng.integers(0, len(train.user), self.batch))
            lost = self.lost(margins(train.user[rows], train.pair[rows]), train.label[rows])
            weight = train.weight[rows]
            return (weight * lost).sum() / weight.sum()

        def look() -> float:
            lost = self.lost(margins(check.user, check.pair), check.label)
            return float((check.weight * lost).sum() / check.weight.sum())

        descend(
            module,
            loss,
            look if study.validation.user.size else None,
            learning_rate=self.learning_rate,
            steps=self.steps,
        )
        for part in module.parameters():
            part.requires_grad_(False)
        return FittedPal(self, scaling, module)

    def lost(self, margin: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Hinge (A) or negative log likelihood (B), elementwise."""
        if self.kind == "B":
            return nll(margin, label)
        y = 2.0 * label - 1.0
        return torch.where(y == 0.0, torch.zeros_like(margin), relu(1.0 - y * margin))


class _Pal(torch.nn.Module):
    def __init__(self, config: Pal, embedding: int, n_users: int) -> None:
        super().__init__()
        self.kind = config.kind
        self.users = torch.nn.Parameter(0.1 * torch.randn(n_users, config.n_prototypes))
        self.f = _mlp(embedding, config.width)
        # Prototypes live among the embeddings, whose squared length is 1 on average.
        self.prototypes = torch.nn.Parameter(
            torch.randn(config.n_prototypes, embedding) / embedding**0.5
        )
        self.g = torch.nn.ModuleList(
            _mlp(embedding, config.width) for _ in range(config.n_prototypes)
        )
        self.log_scale = torch.nn.Parameter(torch.tensor(float(np.log(1.0 / 0.07))))

    def forward(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        mixture: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Margins (P, Q) of pairs (P, D) for mixtures (P, Q, K) or (1, Q, K).

        With `rows` (N,) the margins (N, Q) of pairs[rows], each pair mapped once.
        """
        own = slice(None) if rows is None else rows
        one, other = self.f(first)[own][:, None, :], self.f(second)[own][:, None, :]
        if self.kind == "A":
            ideal = self.f(mixture @ self.prototypes)  # (P, Q, width)
            far = torch.linalg.vector_norm(other - ideal, dim=2)
            near = torch.linalg.vector_norm(one - ideal, dim=2)
            nearer: torch.Tensor = far - near
            return nearer
        context = torch.stack([g(0.5 * (first + second)) for g in self.g], dim=1)  # (P, K, width)
        wanted = mixture @ context[own]
        scale = torch.clamp(self.log_scale, max=_LOG_SCALE_CAP).exp()
        return scale * (
            cosine_similarity(one, wanted, dim=2) - cosine_similarity(other, wanted, dim=2)
        )


def _mlp(width_in: int, width: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(width_in, width), torch.nn.GELU(), torch.nn.Linear(width, width)
    )


@dataclass(frozen=True)
class FittedPal:
    """Prototypes and maps after training; a user is a mixture (K,), summing to one."""

    config: Pal
    scaling: Scaling
    module: _Pal

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Fit the mixtures to the answers and return them: (U, K)."""
        first, second = tensors(self.scaling.apply(corpus))
        n_users, k = answers.pair.shape
        kept, rows = torch.unique(torch.as_tensor(answers.pair).flatten(), return_inverse=True)

        def margins(logits: torch.Tensor) -> torch.Tensor:
            mixture = logits.softmax(dim=1).repeat_interleave(k, dim=0)[:, None, :]
            one: torch.Tensor = self.module(first[kept], second[kept], mixture, rows)
            return one.reshape(n_users, k)

        logits = adapt_logits(
            margins,
            self.config.lost,
            answers,
            self.config.n_prototypes,
            learning_rate=self.config.adapt_learning_rate,
            steps=self.config.adapt_steps,
        )
        return logits.softmax(dim=1).double().numpy()

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        first, second = tensors(self.scaling.apply(corpus))
        mixture = torch.as_tensor(users, dtype=torch.float32)[None]
        with torch.no_grad():
            margins = self.module(first, second, mixture)
        return np.asarray(margins.T.double().numpy())
