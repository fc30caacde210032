"""Counts the tokens of a text with the model's own tokenizer, where one lies on this machine.

It never asks the network and never downloads; without a tokenizer it estimates, and says so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir
from typing import NamedTuple

from tasks._settings import read_environment

# English prose has between three and five characters a token.
_CHARACTERS_PER_TOKEN = 4
_CACHED_MODELS = 8
_TIKTOKEN_PLACE = "https://openaipublic.blob.core.windows.net/encodings"

_Count = Callable[[str], int]


class TokenCount(NamedTuple):
    """How many tokens a text has.

    Attributes:
        tokens: The count.
        is_estimate: It was not counted by the model's own tokenizer.
    """

    tokens: int
    is_estimate: bool


def count_tokens(model: str, text: str) -> TokenCount:
    """Tokens of a text for a model.

    A model that is a folder or lies in the local Hugging Face cache is counted by its own
    tokenizer; an OpenAI model by tiktoken, where that is installed with its files at hand;
    everything else is estimated at four characters a token.

    Args:
        model: As the endpoint knows it, such as ``Qwen/Qwen2.5-7B-Instruct`` or ``gpt-4o``.
        text: Text of a prompt; what a chat template adds is not in it.

    Returns:
        The count; an estimate where no tokenizer of the model is on this machine.
    """
    counter = _counter(model)
    if counter is None:
        return TokenCount(-(-len(text) // _CHARACTERS_PER_TOKEN), True)
    return TokenCount(counter(text), False)


@lru_cache(maxsize=_CACHED_MODELS)
def _counter(model: str) -> _Count | None:
    # Looked for once a model: a search that fails costs as much as one that finds.
    return _hugging_face(model) or _tiktoken(model)


def _hugging_face(model: str) -> _Count | None:
    folder = _folder_of(model)
    if folder is None:
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare ones for a file it cannot read
        logging.getLogger(__name__).warning(
            "Tokenizer of %s cannot be read (%s); tokens are estimated", model, error
        )
        return None

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def _folder_of(model: str) -> Path | None:
    """Folder with a ``tokenizer.json``: the model's own, or the cache's copy of it."""
    try:
        if model and (Path(model) / "tokenizer.json").is_file():
            return Path(model)
    except OSError:
        # Too long for a path, and so for a name on the hub.
        return None
    if model.count("/") > 1 or not all(part.strip(".") for part in model.split("/")):
        # No name on the hub; the library would raise.
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model, "tokenizer.json")
    except ValueError:
        # Not a name that the hub would allow.
        return None
    return Path(found).parent if isinstance(found, str) else None


def _tiktoken(model: str) -> _Count | None:
    cache = read_environment().tiktoken_cache
    try:
        tiktoken = import_module("tiktoken")
        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    # The library names its files by the address it would otherwise download them from.
    at_hand = Path(cache or Path(gettempdir()) / "data-gym-cache") / _cached_name(name)
    if not at_hand.is_file():
        return None
    encoding = tiktoken.get_encoding(name)

    def count(text: str) -> int:
        return len(encoding.encode(text, disallowed_special=()))

    return count


def _cached_name(encoding: str) -> str:
    return hashlib.sha1(f"{_TIKTOKEN_PLACE}/{encoding}.tiktoken".encode()).hexdigest()
