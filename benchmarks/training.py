"""Backbone passes, time and AUC of pair-grouped against per-label training at the Attributes shape.

    python benchmarks/training.py [--json] [--epochs 30] [--seeds 3]

84 users, 100 pairs, every cell judged in both orders, 80/20 over users and over pairs (METHOD
section 2). Texts are token ids: each of 14 traits has words of its own, a response shows two
traits, a user likes two. The backbone is a tiny causal network with random weights, trained end to
end for the same number of epochs with both groupings, as many labels a step, and the same learning
rates. Test AUC: new users (10 answers on seen pairs), new pairs; its difference is paired by seed,
with the standard error over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from datetime import date
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from transformers import Qwen2Config, Qwen2Model

from pref_model.adapt import UserPrior, adapt_users
from pref_model.backbone import Backbone
from pref_model.backbone_config import BackboneConfig, BackboneRun
from pref_model.backbone_texts import TokenTexts, pad_texts
from pref_model.metrics import auc_per_user
from pref_model.model import FitConfig, RunConfig
from pref_model.train_backbone import BackboneFit, fit_backbone
from pref_model.types import Preferences, make_preferences

N_TRAITS, WORDS_A_TRAIT, N_FILLER = 14, 2, 32
VOCABULARY = 1 + N_TRAITS * WORDS_A_TRAIT + N_FILLER


class TokenWorld(NamedTuple):
    """Texts, pairs and answers with known utilities."""

    texts: TokenTexts
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    labels: NDArray[np.float64]  # (U, M): 0, 1/2, 1
    n_seen_users: int
    n_seen_pairs: int

    def part(self, name: str) -> Preferences:
        """Cells of the seen users: "train" on seen pairs, "validation" on new ones."""
        pairs = np.arange(self.labels.shape[1])
        is_seen = pairs < self.n_seen_pairs
        pairs = pairs[is_seen if name == "train" else ~is_seen]
        block = self.labels[: self.n_seen_users][:, pairs]
        row, column = np.nonzero(~np.isnan(block))
        return make_preferences(row, pairs[column], block[row, column])


def token_world(n_users: int = 84, n_pairs: int = 100, seed: int = 0) -> TokenWorld:
    """Responses of 8 to 40 tokens, a third of them words of the response's two traits."""
    rng = np.random.default_rng(seed)
    tokens, sizes, shares = [], [], []
    for _ in range(2 * n_pairs):
        size = int(rng.integers(8, 41))
        traits = rng.choice(N_TRAITS, 2, replace=False)
        ids = 1 + N_TRAITS * WORDS_A_TRAIT + rng.integers(0, N_FILLER, size)
        is_style = rng.random(size) < 0.35
        trait = rng.choice(traits, size)
        ids[is_style] = 1 + (trait * WORDS_A_TRAIT + rng.integers(0, WORDS_A_TRAIT, size))[is_style]
        shares.append([np.mean(is_style & (trait == one)) for one in range(N_TRAITS)])
        tokens.append(ids)
        sizes.append(size)
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    texts = TokenTexts(
        np.concatenate(tokens).astype(np.int64),
        offsets,
        np.zeros_like(offsets[1:]),
        np.diff(offsets),
    )
    couples = [(a, b) for a in range(N_TRAITS) for b in range(a) if a // 2 != b // 2]
    chosen = rng.permutation(len(couples))[np.arange(n_users) % len(couples)]
    likes = np.zeros((n_users, N_TRAITS))
    for user, couple in enumerate(chosen):
        likes[user, list(couples[couple])] = 1.0
    likes[:, 1::2] -= likes[:, 0::2]  # a trait and its opposite share an axis
    likes[:, 0::2] = -likes[:, 1::2]
    share = np.asarray(shares)
    first, second = np.arange(n_pairs), np.arange(n_pairs) + n_pairs
    margin = 12.0 * likes @ (share[first] - share[second]).T
    labels = np.mean([rng.random(margin.shape) < expit(margin) for _ in range(2)], axis=0)
    return TokenWorld(
        texts,
        first.astype(np.int64),
        second.astype(np.int64),
        labels,
        int(0.8 * n_users),
        int(0.8 * n_pairs),
    )


def tiny_backbone(seed: int = 0, hidden: int = 32) -> Backbone:
    """A causal network of two layers with random weights that reads the whole response."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    return Backbone(Qwen2Model(config).eval(), (2,), "mean")


def embed(backbone: Backbone, texts: TokenTexts) -> NDArray[np.float64]:
    """Embeddings of all texts (R, D)."""
    with torch.no_grad():
        batch = pad_texts(texts, np.arange(texts.lengths.size), 0)
        found: NDArray[np.float64] = backbone(*batch).double().numpy()
    return found


def auc_of_new_users(
    world: TokenWorld, backbone: Backbone, found: BackboneFit, n_answers: int = 10
) -> float:
    """Mean AUC of new users on new pairs after some random answers on seen pairs."""
    embeddings = embed(backbone, world.texts)
    phi = found.model.pair_features(embeddings[world.first] - embeddings[world.second])
    rng = np.random.default_rng(0)
    seen, n_new = world.n_seen_pairs, world.labels.shape[0] - world.n_seen_users
    asked = np.stack([rng.choice(seen, n_answers, replace=False) for _ in range(n_new)])
    answers = np.take_along_axis(world.labels[world.n_seen_users :, :seen], asked, axis=1)
    prior = UserPrior.from_users(found.model.user_weights.astype(np.float64))
    new = adapt_users(phi[asked], answers, np.ones_like(answers), prior).mean
    labels = world.labels[world.n_seen_users :, world.n_seen_pairs :]
    return float(np.nanmean(auc_per_user(new @ phi[world.n_seen_pairs :].T, labels)))


def measure(seed: int, grouping: str, epochs: int) -> dict[str, float]:
    """Train once and return passes, seconds and test AUC."""
    world, backbone = token_world(seed=seed), tiny_backbone(seed)
    train = world.part("train")
    n_groups = world.n_seen_pairs if grouping == "pair" else train.user.size
    batch = 8 if grouping == "pair" else 536  # 67 labels a pair: as many labels a step
    steps = epochs * -(-n_groups // batch)
    config = BackboneConfig(
        backbone_learning_rate=1e-3,
        steps=steps,
        batch_size=batch,
        grouping=grouping,  # type: ignore[arg-type]
        warmup_steps=5,
        evaluate_every=max(1, steps // 10),
        patience=10,
    )
    fit = FitConfig(d=8, head_l2=(1.0, 3.0, 10.0), steps=100)
    begun = time.perf_counter()
    found = fit_backbone(
        backbone,
        world.texts,
        world.first,
        world.second,
        train,
        world.n_seen_users,
        fit,
        config,
        BackboneRun(RunConfig(seed=seed), micro_tokens=32_768),
        world.part("validation"),
    )
    return {
        "passes_an_epoch": found.passes_an_epoch,
        "training_passes": found.passes.training,
        "padding_share": 1.0 - found.passes.tokens / max(found.passes.padded_tokens, 1),
        "wall_s": time.perf_counter() - begun,
        "validation_nll_start": float(found.model.history[0].validation_nll or 0.0),
        "validation_nll": min(float(point.validation_nll or 9.0) for point in found.model.history),
        "test_auc": auc_of_new_users(world, backbone, found),
    }


def main() -> None:
    """Measures both groupings and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"found --seeds {arguments.seeds}, expected at least 2 for an error")
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, float]]] = {"pair": [], "label": []}
    for seed, grouping in itertools.product(range(arguments.seeds), runs):
        runs[grouping].append(measure(seed, grouping, arguments.epochs))
        print(f"seed {seed} {grouping}: {runs[grouping][-1]}", file=sys.stderr, flush=True)
    found: dict[str, object] = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, CPU only",
        "arguments": {"epochs": arguments.epochs, "seeds": arguments.seeds},
        "torch": torch.__version__,
    }
    for grouping, each in runs.items():
        mean = {key: round(float(np.mean([one[key] for one in each])), 4) for key in each[0]}
        found[grouping] = {**mean, "test_auc_by_seed": [round(one["test_auc"], 4) for one in each]}
    gap = np.array([a["test_auc"] - b["test_auc"] for a, b in zip(*runs.values(), strict=True)])
    found["auc_pair_minus_label"] = round(float(gap.mean()), 4)
    found["auc_pair_minus_label_error"] = round(float(gap.std(ddof=1) / len(gap) ** 0.5), 4)
    passes = [each[0]["passes_an_epoch"] for each in runs.values()]
    found["times_fewer_passes_an_epoch"] = passes[1] / passes[0]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(name, value)


if __name__ == "__main__":
    main()
