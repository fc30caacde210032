"""VPL (arXiv 2408.10075): an encoder reads a user's answers into a code the reward is given."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import embedding

from pref_model.comparators.descent import UserTable, descend, nll, seeded, tensors
from pref_model.comparators.interface import Answers, Corpus, Scaling, Study
from pref_model.types import Floats

_CYCLES = 4
# The codes are first used after a long plateau.
_PATIENCE = 40


@dataclass(frozen=True)
class Vpl:
    """Variational preference learning (METHOD section 6).

    Per answered pair e_n = MLP([e(chosen); e(rejected)]); single-head self-attention over the N
    codes, mean over them -> mu, log sigma^2 in [-1, 1]; z = mu + sigma eps, rescaled to norm
    sqrt(width) in training and z = mu for a new user; r = MLP([e(x, y); z]), margin =
    r(A) - r(B). Loss: negative log likelihood of other answers of the user + w KL(N(mu, sigma^2) |
    N(0, I)), w annealed over four cycles from 0 to `kl_weight`. A new user costs one encoder pass.

    Departures: z is rescaled for a new user too, since the reward has never seen another length
    (`is_rescaled_at_test=False` is the published form). Ties have no chosen side and are left out
    of the context, not of the loss. Log sigma^2 is limited by tanh, whose gradient is true
    everywhere. Context sizes are drawn anew each step, so that one model serves every k.
    Embeddings are scaled to unit variance, which is what layers of this kind expect: with the
    shorter ones of the linear methods the codes were never used. Validation stops the fit.

    Attributes:
        width: Units of every layer and length of z (published: 512).
        learning_rate: Adam.
        weight_decay_l2: - (l2 / 2) |parameters|^2 in the mean loss.
        kl_weight: Largest weight of the KL term.
        steps: Steps at most.
        users_per_step: Users a step.
        context: Numbers of context answers drawn from.
        is_rescaled_at_test: Whether a new user's z gets the length it has in training.
    """

    width: int = 64
    learning_rate: float = 0.001
    weight_decay_l2: float = 1e-4
    kl_weight: float = 1e-4
    steps: int = 600
    users_per_step: int = 32
    context: tuple[int, ...] = (1, 3, 5, 10, 20, 40)
    is_rescaled_at_test: bool = True
    name: str = "vpl"

    @classmethod
    def paper(cls) -> "Vpl":
        """Return the published sizes and the published use of z."""
        return cls(512, 1e-4, 0.0, 1e-4, 2000, is_rescaled_at_test=False)

    def fit(self, study: Study, seed: int) -> "FittedVpl":
        """Train encoder and reward; validation codes each user from 10 answers."""
        scaling = Scaling.of(study)
        sides = _sides(scaling, study.corpus)
        table, rng = UserTable(study), np.random.default_rng([seed, self.width])
        module = seeded(seed, lambda: _Vpl(sides[0].shape[1], self.width))
        noise = torch.Generator().manual_seed(seed)
        widest = int(table.is_there.sum(axis=1).max(initial=0))

        def loss(step: int) -> torch.Tensor:
            size = min(self.users_per_step, study.n_users)
            every = table.draw(rng, rng.choice(study.n_users, size, replace=False), widest)
            k = min(int(rng.choice(self.context)), max(widest // 2, 1))
            mean, log_variance = module.encode(sides, every.head(k))
            drawn = torch.randn(mean.shape, generator=noise)
            z = mean + (0.5 * log_variance).exp() * drawn
            z = _rescaled(z)
            pair, label = every.pair[:, k:], every.label[:, k:]
            margin = module.margins(sides, z, torch.as_tensor(pair))
            present = torch.as_tensor(~np.isnan(label), dtype=torch.float32)
            target = torch.as_tensor(np.nan_to_num(label, nan=0.5), dtype=torch.float32)
            lost = (present * nll(margin, target)).sum() / present.sum().clamp(min=1.0)
            kl = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()
            phase = (step * _CYCLES % self.steps) / self.steps
            decay = sum((part.square().sum() for part in module.parameters()), torch.zeros(()))
            weight = self.kl_weight * min(1.0, 2.0 * phase)
            return lost + weight * kl + 0.5 * self.weight_decay_l2 * decay

        check = study.validation
        everyone = np.arange(study.n_users)
        fixed = table.draw(np.random.default_rng([seed, 1]), everyone, 10)
        checked = np.unique(check.pair)
        place = torch.as_tensor(np.searchsorted(checked, check.pair))
        new_pairs = torch.as_tensor(checked).expand(study.n_users, -1)

        def look() -> float:
            z, _ = module.encode(sides, fixed)
            z = _rescaled(z) if self.is_rescaled_at_test else z
            margin = module.margins(sides, z, new_pairs)[torch.as_tensor(check.user), place]
            return float(nll(margin, torch.as_tensor(check.label, dtype=torch.float32)).mean())

        descend(
            module,
            loss,
            look if check.user.size else None,
            learning_rate=self.learning_rate,
            steps=self.steps,
            patience=_PATIENCE,
        )
        return FittedVpl(self, scaling, module)


class _Vpl(torch.nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.pair_in, self.pair_code = _mlp(2 * features, width, width)
        self.query, self.key, self.value = (torch.nn.Linear(width, width) for _ in range(3))
        self.mean, self.log_variance = (torch.nn.Linear(width, width) for _ in range(2))
        self.reward_in, self.reward = _mlp(features + width, width, 1)

    def encode(
        self, sides: tuple[torch.Tensor, torch.Tensor], answers: Answers
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mu and log sigma^2 (U, width); zeros for a user without an answer for a side."""
        pair = torch.as_tensor(answers.pair)
        label = torch.as_tensor(np.nan_to_num(answers.label, nan=0.5), dtype=torch.float32)
        present = label != 0.5
        is_first = (label > 0.5)[:, :, None]
        # A layer on [chosen; rejected] is a sum of two, each worked out once a response.
        weight, width = self.pair_in.weight, sides[0].shape[1]
        chosen, rejected = weight[:, :width], weight[:, width:]
        upright = sides[0] @ chosen.T + sides[1] @ rejected.T
        turned = sides[1] @ chosen.T + sides[0] @ rejected.T
        hidden = torch.where(is_first, embedding(pair, upright), embedding(pair, turned))
        code = self.pair_code(hidden + self.pair_in.bias)  # (U, K, width)
        affinity = self.query(code) @ self.key(code).transpose(1, 2) / self.width**0.5
        # A finite mask: a user without any answer would have a row of -inf, and so nan.
        affinity = affinity.masked_fill(~present[:, None, :], -1e9)
        mixed = affinity.softmax(dim=2) @ self.value(code)
        share = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        pooled = (share[:, :, None] * mixed).sum(dim=1)
        has_answer = present.any(dim=1, keepdim=True)
        mean = torch.where(has_answer, self.mean(pooled), torch.zeros(()))
        return mean, torch.where(has_answer, torch.tanh(self.log_variance(pooled)), torch.zeros(()))

    def margins(
        self, sides: tuple[torch.Tensor, torch.Tensor], z: torch.Tensor, pair: torch.Tensor
    ) -> torch.Tensor:
        """Margins (U, P) of each user's own pairs (U, P) given codes z (U, width)."""
        weight, width = self.reward_in.weight, sides[0].shape[1]
        response, own = weight[:, :width], weight[:, width:]
        hidden = (z @ own.T + self.reward_in.bias)[:, None, :]
        first, second = (
            self.reward(embedding(pair, side @ response.T) + hidden)[:, :, 0] for side in sides
        )
        margins: torch.Tensor = first - second
        return margins


