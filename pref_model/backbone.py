"""A transformers network that turns token ids into embeddings, frozen or being trained.

It reads token ids, never text, and knows nothing of preferences.
"""

import torch
from transformers import PreTrainedModel

from pref_model.encoder_spec import Pooling, is_causal_type
from pref_model.errors import BadSetting


class Backbone(torch.nn.Module):
    """Network plus pooling: token ids (B, L) to embeddings (B, D) float32.

    A causal network gets no attention mask: with padding on the right no real token sees a
    padded one, and without a mask torch picks its flash kernel.

    Attributes:
        network: The transformers model, without its language-model head.
        width: D.
        pad_id: Token used for padding.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        layers: tuple[int, ...],
        pooling: Pooling,
        *,
        has_length: bool = False,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = layers
        self.pooling = pooling
        self.has_length = has_length
        self.pad_id = pad_id
        self.is_causal = is_causal_type(str(network.config.model_type))
        self.width = int(network.config.hidden_size) * len(layers) + int(has_length)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.network.parameters()).device

    def forward(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        pool_start: torch.Tensor,
        pool_stop: torch.Tensor,
    ) -> torch.Tensor:
        """Return embeddings (B, D): pooled hidden states, and log(1 + response tokens) if asked.

        Numerics: pooling is done in float32 whatever the network computes in.
        """
        position = torch.arange(ids.shape[1], device=ids.device)
        mask = None if self.is_causal else (position < lengths[:, None]).long()
        depth = int(self.network.config.num_hidden_layers)
        is_top_only = self.layers == (depth,)
        output = self.network(
            input_ids=ids, attention_mask=mask, output_hidden_states=not is_top_only
        )
        found = [output.last_hidden_state] if is_top_only else output.hidden_states
        states = found if is_top_only else [found[layer] for layer in self.layers]
        size = (pool_stop - pool_start).float()
        with torch.autocast(ids.device.type, enabled=False):
            if self.pooling == "last":
                rows = torch.arange(len(ids), device=ids.device)
                parts = [state[rows, lengths - 1].float() for state in states]
            else:
                is_inside = (position >= pool_start[:, None]) & (position < pool_stop[:, None])
                share = is_inside.float() / size[:, None]
                parts = [torch.einsum("rt,rth->rh", share, state.float()) for state in states]
            if self.has_length:
                parts.append(torch.log1p(size)[:, None])
            return torch.cat(parts, dim=1)


class LoraLinear(torch.nn.Module):
    """y = W x + (alpha / rank) B A x with W frozen and B = 0 at first (Hu et al. 2021).

    Written here because the training machine has no `peft` and this is all that is needed.
    """

    def __init__(self, base: torch.nn.Linear, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        weight = base.weight
        rng = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, base.in_features, generator=rng) / base.in_features**0.5
        self.down = torch.nn.Parameter(down.to(weight.device, torch.float32))
        self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank, device=weight.device))
        for parameter in base.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features)."""
        low = torch.nn.functional.linear(x, self.down.to(x.dtype))
        up = torch.nn.functional.linear(low, self.up.to(x.dtype))
        result: torch.Tensor = self.base(x) + up * self.scale
        return result

    @torch.no_grad()
    def merged(self) -> torch.nn.Linear:
        """Return the plain layer with the adapter added to its weights."""
        self.base.weight += (self.scale * (self.up @ self.down)).to(self.base.weight.dtype)
        return self.base


def add_lora(backbone: Backbone, rank: int, alpha: float) -> int:
    """Freeze the network and put an adapter on every linear layer; returns how many.

    Raises:
        BadSetting: The network has no `torch.nn.Linear` (GPT-2 stores its layers transposed).
    """
    for parameter in backbone.network.parameters():
        parameter.requires_grad_(False)
    n_layers = 0
    for module in list(backbone.network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and not isinstance(module, LoraLinear):
                setattr(module, name, LoraLinear(child, rank, alpha, n_layers))
                n_layers += 1
    if n_layers == 0:
        raise BadSetting(
            "backbone: found no linear layer to adapt, expected at least one; set lora_rank=0"
        )
    return n_layers


def merge_lora(backbone: Backbone) -> None:
    """Replace every adapter by the plain layer that computes the same."""
    for module in list(backbone.network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLinear):
                setattr(module, name, child.merged())


def without_dropout(network: torch.nn.Module) -> None:
    """Set every dropout probability to zero, so that training mode computes what eval mode does.

    A step is then a function of weights and batch alone: a resumed run needs no random state.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
