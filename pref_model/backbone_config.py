"""What a backbone training is asked to do, how it runs and what it counted; it trains nothing."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pref_model.errors import BadSetting
from pref_model.model import RunConfig

Grouping = Literal["pair", "label"]


@dataclass(frozen=True)
class BackboneConfig:
    """How the backbone is trained, on top of `FitConfig` (d, user_l2, ties and the start).

    Attributes:
        backbone_learning_rate: AdamW step size of the network (or its adapters).
        head_learning_rate: AdamW step size of the head.
        user_learning_rate: AdamW step size of the user weights.
        weight_decay: Decoupled decay of the network's weights (head and users have eq 5's L2).
        clip_norm: Largest gradient norm over all parameters; 0 never clips.
        steps: Optimizer steps at most.
        warmup_steps: Steps over which learning rates rise linearly; constant after.
        batch_size: Groups a step over all processes: pairs, or labels with grouping "label".
        grouping: "pair" serves all labels of a pair with two passes; "label" makes two a label.
        bucket_steps: Steps whose groups are sorted by length together (1: no bucketing).
        evaluate_every: Steps between two looks at the validation part.
        patience: Looks without improvement before stopping.
        lora_rank: Rank of the adapters on all linear layers; 0 trains the whole network.
        lora_alpha: Adapter scale, times 1 / rank.
    """

    backbone_learning_rate: float = 1e-5
    head_learning_rate: float = 1e-3
    user_learning_rate: float = 1e-2
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    steps: int = 500
    warmup_steps: int = 20
    batch_size: int = 32
    grouping: Grouping = "pair"
    bucket_steps: int = 4
    evaluate_every: int = 10
    patience: int = 10
    lora_rank: int = 0
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "bucket_steps", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise BadSetting(
                    f"backbone: found {name}={getattr(self, name)}, expected at least 1"
                )
        for name in ("steps", "warmup_steps", "lora_rank", "clip_norm", "weight_decay"):
            if getattr(self, name) < 0:
                raise BadSetting(
                    f"backbone: found {name}={getattr(self, name)}, expected 0 or more"
                )
        if self.grouping not in ("pair", "label"):
            raise BadSetting(
                f"backbone: found grouping='{self.grouping}', expected 'pair' or 'label'"
            )


@dataclass(frozen=True)
class BackboneRun:
    """How a backbone fit is run: memory and speed, and rounding.

    Attributes:
        run: Device and seed.
        precision: "fp32", or "bf16": autocast with float32 master weights and optimizer.
        micro_tokens: Padded tokens a forward pass; a step accumulates as many as it needs.
        has_gradient_checkpointing: Recompute activations in the backward pass.
        compile_backend: `torch.compile` backend, such as "inductor"; empty does not compile.
        threads: CPU threads of a process. One gives resumed runs the same bits; more are faster,
            as are more processes, which keep the bits.
        pad_multiple: Padded lengths are multiples of this (fewer shapes to compile).
    """

    run: RunConfig = field(default_factory=RunConfig)
    precision: Literal["fp32", "bf16"] = "fp32"
    micro_tokens: int = 16_384
    has_gradient_checkpointing: bool = False
    compile_backend: str = ""
    threads: int = 1
    pad_multiple: int = 1

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise BadSetting(f"backbone: found precision='{self.precision}', expected fp32 or bf16")
        for name in ("micro_tokens", "threads", "pad_multiple"):
            if getattr(self, name) < 1:
                raise BadSetting(
                    f"backbone: found {name}={getattr(self, name)}, expected at least 1"
                )


class Passes(NamedTuple):
    """Work done, summed over processes.

    Attributes:
        training: Texts that went forward and backward.
        evaluation: Texts that went forward only (start and looks).
        tokens: Real tokens of the training passes.
        padded_tokens: The same with padding.
    """

    training: int = 0
    evaluation: int = 0
    tokens: int = 0
    padded_tokens: int = 0
