"""The simulated judge: a known choice model over what is visible in two answers.

It reads the persona and the texts of both answers, nothing else. It never learns who wrote an
answer, in which style, or what the other order of the same pair gave.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from prompts.traits import ATTRIBUTES
from tasks._llm.simulator.draws import uniform_from
from tasks._llm.simulator.messages import content_text, identity, tagged
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import score_vector
from tasks._llm.simulator.tastes import taste

JUDGE_MODEL = "simulated-judge"
# A second judge of the same tastes, noisier and leaning the other way: for audits to compare.
SECOND_JUDGE_MODEL = "simulated-judge-b"
JUDGE_MODELS = (JUDGE_MODEL, SECOND_JUDGE_MODEL)
_SECOND_NOISE = 1.5
_SECOND_BIAS = -0.5

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
# A judge that is asked how certain it is says so on a line before its verdict.
_CERTAINTY = "CERTAINTY:"


class JudgeTruth(NamedTuple):
    """What the judge does with one request, and why.

    Attributes:
        p_first: Probability that the first answer is chosen, given that the reply has a verdict.
        option: The option in the reply, "1" or "2"; None where the reply has no usable verdict.
        form: ``exact`` (the reply is exactly what was asked for), ``sloppy`` (usable, but not in
            that form) or ``off_menu`` (no usable verdict).
        reply: The text of the reply.
    """

    p_first: float
    option: Literal["1", "2"] | None
    form: Form
    reply: str


@lru_cache(maxsize=4096)
def _weights(persona: str, common_taste: float) -> tuple[float, ...]:
    own = taste(persona)
    return tuple(common_taste * shared + one for shared, one in zip(_COMMON, own, strict=True))


def utility(text: str, persona: str, settings: SimulatorSettings) -> float:
    """Return how much a persona likes an answer.

    The sum of the persona's own weights (`tasks._llm.simulator.tastes`) times the style scores,
    plus `common_taste` times a weighted sum of scores that is the same for everyone. Every score
    is in [-1, 1].
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
    model: str = JUDGE_MODEL,
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
        model: One of `JUDGE_MODELS`.
        request_seed: The request's own ``seed``, if it has one.
        choice: The number of the choice where the request asks for several.
    """
    settings = of_model(model, settings)
    first, second = tagged(messages, "response_1"), tagged(messages, "response_2")
    if first is None or second is None:
        return JudgeTruth(0.5, None, "off_menu", _NOTHING_TO_JUDGE)
    persona = tagged(messages, "persona") or ""
    difference = utility(first, persona, settings) - utility(second, persona, settings)
    probability = p_first(difference, settings)
    key = identity(model, messages, seed=settings.seed, request_seed=request_seed, choice=choice)
    wording = int.from_bytes(key[24:32], "big")
    if uniform_from(key[8:16]) < settings.off_menu_rate:
        reply = OFF_MENU_REPLIES[wording % len(OFF_MENU_REPLIES)]
        return JudgeTruth(probability, None, "off_menu", reply)
    option: Literal["1", "2"] = "1" if uniform_from(key[:8]) < probability else "2"
    is_sloppy = uniform_from(key[16:24]) < settings.sloppy_rate
    form = SLOPPY_FORMS[wording % len(SLOPPY_FORMS)] if is_sloppy else "VERDICT: {option}"
    reply = form.format(option=option)
    if any(_CERTAINTY in content_text(message) for message in messages):
        chosen = probability if option == "1" else 1.0 - probability
        reply = f"{_CERTAINTY} {certainty(chosen)}\n{reply}"
    return JudgeTruth(probability, option, "sloppy" if is_sloppy else "exact", reply)


def of_model(model: str, settings: SimulatorSettings) -> SimulatorSettings:
    """Return a judge's own parameters: those of the second derive from the first's."""
    if model != SECOND_JUDGE_MODEL:
        return settings
    return replace(
        settings,
        noise_scale=_SECOND_NOISE * settings.noise_scale,
        position_bias_logit=_SECOND_BIAS * settings.position_bias_logit,
    )


def certainty(p_chosen: float) -> int:
    """Return how certain a judge says it is, 0 to 100 in steps of 5, of a choice it made.

    0 where the choice was no better than a coin's, or went against the odds.
    """
    return 5 * round(20.0 * max(0.0, 2.0 * p_chosen - 1.0))
