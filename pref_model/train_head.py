"""The gradient steps of a frozen-feature fit: batches of pairs, looks, and states to resume from.

`fit.fit_reward_model` is the way in; nothing here chooses a start or a strength.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.nn.functional import embedding

from pref_model.errors import BadSetting, FitFailed
from pref_model.likelihood import torch_log_likelihood
from pref_model.model import FitConfig, FitPoint, RunConfig
from pref_model.train_batches import GroupedLabels, StepPlan, share_of
from pref_model.train_state import State, optimizer_tensors, restore_optimizer, save_state
from pref_model.types import Floats, Preferences


class Start(NamedTuple):
    """Where the joint fit begins: head (d, D) on scaled features, user weights (U, d)."""

    head: Floats
    user_weights: Floats


class HeadCheckpoint(NamedTuple):
    """What one strength's fit needs to save itself, and the state to go on from."""

    folder: Path
    every: int
    number: int
    state: State | None
    shared_tensors: dict[str, torch.Tensor]
    shared_facts: dict[str, object]

    def save(
        self,
        accelerator: Accelerator,
        step: int,
        tensors: dict[str, torch.Tensor],
        facts: dict[str, object],
    ) -> None:
        """Write a state from the main process; the others go on."""
        if accelerator.is_main_process:
            save_state(
                self.folder,
                self.number + step,
                {**self.shared_tensors, **tensors},
                {**self.shared_facts, **facts},
            )


class Factorization(torch.nn.Module):
    """margin = lambda_u . (W x_m), eq 3 and 4; no bias, since a pair's difference cancels it."""

    def __init__(self, start: Start, *, is_user_learned: bool) -> None:
        super().__init__()
        self.head = torch.nn.Parameter(torch.as_tensor(start.head, dtype=torch.float32))
        self.users = torch.nn.Parameter(
            torch.as_tensor(start.user_weights, dtype=torch.float32), requires_grad=is_user_learned
        )

    def forward(
        self, differences: torch.Tensor, pair: torch.Tensor, user: torch.Tensor
    ) -> torch.Tensor:
        """Return margins (n,) for cells (user, pair), pair being a row of `differences`."""
        features = differences @ self.head.T
        # Indexing adds up its gradient in a random order on several threads; embedding does not.
        return (embedding(pair, features) * embedding(user, self.users)).sum(dim=1)


