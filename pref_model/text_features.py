"""Cheap features of a response's form: length, structure, punctuation. It reads no meaning.

They stand beside an embedding, which says little of form; nothing here is fitted or downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pref_model.types import Floats32

NAMES = (
    "log_characters",
    "log_words",
    "log_sentences",
    "log_lines",
    "log_list_items",
    "has_markup",
    "words_per_sentence",
    "characters_per_word",
    "distinct_word_share",
    "commas_per_word",
    "questions_per_sentence",
    "exclamations_per_sentence",
    "quotes_per_word",
    "digits_per_character",
    "capitals_per_character",
    "first_person_per_word",
)

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_MARKUP = re.compile(r"\*\*|^#{1,6}\s|```|^\|", re.MULTILINE)
_QUOTE = re.compile(r"[\"“”«»]")
_FIRST_PERSON = frozenset({"i", "i'm", "i’m", "me", "my", "we", "our", "us", "myself"})


def text_features(texts: Sequence[str]) -> Floats32:
    """Features (R, F) of texts, in the order of `NAMES`.

    Counts that grow with length enter as logarithms of one plus the count, everything else as a
    rate, so that no feature but the first five repeats the length. Differences of two rows are
    antisymmetric by construction. A blank text gives a row of finite numbers.

    Args:
        texts: Responses, R of them.

    Returns:
        (R, F) float32, finite.
    """
    found = np.array([_row(text) for text in texts], dtype=np.float32)
    return found.reshape(len(texts), len(NAMES))


def _row(text: str) -> tuple[float, ...]:
    words = [word.lower() for word in _WORD.findall(text)]
    characters, n_words = max(len(text), 1), max(len(words), 1)
    sentences = max(len(_SENTENCE_END.findall(text)), 1)
    letters = sum(map(len, words))
    return (
        float(np.log1p(len(text))),
        float(np.log1p(len(words))),
        float(np.log1p(sentences)),
        float(np.log1p(sum(bool(line.strip()) for line in text.splitlines()))),
        float(np.log1p(len(_LIST_ITEM.findall(text)))),
        float(bool(_MARKUP.search(text))),
        float(np.log1p(len(words) / sentences)),
        letters / n_words,
        len(set(words)) / n_words,
        text.count(",") / n_words,
        text.count("?") / sentences,
        text.count("!") / sentences,
        len(_QUOTE.findall(text)) / n_words,
        sum(one.isdigit() for one in text) / characters,
        sum(one.isupper() for one in text) / characters,
        sum(word in _FIRST_PERSON for word in words) / n_words,
    )