def _sides(scaling: Scaling, corpus: Corpus) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides with entries of variance 1, (M, D)."""
    first, second = tensors(scaling.apply(corpus))
    return first * first.shape[1] ** 0.5, second * second.shape[1] ** 0.5


def _rescaled(z: torch.Tensor) -> torch.Tensor:
    """Give each code the norm sqrt(width); a code of zeros, from no answers, stays zero."""
    size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    length = torch.where(size > 0.0, size, torch.ones(()))
    rescaled: torch.Tensor = z * (float(z.shape[1]) ** 0.5 / length)
    return rescaled


def _mlp(width_in: int, width: int, width_out: int) -> tuple[torch.nn.Linear, torch.nn.Sequential]:
    """Three layers: the first, and what follows it."""
    return torch.nn.Linear(width_in, width), torch.nn.Sequential(
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(width, width),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(width, width_out),
    )


@dataclass(frozen=True)
class FittedVpl:
    """Encoder and reward after training; a user is the code z (width,)."""

    config: Vpl
    scaling: Scaling
    module: _Vpl

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Encode the answers: (U, width)."""
        with torch.no_grad():
            z, _ = self.module.encode(_sides(self.scaling, corpus), answers)
            z = _rescaled(z) if self.config.is_rescaled_at_test else z
        return z.double().numpy()

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        sides = _sides(self.scaling, corpus)
        z = torch.as_tensor(users, dtype=torch.float32)
        pairs = torch.arange(len(sides[0])).expand(len(z), -1)
        with torch.no_grad():
            margins = self.module.margins(sides, z, pairs)
        return np.asarray(margins.double().numpy())
