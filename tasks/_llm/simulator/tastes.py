"""What a profile says its person likes: a known weight on each visible attribute of an answer.

It reads the profile's words alone. A profile names traits, as those of the Attributes users do,
or holds a survey's lines ("- label: answer"), as PRISM's do; the two add up. Nothing is inferred
from who somebody is: age, gender, faith and country enter as bytes of a hash only, as noise does.

A survey profile's weights are z L, scaled to the length √2 of two named traits. L (`LEANINGS`) is
a 4 × 7 matrix of leanings, so that the true tastes of all survey profiles have rank 4 (5 with the
taste that everyone shares). z (4) is what the person told (`leanings_told`) plus noise from the
hash of the profile:

* how important each stated preference is, less the person's own mean, in units of 25 points;
* how familiar the person is with language models;
* words of the person's values and beliefs.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from functools import lru_cache

from prompts.traits import ATTRIBUTES, attribute_of, sign
from tasks._llm.simulator.draws import Draws
from tasks._llm.simulator.messages import traits_named

_NAMES = tuple(attribute.name for attribute in ATTRIBUTES)

# Leaning -> its direction among the visible attributes; each has length 1.
_DIRECTIONS: Mapping[str, Mapping[str, float]] = {
    "depth": {"length": 0.8, "formality": 0.6},
    "warmth": {"politeness": 0.6, "elicitation": 0.64, "enthusiasm": 0.48},
    "play": {"humor": 0.8, "formality": -0.6},
    "assurance": {"confidence": 0.8, "enthusiasm": -0.36, "elicitation": -0.48},
}
N_LEANINGS = len(_DIRECTIONS)
LEANINGS: tuple[tuple[float, ...], ...] = tuple(
    tuple(direction.get(name, 0.0) for name in _NAMES) for direction in _DIRECTIONS.values()
)

# The labels of stated preferences as profiles word them, by a word that tells each apart, and
# what their importance says of (depth, warmth, play, assurance).
_PREFERENCES: tuple[tuple[str, tuple[float, float, float, float]], ...] = (
    ("values and culture", (0.0, 0.5, 0.0, 0.0)),
    ("creative", (0.0, 0.0, 0.9, -0.2)),
    ("easy to follow", (-0.8, 0.0, 0.2, 0.3)),
    ("factual", (0.7, -0.3, -0.4, 0.6)),
    ("points of view", (0.6, 0.0, 0.0, -0.8)),
    ("risk of harm", (0.0, 0.4, -0.6, -0.6)),
    ("suited to the person", (0.0, 0.8, 0.3, 0.0)),
    ("helpful", (0.5, 0.3, 0.0, 0.2)),
)
_FAMILIARITY: Mapping[str, tuple[float, float, float, float]] = {
    "not familiar": (0.3, 0.6, 0.0, -0.2),
    "very familiar": (-0.4, -0.5, 0.2, 0.3),
}
_WORDS: tuple[tuple[re.Pattern[str], tuple[float, float, float, float]], ...] = tuple(
    (re.compile(rf"\b(?:{words})\b", re.IGNORECASE), leaning)
    for words, leaning in (
        ("science|evidence|facts?|knowledge|learning|detail|curious", (0.6, 0.0, 0.0, 0.3)),
        ("simple|practical|efficient|direct|time", (-0.6, -0.2, 0.0, 0.3)),
        ("kind|kindness|family|respect|care|caring|help|community|love", (0.0, 0.6, 0.0, 0.0)),
        ("fun|humou?r|laugh|play|creative|art|music|joy|games", (0.0, 0.2, 0.8, 0.0)),
        ("honest|honesty|truth|integrity|duty|discipline|strong", (0.0, -0.2, -0.4, 0.7)),
        ("open|doubt|questions?|diversity|tolerant|balance", (0.2, 0.2, 0.0, -0.7)),
    )
)

_POINTS_A_UNIT = 25.0
_NOISE = 0.8
# As strong as two named traits of weight 1.
_NORM = math.sqrt(2.0)

_LINE = re.compile(r"^-\s*(.+?):[ \t]*(\S.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@lru_cache(maxsize=4096)
def taste(profile: str) -> tuple[float, ...]:
    """Return the weight of each attribute, in the order of `prompts.traits.ATTRIBUTES`.

    The sum of a named trait's sign (two opposite ones cancel) and, for a survey profile, of what
    `survey_taste` says. A profile that is neither has no weights.
    """
    weights = list(survey_taste(profile)) if is_survey(profile) else [0.0] * len(_NAMES)
    for trait in traits_named(profile):
        weights[_NAMES.index(attribute_of(trait).name)] += sign(trait)
    return tuple(weights)


def is_survey(profile: str) -> bool:
    """Whether a profile holds lines of a survey, "- label: answer"."""
    return _LINE.search(profile) is not None


def leanings_told(profile: str) -> tuple[float, ...]:
    """Return what a survey profile says of (depth, warmth, play, assurance), each in (-1, 1)."""
    lines = [(label.lower(), answer.strip()) for label, answer in _LINE.findall(profile)]
    told = [0.0] * N_LEANINGS
    stated = [(label, float(answer)) for label, answer in lines if _NUMBER.fullmatch(answer)]
    mean = math.fsum(value for _, value in stated) / max(len(stated), 1)
    for label, value in stated:
        for words, leaning in _PREFERENCES:
            if words in label:
                _add(told, leaning, (value - mean) / _POINTS_A_UNIT)
    for label, answer in lines:
        if label == "familiarity":
            for level, leaning in _FAMILIARITY.items():
                _add(told, leaning, float(answer.lower().startswith(level)))
    own_words = "\n".join(line for line in profile.splitlines() if not line.startswith("-"))
    for pattern, leaning in _WORDS:
        _add(told, leaning, float(pattern.search(own_words) is not None))
    return tuple(math.tanh(value) for value in told)


def survey_taste(profile: str) -> tuple[float, ...]:
    """Return the weights of a survey profile, z L of length √2; see the module."""
    draws = Draws(hashlib.sha256(profile.encode("utf-8", "replace")).digest(), "taste")
    z = [told + _NOISE * _normal(draws) for told in leanings_told(profile)]
    weights = [
        math.fsum(one * direction[column] for one, direction in zip(z, LEANINGS, strict=True))
        for column in range(len(_NAMES))
    ]
    scale = _NORM / math.sqrt(math.fsum(weight * weight for weight in weights))
    return tuple(scale * weight for weight in weights)


def _add(total: list[float], leaning: tuple[float, ...], strength: float) -> None:
    for place, value in enumerate(leaning):
        total[place] += strength * value


def _normal(draws: Draws) -> float:
    """A standard normal draw (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(draws.uniform()))
    return radius * math.cos(2.0 * math.pi * draws.uniform())
