"""Base rewards and user weights by maximum likelihood (Algorithm 1, eq 5), through Accelerate.

The encoder is frozen: this module sees pair differences, never text. It writes no file.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from pref_model.distill import distill
from pref_model.errors import BadArray, BadSetting, FitFailed
from pref_model.likelihood import torch_log_likelihood
from pref_model.model import FitConfig, FitPoint, RewardModel, RunConfig
from pref_model.svd import svd_start
from pref_model.types import Floats, Preferences, finite_matrix, make_preferences


class Start(NamedTuple):
    """Where the joint fit begins: head (d, D) on scaled features, user weights (U, d)."""

    head: Floats
    user_weights: Floats


class _Batch(NamedTuple):
    """A set of pairs with all their labels: two backbone passes serve every label of a pair."""

    differences: torch.Tensor  # (B, D)
    pair: torch.Tensor  # (n,) row within the batch
    user: torch.Tensor  # (n,)
    label: torch.Tensor  # (n,)
    weight: torch.Tensor  # (n,)
    share: float  # all pairs / pairs here, so that a batch estimates the whole sum


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
        return (features[pair] * self.users[user]).sum(dim=1)


def fit_reward_model(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    config: FitConfig,
    run: RunConfig,
    validation: Preferences | None = None,
) -> RewardModel:
    """Fit base rewards and training users' weights: SVD start, ridge head, then eq 5.

    1. `svd_start` factors the answers (Algorithm 1, step 1).
    2. `distill` fits the head to the SVD's pair features by ridge regression.
    3. AdamW maximizes sum w [A log s(f) + (1 - A) log s(-f)] - (beta/2) |Lambda|^2
       - (gamma/2) |W|^2 over W and Lambda, gamma from `config.head_l2`; the step and the gamma
       with the best validation likelihood are kept.

    Args:
        pair_differences: (M, D) embeddings, first - second, of every pair that is referred to.
        preferences: Training cells (seen users, seen pairs).
        n_users: U training users.
        config: What to fit.
        run: Where to run, and the seed.
        validation: Cells of the same users on other pairs; None fits all steps.

    Returns:
        `RewardModel`; equal inputs give equal bits on one CPU thread count.

    Raises:
        BadArray: Shapes or indices disagree, or no training cell.
        FitFailed: The likelihood became nan.

    Departures: the prior on the head is ours (with M < D the likelihood alone is unbounded); it
    enters the loss, as does the prior on the users, so the gradient is that of the stated
    objective and AdamW's decoupled decay is off.
    """
    scaled, scale, train, check = prepare_features(
        pair_differences, preferences, n_users, validation, config.ties
    )
    start = _start(scaled, train, n_users, config, run.seed)
    return fit_from_start(scaled, scale, train, check, start, config, run, is_user_learned=True)


def prepare_features(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    validation: Preferences | None,
    ties: str,
) -> tuple[Floats, Floats, Preferences, Preferences | None]:
    """Check inputs and scale features by the training pairs alone.

    Returns:
        (M, D) scaled differences, whose training rows have mean squared length 1; the (D,)
        scale; training cells; validation cells. There is no centering: differences have no
        preferred sign.
    """
    differences = finite_matrix(pair_differences, "pair differences")
    n_pairs = len(differences)
    train = make_preferences(*preferences, n_users=n_users, n_pairs=n_pairs)
    check = None
    if validation is not None:
        check = _kept(make_preferences(*validation, n_users=n_users, n_pairs=n_pairs), ties)
        check = check if check.user.size else None
    train = _kept(train, ties)
    if train.user.size == 0:
        raise BadArray("fit: found no training preference, expected at least one; judge first")
    used = differences[np.unique(train.pair)]
    root_mean_square = np.sqrt(np.mean(used**2, axis=0))
    # A feature that never differs in training says nothing: scale 1 keeps its head at zero.
    silent = root_mean_square <= 1e-6 * max(float(root_mean_square.max(initial=0.0)), 1e-30)
    scale = np.where(silent, 1.0, root_mean_square) * np.sqrt(differences.shape[1])
    scale = scale.astype(np.float32).astype(np.float64)  # as stored: a reload changes nothing
    scaled = np.where(silent, 0.0, differences / scale)
    return scaled, scale, train, check


def fit_from_start(
    scaled: Floats,
    scale: Floats,
    train: Preferences,
    check: Preferences | None,
    start: Start,
    config: FitConfig,
    run: RunConfig,
    *,
    is_user_learned: bool,
) -> RewardModel:
    """Run the gradient fit for each head strength and keep the best on validation.

    With `is_user_learned=False` the user weights stay as given (classic RLHF: ones).
    """
    best: tuple[float, Start, tuple[FitPoint, ...], float] | None = None
    middle = config.head_l2[len(config.head_l2) // 2]
    for head_l2 in (middle,) if check is None else config.head_l2:
        begin = _balanced(start, config.user_l2, head_l2) if is_user_learned else start
        kept, history, loss = _train(
            scaled, train, check, begin, head_l2, config, run, is_user_learned
        )
        if best is None or loss < best[0]:
            best = (loss, kept, history, head_l2)
    if best is None:
        raise BadSetting("fit: found no head_l2, expected at least one strength")
    _, kept, history, head_l2 = best
    return RewardModel(
        head=kept.head.astype(np.float32),
        feature_mean=np.zeros(scale.size, dtype=np.float32),
        feature_scale=scale.astype(np.float32),
        user_weights=kept.user_weights.astype(np.float32),
        config=config,
        head_l2=float(head_l2),
        history=history,
    )


def _start(scaled: Floats, train: Preferences, n_users: int, config: FitConfig, seed: int) -> Start:
    width = scaled.shape[1]
    if config.start == "random":
        rng = np.random.default_rng([seed, config.d, width])
        return Start(
            rng.standard_normal((config.d, width)) * 0.1,
            rng.standard_normal((n_users, config.d)) * 0.1,
        )
    seen = np.unique(train.pair)
    compact = train._replace(pair=np.searchsorted(seen, train.pair).astype(np.int64))
    factors = svd_start(
        compact, n_users, seen.size, config.d, center=config.start == "svd", seed=seed
    )
    counts = np.bincount(compact.pair, weights=compact.weight, minlength=seen.size)
    fitted = distill(scaled[seen], factors.pair_features, weights=np.maximum(counts, 1e-9))
    return Start(fitted.head, factors.user_weights)


def _balanced(start: Start, user_l2: float, head_l2: float) -> Start:
    """Split each component's scale between its two factors as the two priors would.

    Multiplying lambda_k by c and row k of W by 1/c leaves the likelihood alone; the penalty is
    least at c^4 = gamma |W_k|^2 / (beta |lambda_k|^2).
    """
    head_size = max(head_l2, 1e-6) * np.sum(start.head**2, axis=1)
    user_size = max(user_l2, 1e-6) * np.sum(start.user_weights**2, axis=0)
    is_alive = (head_size > 0.0) & (user_size > 0.0)
    factor = np.where(is_alive, head_size, 1.0) / np.where(is_alive, user_size, 1.0)
    c = factor**0.25
    return Start(start.head / c[:, None], start.user_weights * c)


def _train(
    scaled: Floats,
    train: Preferences,
    check: Preferences | None,
    start: Start,
    head_l2: float,
    config: FitConfig,
    run: RunConfig,
    is_user_learned: bool,
) -> tuple[Start, tuple[FitPoint, ...], float]:
    accelerator = _accelerator(run.device)
    differences = torch.as_tensor(scaled, dtype=torch.float32)
    grouped = _GroupedLabels(differences, train)
    order = torch.Generator().manual_seed(run.seed)
    loader: DataLoader[int] = DataLoader(
        range(grouped.n_pairs),  # type: ignore[arg-type]
        batch_size=min(config.batch_pairs, grouped.n_pairs),
        shuffle=True,
        generator=order,
        collate_fn=grouped.batch,
    )
    module = Factorization(start, is_user_learned=is_user_learned)
    groups = [{"params": [module.head], "lr": config.head_learning_rate}]
    if is_user_learned:
        groups.append({"params": [module.users], "lr": config.user_learning_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99))
    module, optimizer, loader = accelerator.prepare(module, optimizer, loader)
    plain = accelerator.unwrap_model(module)
    total = float(train.weight.sum())
    looks: list[FitPoint] = []
    best_loss, best, waited = float("inf"), start, 0
    for step, batch in enumerate(_endless(loader)):
        if step % config.evaluate_every == 0 or step == config.steps:
            point = _look(plain, differences, train, check, head_l2, step)
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
        margin = module(batch.differences, batch.pair, batch.user)
        data = -(batch.weight * torch_log_likelihood(margin, batch.label)).sum() * batch.share
        prior = 0.5 * head_l2 * plain.head.square().sum()
        if is_user_learned:
            prior = prior + 0.5 * config.user_l2 * plain.users.square().sum()
        optimizer.zero_grad()
        accelerator.backward((data + prior) / total)
        optimizer.step()
    return best, tuple(looks), best_loss


class _GroupedLabels:
    """Training labels sorted by pair, sliced into batches of whole pairs."""

    def __init__(self, differences: torch.Tensor, train: Preferences) -> None:
        order = np.argsort(train.pair, kind="stable")
        pairs, counts = np.unique(train.pair, return_counts=True)
        self.n_pairs = int(pairs.size)
        self._differences = differences[torch.as_tensor(pairs)]
        self._begin = np.cumsum(counts) - counts
        self._counts = counts
        self._user = torch.as_tensor(train.user[order])
        self._label = torch.as_tensor(train.label[order], dtype=torch.float32)
        self._weight = torch.as_tensor(train.weight[order], dtype=torch.float32)

    def batch(self, pairs: list[int]) -> _Batch:
        chosen = np.asarray(sorted(pairs))
        counts = self._counts[chosen]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        cells = torch.as_tensor(np.repeat(self._begin[chosen], counts) + within)
        return _Batch(
            self._differences[torch.as_tensor(chosen)],
            torch.as_tensor(np.repeat(np.arange(chosen.size), counts)),
            self._user[cells],
            self._label[cells],
            self._weight[cells],
            self.n_pairs / chosen.size,
        )


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


def _endless(loader: Iterable[_Batch]) -> Iterator[_Batch]:
    while True:
        yield from loader


def _accelerator(device: str) -> Accelerator:
    accelerator = Accelerator(cpu=device == "cpu")
    if device not in ("auto", accelerator.device.type):
        raise BadSetting(
            f"fit: found device '{device}', but this machine offers '{accelerator.device.type}'; "
            "use auto or cpu"
        )
    return accelerator


def _kept(cells: Preferences, ties: str) -> Preferences:
    keep = cells.weight > 0.0
    if ties == "drop":
        keep &= cells.label != 0.5
    return Preferences(cells.user[keep], cells.pair[keep], cells.label[keep], cells.weight[keep])


__all__ = [
    "Factorization",
    "FitConfig",
    "RewardModel",
    "RunConfig",
    "Start",
    "fit_from_start",
    "fit_reward_model",
    "prepare_features",
]
