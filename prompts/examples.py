"""A user's choices written out for a prompt: the ``examples`` slot of templates.

It draws no conclusion from them, and a choice between two without a winner has no place here.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

CHOSEN, OTHER = "Chosen answer:", "Other answer:"
_QUOTE = "> "


class Choice(NamedTuple):
    """One request with the answer that the user chose and the one that the user did not."""

    prompt: str
    chosen: str
    other: str


def examples_text(choices: Iterable[Choice]) -> str:
    """Return the choices, one after another.

    Every line of a quoted text begins with ``> ``, so no text can pass for a heading of ours.
    """
    return "\n\n".join(
        "\n".join(
            (
                f"Request {number}:", _quoted(one.prompt), CHOSEN, _quoted(one.chosen),
                OTHER, _quoted(one.other),
            )
        )
        for number, one in enumerate(choices, start=1)
    )  # fmt: skip


def parse_examples(text: str) -> list[Choice]:
    """Return the choices in a text that `examples_text` wrote; what is not whole is left out."""
    found: list[Choice] = []
    parts: list[list[str]] = []
    for line in (*text.splitlines(), "Request :"):
        if line.startswith("Request "):
            if len(parts) == 3:
                found.append(Choice(*map(_unquoted, parts)))
            parts = [[]]
        elif line in (CHOSEN, OTHER):
            parts.append([])
        elif line.startswith(_QUOTE.rstrip()) and parts:
            parts[-1].append(line)
    return found


def _quoted(text: str) -> str:
    # splitlines knows every line break, so none is left that a reader could take for one.
    return "\n".join(f"{_QUOTE}{line}".rstrip() for line in text.strip().splitlines() or [""])


def _unquoted(lines: Sequence[str]) -> str:
    return "\n".join(line[len(_QUOTE) :] for line in lines)
