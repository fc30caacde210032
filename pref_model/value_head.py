"""One value head for every user: expected base rewards of a frozen language model's prefixes.

METHOD section 6 (VAS, arXiv 2405.06639, with d outputs in place of one). It reads hidden states and
rewards; it runs no language model and writes no text.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from pref_model.errors import BadArray, BadSetting, FitFailed


@dataclass(frozen=True)
class ValueConfig:
    """How a head is trained.

    Attributes:
        hidden: Width of the head's one hidden layer.
        trace: lambda of TD(lambda), in [0, 1]; 1 takes the sample's own reward as every target.
        learning_rate: Of Adam.
        steps: Adam steps.
        batch_size: Sampled responses a step.
    """

    hidden: int = 256
    trace: float = 0.95
    learning_rate: float = 1e-3
    steps: int = 1000
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not 0.0 <= self.trace <= 1.0:
            raise BadSetting(f"value head: found trace={self.trace}, expected 0 to 1")
        if min(self.hidden, self.steps, self.batch_size) < 1 or self.learning_rate <= 0.0:
            raise BadSetting(f"value head: found {asdict(self)}, expected positive numbers")


class Rollouts(NamedTuple):
    """Responses that the frozen model sampled, as states and rewards.

    Attributes:
        states: (N, T + 1, D) float32, hidden state after the prompt and after each token; rows
            are padded behind their last state.
        lengths: (N,) int64, tokens L of each response; state L is the finished response.
        rewards: (N, d) float32, base rewards phi(x, y) of the finished response.
    """

    states: torch.Tensor
    lengths: torch.Tensor
    rewards: torch.Tensor


class ValueHead(torch.nn.Module):
    """V(s) in R^d: what base rewards a response that begins with s will get on average.

    Attributes:
        center: (d,) mean reward in training; `scale` (d,) its standard deviation.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int, d: int, hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.LayerNorm(width, elementwise_affine=False),
                torch.nn.Linear(width, hidden),
                torch.nn.GELU(),
                torch.nn.Linear(hidden, d),
            )
        self.register_buffer("center", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (..., d) values of (..., D) hidden states."""
        plain: torch.Tensor = self.layers(states.to(self.center.dtype))
        return plain * self.scale + self.center


def lambda_returns(
    values: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, trace: float
) -> torch.Tensor:
    """Return the targets of TD(lambda) with gamma = 1 and one reward, at the last token.

        G_L = r,   G_{L-1} = r,   G_t = (1 - lambda) V(s_{t+1}) + lambda G_{t+1}

    Args:
        values: (N, T + 1, d) values of the states; no gradient flows into targets.
        rewards: (N, d).
        lengths: (N,) tokens L of each response.
        trace: lambda.

    Returns:
        (N, T + 1, d); whatever lies behind a row's last state means nothing.

    Oracle: the sum (1 - lambda) sum_n lambda^{n-1} V(s_{t+n}) + lambda^{L-t-1} r.
    """
    values = values.detach()
    targets = torch.empty_like(values)
    last = values.shape[1] - 1
    carried = rewards
    for t in range(last, -1, -1):
        is_near_end = (lengths <= t + 1)[:, None]
        ahead = values[:, min(t + 1, last)]
        carried = torch.where(is_near_end, rewards, (1.0 - trace) * ahead + trace * carried)
        targets[:, t] = carried
    return targets


def train_value_head(
    rollouts: Rollouts, config: ValueConfig | None = None, *, device: str = "cpu", seed: int = 0
) -> ValueHead:
    """Fit V by semi-gradient TD(lambda) on samples of the frozen model.

    With states of response n numbered t = 0..L_n, Adam lowers the mean over states of
    |V(s_t) - G_t|^2, G_t from `lambda_returns` with the head as it is. Rewards are standardized
    one by one within, and put back in the head, so that none outweighs another.

    Args:
        rollouts: Samples.
        config: Settings; the defaults if None.
        device: Where to train.
        seed: Of the head's start and of the batches.

    Raises:
        BadArray: Shapes disagree, or a reward is not finite.
        FitFailed: The loss is no number.
    """
    config = config or ValueConfig()
    n, d = rollouts.rewards.shape
    shapes = rollouts.states.shape[0], rollouts.lengths.shape
    if shapes != (n, (n,)) or n == 0 or int(rollouts.lengths.max()) >= rollouts.states.shape[1]:
        raise BadArray(
            f"value head: found states {tuple(rollouts.states.shape)}, lengths"
            f" {tuple(rollouts.lengths.shape)} and rewards {(n, d)}, expected N responses of at"
            " most T tokens"
        )
    if not bool(torch.isfinite(rollouts.rewards).all()):
        raise BadArray("value head: found a reward that is no finite number")
    head = ValueHead(rollouts.states.shape[2], d, config.hidden, seed).to(device)
    center = rollouts.rewards.mean(0)
    scale = rollouts.rewards.std(0, unbiased=False)
    # A reward that never changes is predicted by its mean.
    scale = torch.where(scale > 0.0, scale, torch.ones_like(scale))
    standardized = ((rollouts.rewards - center) / scale).to(device)
    is_state = torch.arange(rollouts.states.shape[1])[None, :] <= rollouts.lengths[:, None]
    optimizer = torch.optim.Adam(head.layers.parameters(), lr=config.learning_rate)
    rng = np.random.default_rng([seed, n])
    loss = torch.zeros(())
    for _ in range(config.steps):
        rows = torch.as_tensor(rng.choice(n, min(n, config.batch_size), replace=False))
        values = head.layers(rollouts.states[rows].to(device))
        lengths = rollouts.lengths[rows].to(device)
        targets = lambda_returns(values, standardized[rows], lengths, config.trace)
        loss = ((values - targets) ** 2)[is_state[rows].to(device)].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not bool(torch.isfinite(loss)):
        raise FitFailed(f"value head: the loss became {float(loss)}; lower the learning rate")
    head.center.copy_(center)
    head.scale.copy_(scale)
    return head.eval()
