"""Disarm text that came from outside before it stands between our tags in a prompt.

It changes only what could close or open one of our tags or pass for a verdict; it is no filter of
content and leaves HTML, code, mathematics and instructions in prose as they are.
"""

import re
from collections.abc import Collection
from functools import cache

from prompts._lookalikes import (
    GREATER,
    IGNORED,
    LESS,
    SLASH,
    marker_pattern,
    spelled,
    without_ignored,
)

# The tags that the templates of this room put around their slots.
TAGS: tuple[str, ...] = ("persona", "style", "prompt", "draft", "response_1", "response_2")


def neutralize(text: str, *, tags: Collection[str] = TAGS, marker: str | None = None) -> str:
    """Return the text unable to close or open one of our tags or to forge a verdict marker.

    ``</response_1>`` becomes ``[/response_1]`` and ``VERDICT: 1`` becomes ``VERDICT - 1``,
    whatever their case, spacing, width or invisible characters. Everything else stays, character
    for character, and a second pass changes nothing. An unclosed ``<prompt`` counts as a tag, for
    the tag that follows the slot would close it.

    Args:
        text: What a user, a data set or a model wrote.
        tags: Names of the tags to guard, lower case.
        marker: The verdict marker to guard, such as ``VERDICT``; None where no verdict is asked.
    """
    if tags:
        text = _tag_pattern(tuple(sorted(tags))).sub(_bracketed, text)
    if marker is not None:
        text = marker_pattern(marker).sub(_without_colon, text)
    return text


@cache
def _tag_pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    # Longer names first: "response" must not hide "response_1". A name that goes on, as in
    # <prompts>, <prompt_id> or <style-guide>, is another tag and none of ours.
    names = "|".join(spelled(tag) for tag in sorted(tags, key=len, reverse=True))
    space = rf"[\s{IGNORED}]*+"
    return re.compile(
        rf"[{LESS}](?P<inner>{space}(?:[{SLASH}]{space})?+(?:{names})(?!-?\w)"
        rf"(?:{space}(?=[{GREATER}])|[^{LESS}{GREATER}\n]{{0,200}}(?=[{GREATER}]))?)"
        rf"(?P<close>[{GREATER}])?"
    )


def _bracketed(match: re.Match[str]) -> str:
    return f"[{without_ignored(match['inner'])}{']' if match['close'] else ''}"


def _without_colon(match: re.Match[str]) -> str:
    # The colon alone makes the marker; a dash keeps the sentence readable and no parser of ours
    # takes it for one.
    following = match.string[match.end() : match.end() + 1]
    space = " " if following and not following.isspace() else ""
    return f"{without_ignored(match['word'] + match['between']).rstrip()} -{space}"
