"""The gradient loop the neural comparators share: Adam, validation, the best state kept."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from pref_model.comparators.interface import Answers, Corpus, Study
from pref_model.errors import FitFailed
from pref_model.types import Preferences

Module = TypeVar("Module", bound=torch.nn.Module)


def seeded(seed: int, build: Callable[[], Module]) -> Module:
    """Build a module with initial weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def tensors(corpus: Corpus) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both sides as float32 tensors (M, D)."""
    first, second = (torch.as_tensor(side, dtype=torch.float32) for side in corpus)
    return first, second


class Cells:
    """Cells as tensors: user, pair, label, weight, each (N,)."""

    def __init__(self, cells: Preferences) -> None:
        self.user, self.pair = torch.as_tensor(cells.user), torch.as_tensor(cells.pair)
        self.label = torch.as_tensor(cells.label, dtype=torch.float32)
        self.weight = torch.as_tensor(cells.weight, dtype=torch.float32)

    def loss(self, margin: torch.Tensor) -> torch.Tensor:
        """Mean negative log likelihood in nats a unit weight (eq 5)."""
        return (self.weight * nll(margin, self.label)).sum() / self.weight.sum()


def nll(margin: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return -A log s(f) - (1 - A) log s(-f), elementwise, nats."""
    return -(label * logsigmoid(margin) + (1.0 - label) * logsigmoid(-margin))


def descend(
    module: torch.nn.Module,
    loss: Callable[[int], torch.Tensor],
    look: Callable[[], float] | None,
    *,
    learning_rate: float,
    steps: int,
    every: int = 20,
    patience: int = 10,
) -> None:
    """Minimize `loss(step)` by Adam and leave `module` at the state with the lowest `look()`.

    Args:
        module: What is trained, in place.
        loss: Loss of one step, a fresh batch each call.
        look: Validation loss; None keeps the last state.
        learning_rate: Adam's step size.
        steps: Steps at most.
        every: Steps between looks.
        patience: Looks without improvement before stopping.

    Raises:
        FitFailed: The loss became nan or infinite.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    best, kept, waited = float("inf"), None, 0
    for step in range(steps + 1):
        if look is not None and (step % every == 0 or step == steps):
            with torch.no_grad():
                value = look()
            waited += 1
            if value < best:
                best, waited = value, 0
                kept = {name: part.clone() for name, part in module.state_dict().items()}
            if waited > patience:
                break
        if step == steps:
            break
        value_here = loss(step)
        if not torch.isfinite(value_here):
            raise FitFailed(
                f"comparator: found loss {float(value_here)} at step {step}, expected a finite "
                "number; lower the learning rate"
            )
        optimizer.zero_grad()
        value_here.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if kept is not None:
        module.load_state_dict(kept)


def adapt_logits(
    margins: Callable[[torch.Tensor], torch.Tensor],
    lost: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    answers: Answers,
    width: int,
    *,
    learning_rate: float,
    steps: int,
) -> torch.Tensor:
    """Fit each user's mixture logits (U, width) from zero, everything else fixed.

    Users do not interact: the sum over users of each user's mean loss has their separate
    gradients, and Adam works entry by entry.

    Args:
        margins: Logits (U, width) to margins (U, K) of the answered pairs.
        lost: (margins, labels) to losses, elementwise.
        answers: The answers; absent ones weigh nothing.
        width: Mixture components.
        learning_rate: Adam's step size.
        steps: Steps.
    """
    label = torch.as_tensor(np.nan_to_num(answers.label, nan=0.5), dtype=torch.float32)
    present = torch.as_tensor(~np.isnan(answers.label), dtype=torch.float32)
    share = present / present.sum(dim=1, keepdim=True).clamp(min=1.0)
    logits = torch.zeros(len(label), width, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    for _ in range(steps if label.numel() else 0):
        optimizer.zero_grad()
        (share * lost(margins(logits), label)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return logits.detach()


class UserTable:
    """Training cells as a dense (U, M) table of labels, for methods that learn from sets."""

    def __init__(self, study: Study) -> None:
        shape = (study.n_users, len(study.corpus.first))
        label, weight = np.zeros(shape), np.zeros(shape)
        cells = study.train
        np.add.at(weight, (cells.user, cells.pair), cells.weight)
        np.add.at(label, (cells.user, cells.pair), cells.weight * cells.label)
        self.is_there = weight > 0.0
        self.label = np.divide(label, weight, out=np.full(shape, np.nan), where=self.is_there)

    def draw(self, rng: np.random.Generator, users: np.ndarray, k: int) -> Answers:
        """Draw k answered pairs of each user, at random and without repeats; nan where fewer."""
        order = np.where(self.is_there[users], rng.random((len(users), self.label.shape[1])), 2.0)
        chosen = np.argsort(order, axis=1)[:, :k].astype(np.int64)
        return Answers(chosen, np.take_along_axis(self.label[users], chosen, axis=1))
