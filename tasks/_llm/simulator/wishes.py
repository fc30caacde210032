"""What a request says of how its user wants to be answered: wishes in words, or earlier choices.

Words are read by name or by everyday synonyms; choices by the visible style of both answers. It
knows nothing of the user beyond the request.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompts.examples import parse_examples
from prompts.traits import ATTRIBUTES, TRAITS, opposite
from tasks._llm.simulator.messages import tagged, traits_named
from tasks._llm.simulator.style import score_vector

# Mean differences of scores, in [-2, 2], below which a reader would notice nothing.
_VISIBLE = 0.2
_MOST_TRAITS = 2

# Trait -> everyday words of people who want it.
_SYNONYMS: Mapping[str, str] = {
    "verbose": "detailed|in detail|thorough|in depth|comprehensive|long answers?|elaborate",
    "concise": "short|brief|briefly|succinct|to the point|quick answers?|simple",
    "formal": "professional|academic|scholarly",
    "informal": "casual|relaxed|like a friend|chatty|slang",
    "humorous": "funny|humou?r|jokes?|witty|playful",
    "serious": "sober|no jokes|factual|facts only",
    "engaging": "ask me|conversation|conversational|follow-up questions|interactive|curious",
    "polite": "kind|kindly|friendly|respectful|courteous|empathetic|caring",
    "rude": "blunt|brutally honest|sarcastic",
    "enthusiastic": "excited|energetic|cheerful|upbeat|positive",
    "demure": "calm|modest|humble",
    "confident": "assertive|decisive|direct|straightforward|certain",
    "uncertain": "balanced|both sides|nuanced|different points of view|neutral|unbiased|hedged",
}
_PATTERNS = {
    trait: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for trait, words in _SYNONYMS.items()
}


def asks_for_summary(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request shows a user's choices and asks no question of a user."""
    return tagged(messages, "examples") is not None and tagged(messages, "prompt") is None


def summary_reply(messages: Sequence[Mapping[str, Any]]) -> str:
    """Say in a sentence which traits the chosen answers show over the others."""
    traits = traits_chosen(tagged(messages, "examples") or "")
    if not traits:
        return "The choices show no clear taste; answer plainly."
    return f"Write answers that are {' and '.join(traits)}; that is what this user keeps choosing."


def traits_wished(text: str) -> tuple[str, ...]:
    """Return the traits that a text asks for, by name or by everyday words; opposites cancel."""
    named = set(traits_named(text))
    named |= {trait for trait, pattern in _PATTERNS.items() if pattern.search(text)}
    return tuple(trait for trait in TRAITS if trait in named and opposite(trait) not in named)


def traits_chosen(examples: str) -> tuple[str, ...]:
    """Return the one or two traits that chosen answers show most over the others.

    A second trait is named where its mean difference is at least half of the first's.
    """
    choices = parse_examples(examples)
    if not choices:
        return ()
    pairs = [(score_vector(one.chosen), score_vector(one.other)) for one in choices]
    gaps = []
    for column, attribute in enumerate(ATTRIBUTES):
        gap = sum(chosen[column] - other[column] for chosen, other in pairs) / len(pairs)
        gaps.append((abs(gap), attribute.first if gap > 0.0 else attribute.second))
    gaps.sort(reverse=True)
    least = max(_VISIBLE, gaps[0][0] / 2)
    chosen = {trait for gap, trait in gaps[:_MOST_TRAITS] if gap >= least}
    return tuple(trait for trait in TRAITS if trait in chosen)
