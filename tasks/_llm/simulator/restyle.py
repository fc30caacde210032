"""Turning plain sentences into styled ones: leads, tails, word swaps, contractions.

It changes wording and leaves the words of the prompt where they are. It decides neither how long
an answer is nor which traits it has.
"""

import re
from collections.abc import Collection, Sequence
from functools import cache

from prompts.traits import TRAITS
from tasks._llm.simulator.draws import Draws
from tasks._llm.simulator.phrases import (
    CONTRACTIONS,
    content_bank,
    content_kinds,
    trait_bank,
)

_SWAP_RATE = 0.8
_MAX_SWAPS = 2
_EXCLAIM_RATE = 0.6

_SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")
_NO_EXCLAMATION = frozenset({"demure", "serious", "formal", "unengaging"})

# "The dog is", not "it is": only words that contract in front of a verb, both written out.
_CONTRACTED: dict[str, str] = {
    " ".join(words): contraction
    for contraction, words in CONTRACTIONS.items()
    if contraction not in ("ain't", "y'all") and not contraction.endswith("'d")
}
_WRITTEN_OUT = re.compile(
    rf"\b(?:{'|'.join(sorted(_CONTRACTED, key=len, reverse=True))})\b(?=\s)", re.IGNORECASE
)
_CONTRACTION = re.compile(
    rf"\b(?:{'|'.join(sorted(CONTRACTIONS, key=len, reverse=True))})\b", re.IGNORECASE
)


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences and lines, blank ones left out."""
    return [part.strip() for part in _SENTENCE_BREAK.split(text) if part.strip()]


def capitalized(sentence: str) -> str:
    """Return the sentence with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


@cache
def _plain_first_words() -> frozenset[str]:
    sentences = [sentence for kind in content_kinds() for sentence in content_bank(kind)]
    swaps = [
        word for trait in TRAITS for words in trait_bank(trait).swaps.values() for word in words
    ]
    firsts = {capitalized(phrase.split()[0].rstrip(",")) for phrase in (*sentences, *swaps)}
    return frozenset(firsts) | {
        "Here",
        "Its",
        "They",
        "We",
        "What",
        "How",
        "If",
        "As",
        "But",
        "And",
    }


@cache
def _ends() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return all leads and all tails, the longest first."""
    banks = [trait_bank(trait) for trait in TRAITS]
    leads = {lead for bank in banks for lead in (*bank.leads, *bank.mild_leads)}
    tails = {tail for bank in banks for tail in (*bank.tails, *bank.mild_tails)}
    return (
        tuple(sorted(leads, key=lambda lead: (-len(lead), lead))),
        tuple(sorted(tails, key=lambda tail: (-len(tail), tail))),
    )


def _decapitalized(sentence: str) -> str:
    # A name or an acronym at the start keeps its capital.
    first = sentence.split(maxsplit=1)[0].rstrip(",") if sentence else ""
    return sentence[:1].lower() + sentence[1:] if first in _plain_first_words() else sentence


def without_lead(sentence: str, leads: Sequence[str]) -> str:
    """Take the first of the given leads that is there off a sentence."""
    for lead in leads:
        if sentence.startswith(lead + " "):
            return capitalized(sentence[len(lead) + 1 :])
    return sentence


def without_tail(sentence: str, tails: Sequence[str]) -> str:
    """Take the first of the given tails that is there off a sentence."""
    body = sentence.rstrip(".!?")
    for tail in tails:
        if body.endswith(tail):
            return body[: -len(tail)] + "."
    return sentence


def with_lead(sentence: str, lead: str) -> str:
    """Put a beginning such as "Certainly," before a sentence, in place of one that it has."""
    return f"{lead} {_decapitalized(without_lead(sentence, _ends()[0]))}"


def with_tail(sentence: str, tail: str, *, is_question: bool = False) -> str:
    """Put an ending such as ", no doubt" before a sentence's full stop, in place of one it has."""
    plain = without_tail(sentence, _ends()[1])
    end = plain[-1:] if plain[-1:] in (".", "!", "?") else "."
    return f"{plain.rstrip('.!?')}{tail}{'?' if is_question else end}"


@cache
def _swap_pattern(trait: str) -> re.Pattern[str] | None:
    words = trait_bank(trait).swaps
    if not words:
        return None
    # Not inside our own placeholders, nor in a hyphenated word.
    return re.compile(rf"(?<![\w{{-])(?:{'|'.join(words)})(?![\w}}-])", re.IGNORECASE)


def swapped(
    sentence: str, trait: str, draws: Draws, *, protected: Collection[str] = frozenset()
) -> str:
    """Replace up to two neutral words of a sentence by ones that carry a trait.

    Words in `protected`, lower case, stay as they are.
    """
    pattern = _swap_pattern(trait)
    if pattern is None:
        return sentence
    swaps = trait_bank(trait).swaps
    n_swapped = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal n_swapped
        word = match.group().lower()
        if word in protected or n_swapped == _MAX_SWAPS or draws.uniform() > _SWAP_RATE:
            return match.group()
        n_swapped += 1
        new = draws.pick(swaps[word])
        return capitalized(new) if match.group()[0].isupper() else new

    return pattern.sub(replace, sentence)


def without_trait_ends(sentence: str, traits: Collection[str]) -> str:
    """Take the leads and tails of the given traits off a sentence."""
    for trait in traits:
        bank = trait_bank(trait)
        sentence = without_lead(sentence, (*bank.leads, *bank.mild_leads))
        sentence = without_tail(sentence, (*bank.tails, *bank.mild_tails))
    return sentence


def punctuated(sentence: str, traits: Collection[str], draws: Draws) -> str:
    """End a sentence as the traits would: with an exclamation mark, or never with one."""
    if "enthusiastic" in traits and sentence.endswith(".") and draws.uniform() < _EXCLAIM_RATE:
        return sentence[:-1] + "!"
    if _NO_EXCLAMATION.intersection(traits) and "enthusiastic" not in traits:
        return re.sub(r"!+", ".", sentence)
    return sentence


def contracted(text: str) -> str:
    """Write "it is" as "it's" and the like."""
    return _WRITTEN_OUT.sub(
        lambda match: _like(match.group(), _CONTRACTED[match.group().lower()]), text
    )


def written_out(text: str) -> str:
    """Write "it's" as "it is" and the like."""
    return _CONTRACTION.sub(
        lambda match: _like(match.group(), " ".join(CONTRACTIONS[match.group().lower()])),
        text.replace("\u2019", "'"),
    )


def _like(model: str, new: str) -> str:
    is_capital = model[:1].isupper() or new[:2] in ("i ", "i'")
    return capitalized(new) if is_capital else new


def decorated(
    sentences: Sequence[str], leads: Sequence[str], tails: Sequence[str], draws: Draws
) -> list[str]:
    """Spread leads and tails over the sentences, at most one of each a sentence.

    Leads or tails beyond the number of sentences are left out.
    """
    result = list(sentences)
    for place, lead in zip(draws.shuffled(range(len(result))), leads, strict=False):
        result[place] = with_lead(result[place], lead)
    for place, tail in zip(draws.shuffled(range(len(result))), tails, strict=False):
        is_question = tail in trait_bank("engaging").tails
        result[place] = with_tail(result[place], tail, is_question=is_question)
    return result
