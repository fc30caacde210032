"""The simulated rater: how far people would disagree about answers to a prompt, 1 to 5.

It counts what is visible in the prompt: words of divisive subjects, and of asking for a judgment.
It understands neither, and knows nothing of what the prompt's author meant.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks._llm.simulator.draws import uniform_from
from tasks._llm.simulator.messages import content_text, identity, tagged
from tasks._llm.simulator.settings import SimulatorSettings

_ASKED_FOR = "RATING:"
LOWEST, HIGHEST = 1, 5

# Subjects that divide people, by stems; each counts once however often it is named.
_SUBJECTS = tuple(
    re.compile(rf"\b(?:{stems})", re.IGNORECASE)
    for stems in (
        "abortion|pro-?life|pro-?choice|contracepti",
        "god\\b|religio|christian|muslim|islam|jew|bible|atheis|church",
        "politic|election|vote|voting|president|republican|democrat|conservativ|liberal|socialis",
        "immigra|refugee|border|asylum",
        "gun\\b|guns\\b|firearm|weapon|terroris|war\\b|wars\\b|genocide",
        "gay\\b|lesbian|lgbt|transgender|trans\\b|gender|sexual|marriage|feminis|abuse",
        "racis|race\\b|white people|black people|reparation|slaver|coloni",
        "palestin|israel|gaza|ukrain|russia|putin|trump|brexit|biden",
        "vaccin|covid|climate|vegan|meat\\b|animal rights|euthanasia|suicide|drug|cannabis",
        "death penalty|prison|police|punish|tax|welfare|capitalis|communis|billionaire",
    )
)
_JUDGMENT = re.compile(
    r"\b(?:should|ought|right or wrong|wrong|moral\w*|ethic\w*|fair|justif\w+|opinion|"
    r"do you (?:think|believe|agree|support)|your (?:view|thoughts?|stance)|believe|better)\b",
    re.IGNORECASE,
)
_OFF_MENU = ("", "It depends on the reader.", "RATING: high", "RATING: 2-4")


def asks_for_rating(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request wants a rating of a prompt and no verdict."""
    return (
        tagged(messages, "response_1") is None
        and tagged(messages, "prompt") is not None
        and any(_ASKED_FOR in content_text(message) for message in messages)
    )


def visible_controversy(prompt: str) -> float:
    """Return 1 + 1.4 · subjects + (1.2 where a judgment is asked for), at most 5."""
    n_subjects = sum(pattern.search(prompt) is not None for pattern in _SUBJECTS)
    is_judged = _JUDGMENT.search(prompt) is not None
    return min(float(HIGHEST), LOWEST + 1.4 * n_subjects + 1.2 * is_judged)


def rating_reply(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    settings: SimulatorSettings,
    *,
    request_seed: int | None = None,
    choice: int = 0,
) -> str:
    """Return the reply: `visible_controversy`, rounded up or down at random, as the menu's line.

    Sloppy and off-menu replies come at the settings' rates, as for verdicts.
    """
    key = identity(model, messages, seed=settings.seed, request_seed=request_seed, choice=choice)
    if uniform_from(key[8:16]) < settings.off_menu_rate:
        return _OFF_MENU[key[24] % len(_OFF_MENU)]
    seen = visible_controversy(tagged(messages, "prompt") or "")
    rating = min(HIGHEST, int(seen + uniform_from(key[:8])))
    if uniform_from(key[16:24]) < settings.sloppy_rate:
        return f"Answers would differ in places.\n**Rating: {rating}**"
    return f"{_ASKED_FOR} {rating}"
