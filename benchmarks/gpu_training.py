"""Speed of backbone training and feature extraction: Qwen2.5-0.5B's architecture, random weights.

    python benchmarks/gpu_training.py [--json] [--tiny] [--seconds 20] [--no-compile]

Needs no network and no files. Every text has 512 tokens; a pair has 64 labels. Reports, for
training (bf16 autocast, float32 master weights, fused AdamW) and for extraction (bf16 weights):
pairs/s, tokens/s, TFLOP/s, the share of the dense bf16 matrix-multiplication rate measured on the
same device in the same run, and peak memory; and how many times more labels a second pair-grouped
batches serve than per-label ones. Without a GPU a small network runs, in seconds (`--tiny`).
Beside the libraries of `pref_model` it needs this folder and the one above it, not their
installation; torch.compile needs a C compiler, and is left out where there is none.

FLOP are those of the matrix products a forward pass needs (2 a weight and token, embedding table
left out, plus 2 x 2 x L x width / 2 a token and layer for causal attention); training counts three
forward passes, and recomputation is not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import accelerate
import numpy as np
import torch
import transformers
from transformers import Qwen2Config, Qwen2Model

# A machine lent for an hour has a copy of the repository, not an installation of it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pref_model.backbone import Backbone, without_dropout
from pref_model.backbone_config import BackboneConfig, BackboneRun
from pref_model.backbone_texts import TokenTexts, pad_texts
from pref_model.fit import accelerator_for
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.train_backbone_loop import (
    BackboneFactorization,
    BackboneTrainer,
    BackboneWork,
)
from pref_model.types import Preferences, make_preferences

# The published config.json of Qwen2.5-0.5B.
QWEN = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
TINY = QWEN | {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


class Shape(NamedTuple):
    """How much is measured."""

    length: int
    pairs: int
    labels_a_pair: int
    batch_pairs: int
    micro_tokens: int
    seconds: float
    matmul: int


def network(is_tiny: bool, device: torch.device, dtype: torch.dtype) -> Qwen2Model:
    """The architecture with random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2Model(Qwen2Config(**(TINY if is_tiny else QWEN)))
    return model.to(dtype)


def flop_a_token(model: Qwen2Model, length: int) -> float:
    """Forward matrix-product FLOP a token of a text of `length` tokens."""
    weights = sum(
        layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear)
    )
    config = model.config
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    attention = 2 * 2 * (length / 2) * width * config.num_hidden_layers
    return 2.0 * weights + attention


def texts_and_labels(shape: Shape, vocabulary: int) -> tuple[TokenTexts, Preferences]:
    """Random texts of full length, two a pair, and labels of random users."""
    rng = np.random.default_rng(0)
    n_texts = 2 * shape.pairs
    tokens = rng.integers(1, vocabulary, n_texts * shape.length)
    offsets = np.arange(n_texts + 1, dtype=np.int64) * shape.length
    lengths = np.diff(offsets)
    pair = np.repeat(np.arange(shape.pairs), shape.labels_a_pair)
    user = np.tile(np.arange(shape.labels_a_pair), shape.pairs)
    label = rng.choice([0.0, 0.5, 1.0], pair.size)
    texts = TokenTexts(tokens, offsets, np.zeros_like(lengths), lengths)
    return texts, make_preferences(user, pair, label)


def timed(step: Callable[[], int], device: torch.device, seconds: float) -> tuple[float, int]:
    """Run a step until the time is up, after three that are not counted: (seconds, units)."""
    for _ in range(3):
        step()
    wait(device)
    units, begun = 0, time.perf_counter()
    while True:
        units += step()
        wait(device)
        passed = time.perf_counter() - begun
        if passed >= seconds:
            return passed, units


def wait(device: torch.device) -> None:
    """Wait for the device to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, size: int, seconds: float) -> float:
    """TFLOP/s of square bf16 matrix products, the best of three sizes."""
    best = 0.0
    for side in (size // 2, size, size * 2):
        a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
        b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
        out = torch.empty_like(a)
        repeats = 20 if device.type == "cuda" else 1

        def step(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> int:
            for _ in range(repeats):  # noqa: B023
                torch.mm(a, b, out=out)
            return repeats  # noqa: B023

        passed, units = timed(step, device, seconds)
        best = max(best, 2.0 * side**3 * units / passed / 1e12)
    return best


def trainer_of(
    model: Qwen2Model, shape: Shape, grouping: str, arguments: argparse.Namespace
) -> tuple[BackboneTrainer, BackboneWork]:
    """The product's own trainer on random texts, without the frozen fit before it."""
    device = next(model.parameters()).device
    texts, train = texts_and_labels(shape, model.config.vocab_size)
    without_dropout(model)
    backbone = Backbone(model, (model.config.num_hidden_layers,), "last")
    kind = "cpu" if device.type == "cpu" else "auto"
    run = BackboneRun(
        RunConfig(device=kind),
        precision="bf16",
        micro_tokens=shape.micro_tokens,
        has_gradient_checkpointing=arguments.checkpointing,
        compile_backend="inductor" if arguments.is_compiled else "",
    )
    config = BackboneConfig(grouping=grouping, batch_size=shape.batch_pairs)  # type: ignore[arg-type]
    pairs = np.arange(shape.pairs)
    work = BackboneWork(
        accelerator_for(kind), backbone, texts, 2 * pairs, 2 * pairs + 1, run, 1.0, config
    )
    rng = np.random.default_rng(1)
    start = RewardModel(
        head=rng.standard_normal((8, backbone.width)).astype(np.float32) * 0.01,
        feature_mean=np.zeros(backbone.width, dtype=np.float32),
        feature_scale=np.ones(backbone.width, dtype=np.float32),
        user_weights=rng.standard_normal((shape.labels_a_pair, 8)).astype(np.float32),
        config=FitConfig(),
        head_l2=1.0,
    )
    module = BackboneFactorization(backbone, start)
    work.freeze_idle(module, train)
    return BackboneTrainer(work, module, train, None, start, "", None), work