def train_head(
    scaled: Floats,
    train: Preferences,
    check: Preferences | None,
    start: Start,
    head_l2: float,
    config: FitConfig,
    run: RunConfig,
    is_user_learned: bool,
    checkpoint: HeadCheckpoint | None = None,
) -> tuple[Start, tuple[FitPoint, ...], float]:
    """Maximize eq 5 from a start at one head strength, by AdamW on batches of whole pairs.

    A step lowers [sum over its cells of -w (A log s(f) + (1 - A) log s(-f)) times (pairs / pairs
    of the step) + (beta / 2) |Lambda|^2 + (gamma / 2) |W|^2] / (sum of all w), f = lambda . W x:
    its expectation is eq 5 with its sign turned, in nats a label.

    Args:
        scaled: (M, D) float64, pair differences from `fit.prepare_features`.
        train: Training cells, users in [0, U), pairs rows of `scaled`.
        check: Validation cells of the same users, or None.
        start: Head (d, D) and user weights (U, d) to begin from.
        head_l2: gamma.
        config: Everything else of what is fitted.
        run: Device, and the seed of the batches.
        is_user_learned: False leaves the user weights as they are (eq 2).
        checkpoint: Where to save, and the state to go on from.

    Returns:
        The head and weights with the lowest validation loss (the last ones where there is no
        validation part), all looks, and that loss in nats a label.

    Raises:
        FitFailed: The likelihood became nan or infinite.

    Departures: METHOD section 4: L2 on the user vectors, as in the paper, where the authors' code
    has it on pair features; ties count as labels of 1/2; all labels of a pair share a step.
    """
    accelerator = accelerator_for(run.device)
    differences = torch.as_tensor(scaled, dtype=torch.float32)
    grouped = GroupedLabels(train)
    plan = StepPlan(grouped.pairs.size, config.batch_pairs, run.seed)
    module = Factorization(start, is_user_learned=is_user_learned)
    parameters = [{"params": [module.head], "lr": config.head_learning_rate}]
    if is_user_learned:
        parameters.append({"params": [module.users], "lr": config.user_learning_rate})
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, betas=(0.9, 0.99))
    module, optimizer = accelerator.prepare(module, optimizer)
    plain = accelerator.unwrap_model(module)
    total = float(train.weight.sum())
    looks: list[FitPoint] = []
    first, best_loss, best, waited = 0, float("inf"), start, 0
    if checkpoint is not None and checkpoint.state is not None:
        tensors, facts = checkpoint.state
        with torch.no_grad():
            plain.head.copy_(tensors["head"])
            plain.users.copy_(tensors["users"])
        restore_optimizer(optimizer, tensors)
        best = Start(tensors["best/head"].numpy(), tensors["best/users"].numpy())
        looks = [FitPoint(*point) for point in facts["looks"]]
        first, waited = facts["step"], facts["waited"]
        best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
    for step in range(first, config.steps + 1):
        is_saved = checkpoint is not None and step > first and step % checkpoint.every == 0
        if checkpoint is not None and is_saved:
            checkpoint.save(
                accelerator,
                step,
                {
                    "head": plain.head,
                    "users": plain.users,
                    "best/head": torch.as_tensor(best.head),
                    "best/users": torch.as_tensor(best.user_weights),
                    **optimizer_tensors(optimizer),
                },
                {
                    "step": step,
                    "waited": waited,
                    "best_loss": best_loss if np.isfinite(best_loss) else None,
                    "looks": looks,
                },
            )
        if step % config.evaluate_every == 0 or step == config.steps:
            point = _look(plain, differences, train, check, head_l2, step)
            # One process decides for all: a rounding apart, one would stop and the rest wait.
            point = broadcast_object_list([point])[0]
            looks.append(point)
            loss = point.train_nll if point.validation_nll is None else point.validation_nll
            if not np.isfinite(loss):
                raise FitFailed(
                    f"fit: found likelihood {loss} at step {step}, expected a finite number; "
                    "lower head_learning_rate or user_learning_rate"
                )
            waited += 1
            if check is None or loss < best_loss:
                best_loss, waited = loss, 0
                best = Start(
                    plain.head.detach().cpu().double().numpy().copy(),
                    plain.users.detach().cpu().double().numpy().copy(),
                )
            if step == config.steps or waited > config.patience:
                break
        groups = plan.groups(step)
        mine = share_of(groups, None, accelerator.process_index, accelerator.num_processes)
        batch = grouped.batch(mine)
        margin = module(
            differences[torch.as_tensor(batch.pairs)].to(accelerator.device),
            batch.pair.to(accelerator.device),
            batch.user.to(accelerator.device),
        )
        likelihood = torch_log_likelihood(margin, batch.label.to(accelerator.device))
        # Processes average their gradients; each carries its part of the sum that many times.
        share = accelerator.num_processes * plan.n_groups / groups.size
        data = -(batch.weight.to(accelerator.device) * likelihood).sum() * share
        prior = 0.5 * head_l2 * plain.head.square().sum()
        if is_user_learned:
            prior = prior + 0.5 * config.user_l2 * plain.users.square().sum()
        optimizer.zero_grad()
        accelerator.backward((data + prior) / total)
        optimizer.step()
    return best, tuple(looks), best_loss


def _look(
    module: Factorization,
    differences: torch.Tensor,
    train: Preferences,
    check: Preferences | None,
    head_l2: float,
    step: int,
) -> FitPoint:
    device = module.head.device

    def nll(cells: Preferences) -> float:
        with torch.no_grad():
            margin = module(
                differences.to(device),
                torch.as_tensor(cells.pair, device=device),
                torch.as_tensor(cells.user, device=device),
            ).double()
            label = torch.as_tensor(cells.label, device=device)
            weight = torch.as_tensor(cells.weight, device=device)
            lost = -(weight * torch_log_likelihood(margin, label)).sum() / weight.sum()
            return float(lost)

    return FitPoint(float(head_l2), step, nll(train), None if check is None else nll(check))


def accelerator_for(device: str) -> Accelerator:
    """Return the Accelerator of this process, or say why the device cannot be had."""
    accelerator = Accelerator(cpu=device == "cpu")
    if device not in ("auto", accelerator.device.type):
        raise BadSetting(
            f"fit: found device '{device}', but this machine offers '{accelerator.device.type}'; "
            "use auto or cpu"
        )
    return accelerator
