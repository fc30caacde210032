"""The gradient steps of a backbone training: batches, precision, looks, and states to resume from.

`train_backbone.fit_backbone` is the way in; nothing here chooses a start or checks an input.
"""

from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import embedding

from pref_model.backbone import Backbone
from pref_model.backbone_config import BackboneConfig, BackboneRun, Passes
from pref_model.backbone_texts import TokenTexts, pad_texts
from pref_model.errors import FitFailed
from pref_model.likelihood import torch_log_likelihood
from pref_model.model import FitPoint, RewardModel
from pref_model.train_batches import (
    GroupedLabels,
    LabelBatch,
    StepPlan,
    micro_batches,
    share_of,
)
from pref_model.train_state import (
    Checkpoints,
    State,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)
from pref_model.types import Floats, Ints, Preferences


class BackboneFactorization(torch.nn.Module):
    """margin = lambda_u . W (e(first) - e(second)) / scale: eq 3 and 4 over a network e."""

    def __init__(self, backbone: Backbone, model: RewardModel) -> None:
        super().__init__()
        device = backbone.device
        self.backbone = backbone
        self.head = torch.nn.Parameter(torch.tensor(model.head, device=device))
        self.users = torch.nn.Parameter(torch.tensor(model.user_weights, device=device))
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.tensor(model.feature_scale, device=device))

    def forward(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        pool_start: torch.Tensor,
        pool_stop: torch.Tensor,
        pair: torch.Tensor,
        user: torch.Tensor,
    ) -> torch.Tensor:
        """Return margins (n,) for 2 B texts, the B first responses before the B second ones."""
        embedded = self.backbone(ids, lengths, pool_start, pool_stop)
        half = len(ids) // 2
        with torch.autocast(ids.device.type, enabled=False):
            features = ((embedded[:half] - embedded[half:]) / self.scale) @ self.head.T
            return (embedding(pair, features) * embedding(user, self.users)).sum(dim=1)