def measure_training(
    grouping: str, shape: Shape, arguments: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Steps of the product's trainer for some seconds."""
    reset_peak(device)
    model = network(arguments.tiny, device, torch.float32)
    trainer, work = trainer_of(model, shape, grouping, arguments)

    def step() -> int:
        before = work.passes.training
        trainer.advance()
        return work.passes.training - before

    passed, n_texts = timed(step, device, shape.seconds)
    tokens = n_texts * shape.length / passed
    return {
        "texts_per_s": n_texts / passed,
        "pairs_per_s": n_texts / 2 / passed,
        "labels_per_s": n_texts / 2 / passed * (shape.labels_a_pair if grouping == "pair" else 1),
        "tokens_per_s": tokens,
        "tflop_per_s": 3.0 * flop_a_token(model, shape.length) * tokens / 1e12,
        "peak_memory_gb": peak(device),
    }


def measure_extraction(
    shape: Shape, arguments: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Forward passes with bf16 weights for some seconds, results brought to the host."""
    reset_peak(device)
    model = network(arguments.tiny, device, torch.bfloat16).eval()
    backbone = Backbone(model, (model.config.num_hidden_layers,), "last")
    if arguments.is_compiled:
        model.compile(backend="inductor")
    texts, _ = texts_and_labels(shape, model.config.vocab_size)
    rows = np.arange(min(shape.micro_tokens // shape.length, 2 * shape.pairs))

    @torch.inference_mode()
    def step() -> int:
        batch = pad_texts(texts, rows, 0).to(device)
        backbone(*batch).cpu()
        return int(rows.size)

    passed, n_texts = timed(step, device, shape.seconds)
    tokens = n_texts * shape.length / passed
    return {
        "pairs_per_s": n_texts / 2 / passed,
        "tokens_per_s": tokens,
        "tflop_per_s": flop_a_token(model, shape.length) * tokens / 1e12,
        "peak_memory_gb": peak(device),
    }


def reset_peak(device: torch.device) -> None:
    """Begin a new peak."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Most device memory held since the peak was reset, in GB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def main() -> None:
    """Measures everything and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a small network, in seconds")
    parser.add_argument("--seconds", type=float, help="measured time of each figure")
    parser.add_argument("--micro-tokens", type=int, default=65_536, help="tokens a forward pass")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--no-compile", dest="is_compiled", action="store_false")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments.tiny = arguments.tiny or device.type == "cpu"
    has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    arguments.is_compiled = arguments.is_compiled and device.type == "cuda" and has_compiler
    seconds = arguments.seconds or (0.3 if arguments.tiny else 20.0)
    shape = Shape(512, 512, 64, 64, arguments.micro_tokens, seconds, 8192)
    if arguments.tiny:
        shape = Shape(64, 16, 8, 4, 1024, seconds, 256)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    rate = matmul_rate(device, shape.matmul, min(seconds, 5.0))
    found: dict[str, object] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "transformers": transformers.__version__,
            "accelerate": accelerate.__version__,
        },
        "settings": {
            **shape._asdict(),
            "is_tiny": arguments.tiny,
            "is_compiled": arguments.is_compiled,
        },
        "matmul_bf16_tflop_per_s": rate,
    }
    parts = {
        "training, grouped by pair": measure_training("pair", shape, arguments, device),
        "training, a label at a time": measure_training("label", shape, arguments, device),
        "extraction": measure_extraction(shape, arguments, device),
    }
    for name, part in parts.items():
        found[name] = {**part, "share_of_matmul_rate": part["tflop_per_s"] / rate}
    grouped, single = (parts[name]["labels_per_s"] for name in list(parts)[:2])
    found["times_more_labels_per_s_when_grouped"] = grouped / single
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
