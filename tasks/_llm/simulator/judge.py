"""The simulated judge: a known choice model over what is visible in two answers.

It reads the persona and the texts of both answers, nothing else. It never learns who wrote an
answer, in which style, or what the other order of the same pair gave.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from prompts.traits import ATTRIBUTES, attribute_of, sign
from tasks._llm.simulator.draws import uniform_from
from tasks._llm.simulator.messages import identity, tagged, traits_named
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import score_vector

JUDGE_MODEL = "simulated-judge"

Form = Literal["exact", "sloppy", "off_menu"]

# What everyone likes a little, by attribute: courtesy, a sure tone, a question back, not too long.
_COMMON_WEIGHTS = {"politeness": 0.8, "confidence": 0.6, "elicitation": 0.6, "length": -0.5}
_COMMON = tuple(_COMMON_WEIGHTS.get(attribute.name, 0.0) for attribute in ATTRIBUTES)

# Each has a verdict that a careful parser can use, and none is the exact line.
SLOPPY_FORMS: tuple[str, ...] = (
    "verdict: {option}",
    "**VERDICT: {option}**",
    "VERDICT: [{option}]",
    "VERDICT: Response {option}",
    "VERDICT: {option}.",
    "Verdict: **{option}**",
    "This person would rather receive one of them for its tone.\nVERDICT: {option}",
    "Both answers cover the request, but the tone differs.\n\nVERDICT: response {option}",
    'VERDICT: "{option}"',
)
# None of these names one offered option behind the marker.
OFF_MENU_REPLIES: tuple[str, ...] = (
    "",
    "Both are good.",
    "VERDICT: tie",
    "VERDICT: both",
    "VERDICT: neither",
    "VERDICT: 3",
    "VERDICT: 1 or 2",
    "I cannot decide between the two responses.",
    "The first has more detail, while the second has the better tone.",
)
_NOTHING_TO_JUDGE = "There are no two responses here to choose between."


class JudgeTruth(NamedTuple):
    """What the judge does with one request, and why.

    Attributes:
        p_first: Probability that the first answer is chosen, given that the reply has a verdict.
        option: The option in the reply, "1" or "2"; None where the reply has no usable verdict.
        form: ``exact`` (the reply is exactly the grammar's line), ``sloppy`` (usable, but not in
            that form) or ``off_menu`` (no usable verdict).
        reply: The text of the reply.
    """

    p_first: float
    option: Literal["1", "2"] | None
    form: Form
    reply: str


@lru_cache(maxsize=4096)
def _weights(persona: str, common_taste: float) -> tuple[float, ...]:
    weights = [common_taste * shared for shared in _COMMON]
    names = [attribute.name for attribute in ATTRIBUTES]
    for trait in traits_named(persona):
        weights[names.index(attribute_of(trait).name)] += sign(trait)
    return tuple(weights)


def utility(text: str, persona: str, settings: SimulatorSettings) -> float:
    """Return how much a persona likes an answer.

    The sum over the persona's traits of sign · style score, plus `common_taste` times a weighted
    sum of scores that is the same for everyone. Every score is in [-1, 1].
    """
    weights = _weights(persona, settings.common_taste)
    return sum(map(float.__mul__, weights, score_vector(text)))


def p_first(difference: float, settings: SimulatorSettings) -> float:
    """Return P(first chosen) = logistic(difference / noise_scale + position_bias_logit).

    Without noise the better answer is chosen for certain, and the bias decides only between
    answers of equal utility.

    Args:
        difference: Utility of the first answer less that of the second.
        settings: The judge's parameters.

    Returns:
        A probability; exact at extreme inputs (no clamp, no overflow).
    """
    if settings.noise_scale == 0.0:
        if difference != 0.0:
            return 1.0 if difference > 0.0 else 0.0
        logit = settings.position_bias_logit
    else:
        logit = difference / settings.noise_scale + settings.position_bias_logit
    if logit >= 0.0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def judge_truth(
    messages: Sequence[Mapping[str, Any]],
    settings: SimulatorSettings,
    *,
    request_seed: int | None = None,
    choice: int = 0,
) -> JudgeTruth:
    """Return the judge's reply to a request together with the truth behind it.

    The server sends exactly this reply, so a pipeline's measurement can be compared with what
    this function says. The verdict, whether it is off the menu, whether it is sloppy, and which
    wording is used come from four independent parts of one hash of the seed and the request; the
    other order of the same pair is another request and so has independent noise.

    Args:
        messages: The request's messages, with <persona>, <response_1> and <response_2>.
        settings: The judge's parameters.
        request_seed: The request's own ``seed``, if it has one.
        choice: The number of the choice where the request asks for several.
    """
    first, second = tagged(messages, "response_1"), tagged(messages, "response_2")
    if first is None or second is None:
        return JudgeTruth(0.5, None, "off_menu", _NOTHING_TO_JUDGE)
    persona = tagged(messages, "persona") or ""
    difference = utility(first, persona, settings) - utility(second, persona, settings)
    probability = p_first(difference, settings)
    key = identity(
        JUDGE_MODEL, messages, seed=settings.seed, request_seed=request_seed, choice=choice
    )
    wording = int.from_bytes(key[24:32], "big")
    if uniform_from(key[8:16]) < settings.off_menu_rate:
        reply = OFF_MENU_REPLIES[wording % len(OFF_MENU_REPLIES)]
        return JudgeTruth(probability, None, "off_menu", reply)
    option: Literal["1", "2"] = "1" if uniform_from(key[:8]) < probability else "2"
    if uniform_from(key[16:24]) < settings.sloppy_rate:
        reply = SLOPPY_FORMS[wording % len(SLOPPY_FORMS)].format(option=option)
        return JudgeTruth(probability, option, "sloppy", reply)
    return JudgeTruth(probability, option, "exact", f"VERDICT: {option}")
