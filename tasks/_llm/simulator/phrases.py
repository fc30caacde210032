"""The responder's phrase banks and word lists, read from phrases.toml on first use.

It holds words and chooses none of them.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

_NOT = ("do", "does", "did", "is", "are", "was", "were", "has", "have", "had", "would", "should")
_SUBJECTS = ("you", "we", "they")

# Contraction → the words it stands for. Only pronouns and the like take 's: "the dog's" is no
# contraction.
CONTRACTIONS: dict[str, tuple[str, ...]] = {
    **{f"{verb}n't": (verb, "not") for verb in (*_NOT, "could", "must", "need")},
    **{f"{subject}'re": (subject, "are") for subject in _SUBJECTS},
    **{f"{subject}'ve": (subject, "have") for subject in ("i", *_SUBJECTS)},
    **{f"{subject}'ll": (subject, "will") for subject in ("i", "it", "he", "she", *_SUBJECTS)},
    **{f"{subject}'d": (subject, "would") for subject in ("i", "he", "she", *_SUBJECTS)},
    **{
        f"{word}'s": (word, "is")
        for word in ("it", "that", "there", "here", "what", "who", "where", "how", "he", "she")
    },
    "can't": ("cannot",),
    "won't": ("will", "not"),
    "i'm": ("i", "am"),
    "let's": ("let", "us"),
    "y'all": ("you", "all"),
    "ain't": ("is", "not"),
}


class TraitBank(NamedTuple):
    """The phrases of one trait.

    Attributes:
        leads: Beginnings that go before a sentence.
        tails: Endings that go before a sentence's full stop.
        lines: Whole sentences, with {a} and {b} for words of the prompt.
        mild_leads: Leads that fit an answer of which the trait was not asked.
        mild_tails: Tails of that kind.
        swaps: Neutral word → its replacements.
    """

    leads: tuple[str, ...]
    tails: tuple[str, ...]
    lines: tuple[str, ...]
    mild_leads: tuple[str, ...]
    mild_tails: tuple[str, ...]
    swaps: dict[str, tuple[str, ...]]


@cache
def _tables() -> dict[str, Any]:
    text = (resources.files("tasks._llm.simulator") / "phrases.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def content_bank(kind: str) -> tuple[str, ...]:
    """Return the neutral sentences of one kind, such as ``any``, ``short`` or ``how``."""
    return tuple(_tables()["content"][kind])


@cache
def small_words() -> frozenset[str]:
    """Return the words that are too general to be what a prompt is about."""
    return frozenset(_tables()["small_words"].split())


@cache
def content_kinds() -> tuple[str, ...]:
    """Return the kinds of neutral sentences."""
    return tuple(_tables()["content"])


@cache
def trait_bank(trait: str) -> TraitBank:
    """Return the phrases of one trait."""
    table = _tables()[trait]
    return TraitBank(
        leads=tuple(table["leads"]),
        tails=tuple(table["tails"]),
        lines=tuple(table["lines"]),
        mild_leads=tuple(table.get("mild_leads", ())),
        mild_tails=tuple(table.get("mild_tails", ())),
        swaps={word: tuple(words) for word, words in table.get("swaps", {}).items()},
    )
