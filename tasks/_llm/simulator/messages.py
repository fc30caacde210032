"""Reading a request's messages: tagged parts, traits named in them, and their identity.

It knows the tags by name and nothing else about the templates.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from prompts.traits import TRAITS, opposite

_TRAIT_WORD = re.compile(rf"\b(?:{'|'.join(TRAITS)})\b", re.IGNORECASE)


def content_text(message: Mapping[str, Any]) -> str:
    """Return a message's text; the text parts of a list of parts, joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def tagged(messages: Sequence[Mapping[str, Any]], tag: str) -> str | None:
    """Return what stands between the last pair of a tag, stripped, or None without such a pair.

    The last pair is taken because instructions name the tags before they use them ("between
    <persona> tags"), and an opening tag alone is no pair.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    for message in reversed(messages):
        text = content_text(message)
        end = text.rfind(closing)
        if end < 0:
            continue
        start = text.rfind(opening, 0, end)
        if start >= 0:
            return text[start + len(opening) : end].strip()
    return None


@lru_cache(maxsize=4096)
def traits_named(text: str) -> tuple[str, ...]:
    """Return the traits that occur in a text as whole words, in the order of `TRAITS`.

    Two opposite traits cancel, as they would in anything that follows both.
    """
    found = {match.lower() for match in _TRAIT_WORD.findall(text)}
    return tuple(trait for trait in TRAITS if trait in found and opposite(trait) not in found)


def identity(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    request_seed: int | None = None,
    choice: int = 0,
) -> bytes:
    """Return the 32 bytes that every draw for one reply derives from.

    They cover what a language model reads (its name and the messages), the simulator's seed, the
    request's own seed and the number of the choice. Whether log probabilities are asked for, or
    where a reply is cut, must not change what is said.
    """
    parts = [str(seed), model, repr(request_seed), str(choice)]
    for message in messages:
        parts.append(str(message.get("role")))
        parts.append(content_text(message))
    # Lengths first: no text can then pass for the end of one part and the start of the next.
    lengths = ",".join(str(len(part)) for part in parts)
    return hashlib.sha256((lengths + "|" + "".join(parts)).encode("utf-8", "replace")).digest()
