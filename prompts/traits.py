"""The 7 attributes and their 14 signed traits (arXiv 2503.06358, Attributes data).

It says what each trait means in words; it does not judge whether a text has a trait.
"""

from collections.abc import Sequence
from typing import NamedTuple

from prompts.errors import PromptError


class Attribute(NamedTuple):
    """One attribute of an answer and its two opposite traits.

    Attributes:
        name: The attribute, e.g. ``length``.
        first: The trait with sign +1.
        second: The trait with sign -1.
        first_gloss: What ``first`` means, in words that name no trait.
        second_gloss: What ``second`` means, in words that name no trait.
    """

    name: str
    first: str
    second: str
    first_gloss: str
    second_gloss: str


# A gloss never holds the name of a trait as a word: "formal" inside the gloss of another trait
# would tell a reader, model or program, that the person wants that one too. A test enforces it.
ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "length",
        "verbose",
        "concise",
        "long and thorough, with examples and every detail spelled out",
        "short and to the point, nothing padded or said twice",
    ),
    Attribute(
        "formality",
        "formal",
        "informal",
        "professional wording in full sentences, no slang and no contractions",
        "casual and chatty, with slang and contractions, as a friend would write",
    ),
    Attribute(
        "humor",
        "humorous",
        "serious",
        "playful, with jokes, wordplay or funny asides",
        "sober and straight-faced, without a single joke",
    ),
    Attribute(
        "elicitation",
        "engaging",
        "unengaging",
        "asks the reader questions and invites a reply",
        "asks nothing back and stops where the facts stop",
    ),
    Attribute(
        "politeness",
        "polite",
        "rude",
        "courteous and considerate, with please and thank you",
        "blunt and dismissive, without any courtesy",
    ),
    Attribute(
        "enthusiasm",
        "enthusiastic",
        "demure",
        "excited and full of energy, with exclamation marks",
        "quiet and modest in tone, never excited",
    ),
    Attribute(
        "confidence",
        "confident",
        "uncertain",
        "sure of every claim, with no hedging",
        "hesitant and hedged, with maybe, perhaps and I could be wrong",
    ),
)

TRAITS: tuple[str, ...] = tuple(
    trait for attribute in ATTRIBUTES for trait in (attribute.first, attribute.second)
)


def attribute_of(trait: str) -> Attribute:
    """Return the attribute that a trait belongs to.

    Raises:
        PromptError: If ``trait`` is not one of the 14 traits.
    """
    for attribute in ATTRIBUTES:
        if trait in (attribute.first, attribute.second):
            return attribute
    raise PromptError(
        f"trait {trait!r}: not a known trait, expected one of {', '.join(TRAITS)}; "
        "use one of these words in lower case"
    )


def sign(trait: str) -> int:
    """Return +1 for the first trait of its attribute and -1 for the second.

    Raises:
        PromptError: If ``trait`` is not one of the 14 traits.
    """
    return 1 if trait == attribute_of(trait).first else -1


def opposite(trait: str) -> str:
    """Return the other trait of the same attribute.

    Raises:
        PromptError: If ``trait`` is not one of the 14 traits.
    """
    attribute = attribute_of(trait)
    return attribute.second if trait == attribute.first else attribute.first


def gloss(trait: str) -> str:
    """Return what a trait means, in words that name no trait.

    Raises:
        PromptError: If ``trait`` is not one of the 14 traits.
    """
    attribute = attribute_of(trait)
    return attribute.first_gloss if trait == attribute.first else attribute.second_gloss


def in_attribute_order(traits: Sequence[str]) -> tuple[str, ...]:
    """Return the traits in the order of `ATTRIBUTES`, checked.

    Raises:
        PromptError: If there is no trait, one is unknown, or two share an attribute.
    """
    if not traits:
        raise PromptError("traits: none given, expected at least one; name one of the 14 traits")
    names = [attribute_of(trait).name for trait in traits]
    for name in names:
        if names.count(name) > 1:
            raise PromptError(
                f"traits {' + '.join(traits)}: more than one trait of the attribute {name!r}, "
                "expected at most one of each attribute; drop one of them"
            )
    return tuple(trait for trait in TRAITS if trait in traits)


def style_text(traits: Sequence[str]) -> str:
    """Write traits out as instructions for a writer: the ``style`` slot of the templates.

    The text names the given traits and no other, one line each, in the order of `ATTRIBUTES`, so
    the same set of traits always gives the same text and therefore the same call.

    Raises:
        PromptError: If there is no trait, one is unknown, or two share an attribute.
    """
    return "\n".join(f"{trait}: {gloss(trait)}" for trait in in_attribute_order(traits))
