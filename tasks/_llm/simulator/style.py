"""How visible each attribute is in a text: a number in [-1, 1] per attribute.

It reads the text alone and works on any text, whoever wrote it. It does not know what was asked
of the writer, and cannot see a trait that leaves no word behind.
"""

import math
import re
import tomllib
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

from prompts.traits import ATTRIBUTES, attribute_of, sign
from tasks._llm.simulator.phrases import CONTRACTIONS

N_ATTRIBUTES = len(ATTRIBUTES)
_INDEX = {attribute.name: index for index, attribute in enumerate(ATTRIBUTES)}
_LENGTH = _INDEX["length"]

# The number of words whose length score is zero, and the spread of its logarithm: about 25 words
# score -0.95 and about 160 words +0.85.
_NEUTRAL_WORDS = 74.0
_LOG_WORDS_SPREAD = 0.6

# One piece of evidence scores about 0.2, five 0.76. Beyond this many words evidence counts less,
# since a long text collects markers by its length alone.
_EVIDENCE_GAIN = 0.20
_WORDS_OF_FULL_EVIDENCE = 80.0

# Punctuation and contractions are weaker evidence than a word chosen for its tone.
_QUESTION_MARK_WEIGHT = 0.8
_EXCLAMATION_MARK_WEIGHT = 0.6
_CONTRACTION_WEIGHT = 0.7

_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|[!?]")


class Evidence(NamedTuple):
    """What was found in a text.

    Attributes:
        n_words: Number of words, split at white space.
        net: Signed weight of the markers per attribute, in the order of `ATTRIBUTES`.
    """

    n_words: int
    net: tuple[float, ...]


class _Marker(NamedTuple):
    rest: tuple[str, ...]
    attribute: int
    weight: float


@cache
def _markers() -> dict[str, list[_Marker]]:
    """Return the markers by their first word, longer ones first."""
    text = (resources.files("tasks._llm.simulator") / "lexicon.toml").read_text(encoding="utf-8")
    by_first: dict[str, list[_Marker]] = {
        "?": [_Marker((), _INDEX["elicitation"], _QUESTION_MARK_WEIGHT)],
        "!": [_Marker((), _INDEX["enthusiasm"], _EXCLAMATION_MARK_WEIGHT)],
    }
    for trait, table in tomllib.loads(text).items():
        index = _INDEX[attribute_of(trait).name]
        for phrase in table["markers"]:
            first, *rest = phrase.split()
            by_first.setdefault(first, []).append(_Marker(tuple(rest), index, float(sign(trait))))
    for markers in by_first.values():
        markers.sort(key=lambda marker: -len(marker.rest))
    return by_first


def evidence(text: str) -> Evidence:
    """Collect the evidence in a text, in time linear in its length.

    Contractions count as informal and are then read as the words they stand for, so that "I'm
    not sure" hedges as much as "I am not sure". The longest marker at a place counts alone.
    """
    markers = _markers()
    net = [0.0] * N_ATTRIBUTES
    tokens: list[str] = []
    for token in _TOKEN.findall(text.lower().replace("\u2019", "'")):
        if "'" in token:
            words = CONTRACTIONS.get(token)
            if words is not None:
                net[_INDEX["formality"]] -= _CONTRACTION_WEIGHT
            tokens.extend(words or token.split("'")[:1])
        else:
            tokens.append(token)
    position, n_tokens = 0, len(tokens)
    while position < n_tokens:
        step = 1
        for marker in markers.get(tokens[position], ()):
            n_rest = len(marker.rest)
            if not n_rest or tuple(tokens[position + 1 : position + 1 + n_rest]) == marker.rest:
                net[marker.attribute] += marker.weight
                step += n_rest
                break
        position += step
    return Evidence(len(text.split()), tuple(net))


@lru_cache(maxsize=16_384)
def score_vector(text: str) -> tuple[float, ...]:
    """Return the visible style of a text.

    Length is tanh(ln(words / 74) / 0.6). Every other score is tanh(0.20 · net evidence), the
    evidence divided by √(words / 80) where a text is longer than 80 words.

    Args:
        text: Any text.

    Returns:
        One score in [-1, 1] per attribute, in the order of `prompts.traits.ATTRIBUTES`; positive
        means the attribute's first trait.
    """
    n_words, net = evidence(text)
    gain = _EVIDENCE_GAIN / math.sqrt(max(1.0, n_words / _WORDS_OF_FULL_EVIDENCE))
    scores = [math.tanh(gain * weight) for weight in net]
    scores[_LENGTH] = math.tanh(math.log(max(n_words, 1) / _NEUTRAL_WORDS) / _LOG_WORDS_SPREAD)
    return tuple(scores)


def style_scores(text: str) -> dict[str, float]:
    """Return the visible style of a text as attribute name → score in [-1, 1].

    See `score_vector` for the scale.
    """
    names = [attribute.name for attribute in ATTRIBUTES]
    return dict(zip(names, score_vector(text), strict=True))


def trait_evidence(text: str, trait: str) -> float:
    """Return the net weight of a trait's markers in a text; negative where its opposite shows.

    Always 0 for the traits of length, which is measured and has no markers.
    """
    return evidence(text).net[_INDEX[attribute_of(trait).name]] * sign(trait)