class BackboneWork:
    """The backbone on its texts: padding, precision and counting."""

    def __init__(
        self,
        accelerator: Accelerator,
        backbone: Backbone,
        texts: TokenTexts,
        first: Ints,
        second: Ints,
        run: BackboneRun,
        user_l2: float,
        config: BackboneConfig,
    ) -> None:
        self.accelerator, self.backbone, self.texts = accelerator, backbone, texts
        self.first, self.second = first, second
        self.run, self.user_l2, self.config = run, user_l2, config
        self.passes = Passes()
        # (M,) longer of the two texts: what a pair costs when both are padded to it.
        self.lengths: Ints = np.maximum(texts.lengths[first], texts.lengths[second])

    def autocast(self) -> torch.autocast:
        """Bf16 where asked for; weights stay float32 and are cast operation by operation."""
        is_bf16 = self.run.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=is_bf16)

    def margins(self, module: torch.nn.Module, batch: LabelBatch) -> torch.Tensor:
        """Margins of a batch's labels (n,), with gradients."""
        rows = np.concatenate([self.first[batch.pairs], self.second[batch.pairs]])
        padded = pad_texts(self.texts, rows, self.backbone.pad_id, self.run.pad_multiple)
        device = self.accelerator.device
        with self.autocast():
            found: torch.Tensor = module(
                *padded.to(device), batch.pair.to(device), batch.user.to(device)
            )
        self.passes = self.passes._replace(
            training=self.passes.training + rows.size,
            tokens=self.passes.tokens + int(padded.lengths.sum()),
            padded_tokens=self.passes.padded_tokens + padded.ids.numel(),
        )
        return found

    @torch.no_grad()
    def differences(self, pairs: Ints) -> Floats:
        """Embeddings of some pairs' texts, first - second, (M, D); other rows are zero.

        Texts are dealt out to the processes; each text is embedded once.
        """
        wanted = np.unique(np.concatenate([self.first[pairs], self.second[pairs]]))
        mine = share_of(
            wanted,
            self.texts.lengths,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        found = torch.zeros(self.texts.lengths.size, self.backbone.width)
        for rows in micro_batches(mine, self.texts.lengths, 2 * self.run.micro_tokens):
            if rows.size:
                padded = pad_texts(self.texts, rows, self.backbone.pad_id, self.run.pad_multiple)
                with self.autocast():
                    embedded = self.backbone(*padded.to(self.accelerator.device))
                found[torch.as_tensor(rows)] = embedded.float().cpu()
        self.passes = self.passes._replace(evaluation=self.passes.evaluation + mine.size)
        if self.accelerator.num_processes > 1:
            placed = found.to(self.accelerator.device)
            found = self.accelerator.reduce(placed, reduction="sum").cpu()
        embeddings = found.numpy().astype(np.float64)
        result = np.zeros((self.first.size, embeddings.shape[1]))
        result[pairs] = embeddings[self.first[pairs]] - embeddings[self.second[pairs]]
        return result

    def freeze_idle(self, module: BackboneFactorization, train: Preferences) -> None:
        """Stop asking for gradients of weights no margin depends on (poolers, upper layers).

        Several processes would wait for their gradients for ever.
        """
        batch = GroupedLabels(train).batch(np.array([0]))
        counted = self.passes
        torch.autograd.backward(self.margins(module, batch).sum())
        self.passes = counted
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None


class BackboneTrainer:
    """The optimization: steps, looks, what is kept, what is saved."""

    def __init__(
        self,
        work: BackboneWork,
        module: BackboneFactorization,
        train: Preferences,
        check: Preferences | None,
        start: RewardModel,
        fit_id: str,
        checkpoints: Checkpoints | None,
    ) -> None:
        config, run, accelerator = work.config, work.run, work.accelerator
        self.work, self.check, self.start = work, check, start
        self.fit_id, self.checkpoints = fit_id, checkpoints
        self.labels = GroupedLabels(train, config.grouping)
        lengths = work.lengths[self.labels.pairs]
        self.plan = StepPlan(
            lengths.size, config.batch_size, run.run.seed, lengths, config.bucket_steps
        )
        self.lengths = lengths
        self.total = float(train.weight.sum())
        self.train_cells = train
        self.plain = module
        self.trainable = {
            name: value for name, value in module.named_parameters() if value.requires_grad
        }
        network = [v for n, v in self.trainable.items() if n not in ("head", "users")]
        is_fused = accelerator.device.type == "cuda"
        self.rates = [
            config.backbone_learning_rate,
            config.head_learning_rate,
            config.user_learning_rate,
        ]
        optimizer = torch.optim.AdamW(
            [
                {"params": network, "weight_decay": config.weight_decay},
                {"params": [module.head], "weight_decay": 0.0},
                {"params": [module.users], "weight_decay": 0.0},
            ],
            lr=1e-3,
            betas=(0.9, 0.99),
            fused=is_fused,
        )
        if run.has_gradient_checkpointing:
            network_model = module.backbone.network
            # Renamed in the course of transformers 5.
            enable = (
                getattr(network_model, "activation_checkpointing_enable", None)
                or network_model.gradient_checkpointing_enable
            )
            enable()
        if run.compile_backend:
            module.backbone.network.compile(backend=run.compile_backend, dynamic=None)
        module.train()
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self.step, self.waited, self.best_loss = 0, 0, float("inf")
        self.looks: list[FitPoint] = []
        self.best = self._copy()
        # Summed loss and weight since the last look, kept on the device: reading them waits for it.
        self.seen = torch.zeros(2, dtype=torch.float64, device=accelerator.device)

    def train(self) -> None:
        """Run to the last step, or until validation has not improved for `patience` looks."""
        config, resumed_at = self.work.config, self.step
        while True:
            policy = self.checkpoints
            if (
                policy is not None
                and self.step % policy.every == 0
                and (self.step > resumed_at or self.step == 0)
            ):
                self._save(policy)
            if self.step % config.evaluate_every == 0 or self.step == config.steps:
                self._look()
                if self.step >= config.steps or self.waited > config.patience:
                    return
            self.advance()

    def advance(self) -> None:
        """Take one optimizer step."""
        work, config, accelerator = self.work, self.work.config, self.work.accelerator
        rise = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rise
        groups = self.plan.groups(self.step)
        mine = share_of(groups, self.lengths, accelerator.process_index, accelerator.num_processes)
        # Processes average their gradients; each carries its part of the sum that many times.
        share = accelerator.num_processes * self.plan.n_groups / groups.size / self.total
        micros = micro_batches(mine, self.lengths, work.run.micro_tokens)
        self.optimizer.zero_grad()
        for number, micro in enumerate(micros):
            if number + 1 < len(micros):
                with accelerator.no_sync(self.module):
                    accelerator.backward(self._loss(micro) * share)
                continue
            prior = 0.5 * self.start.head_l2 * self.plain.head.square().sum()
            prior = prior + 0.5 * work.user_l2 * self.plain.users.square().sum()
            accelerator.backward(self._loss(micro) * share + prior / self.total)
        if config.clip_norm > 0.0:
            accelerator.clip_grad_norm_(list(self.trainable.values()), config.clip_norm)
        self.optimizer.step()
        self.step += 1

    def _loss(self, groups: Ints) -> torch.Tensor:
        """Summed negative log likelihood of some groups; none make a loss of zero."""
        # A process without work still takes part in the exchange of gradients.
        batch = self.labels.batch(groups if groups.size else np.array([0]))
        margin = self.work.margins(self.module, batch).float()
        weight = batch.weight.to(margin.device) * float(groups.size > 0)
        lost = -(weight * torch_log_likelihood(margin, batch.label.to(margin.device))).sum()
        self.seen += torch.stack([lost.detach(), weight.sum()]).double()
        return lost

    def _look(self) -> None:
        check = self.check
        seen = self._summed(self.seen)
        self.seen = torch.zeros_like(self.seen)
        if self.step == 0:
            kept = self.start.history[-1:]
            train_nll = kept[0].train_nll if kept else float("nan")
        else:
            train_nll = float(seen[0] / seen[1])
        loss = train_nll if check is None else self._validate(check)
        if not np.isfinite(loss):
            raise FitFailed(
                f"backbone: found likelihood {loss} at step {self.step}, expected a finite "
                "number; lower backbone_learning_rate"
            )
        point = FitPoint(self.start.head_l2, self.step, train_nll, None if check is None else loss)
        self.looks.append(point)
        self.waited += 1
        if check is None or loss < self.best_loss:
            self.best_loss, self.waited, self.best = loss, 0, self._copy()

    def _validate(self, check: Preferences) -> float:
        phi = self.work.differences(np.unique(check.pair))
        phi = phi / self.plain.scale.double().cpu().numpy()
        phi = phi @ self.plain.head.detach().double().cpu().numpy().T
        users = self.plain.users.detach().double().cpu().numpy()
        margin = torch.as_tensor(np.einsum("nd,nd->n", phi[check.pair], users[check.user]))
        lost = -torch_log_likelihood(margin, torch.as_tensor(check.label))
        weight = torch.as_tensor(check.weight)
        return float((weight * lost).sum() / weight.sum())

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.trainable.items()}

    def _save(self, policy: Checkpoints) -> None:
        seen, passes = self._summed(self.seen), self._all_passes()
        if not self.work.accelerator.is_main_process:
            return
        tensors: dict[str, torch.Tensor] = {
            f"now/{name}": value for name, value in self.trainable.items()
        }
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {"start/scale": self.plain.scale, **optimizer_tensors(self.optimizer)}
        facts = {
            "fingerprint": self.fit_id,
            "step": self.step,
            "waited": self.waited,
            "best_loss": self.best_loss if np.isfinite(self.best_loss) else None,
            "looks": self.looks,
            "start_looks": list(self.start.history[-1:]),
            "seen": seen.tolist(),
            "head_l2": self.start.head_l2,
            "passes": passes,
        }
        save_state(policy.folder, self.step, tensors, facts)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go on from a saved state; its totals go to one process, so that sums stay right."""
        tensors, facts = state
        for name, value in self.trainable.items():
            value.copy_(tensors[f"now/{name}"])
        self.best = {name: tensors[f"best/{name}"] for name in self.trainable}
        restore_optimizer(self.optimizer, tensors)
        self.step, self.waited = facts["step"], facts["waited"]
        self.best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
        self.looks = [FitPoint(*point) for point in facts["looks"]]
        is_main = self.work.accelerator.is_main_process
        self.seen = torch.tensor(facts["seen"], dtype=torch.float64) * float(is_main)
        self.seen = self.seen.to(self.work.accelerator.device)
        self.work.passes = Passes(*facts["passes"]) if is_main else Passes()

    @torch.no_grad()
    def result(self) -> tuple[RewardModel, Passes, int]:
        """Put the kept weights into the network, and return the model, the work, and 2 G."""
        for name, value in self.trainable.items():
            value.copy_(self.best[name])
        model = replace(
            self.start,
            head=self.best["head"].numpy(),
            user_weights=self.best["users"].numpy(),
            history=tuple(self.looks),
        )
        return model, self._all_passes(), 2 * self.plan.n_groups

    def _all_passes(self) -> Passes:
        mine = torch.tensor([*self.work.passes], dtype=torch.int64)
        return Passes(*(int(count) for count in self._summed(mine)))

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        accelerator = self.work.accelerator
        if accelerator.num_processes == 1:
            return values.cpu()
        found: torch.Tensor = accelerator.reduce(values.to(accelerator.device), reduction="sum")
        return found.cpu()
