"""A generated population in PRISM's schema, for runs larger than the copy of PRISM at hand.

Participants, openings and first responses made up from banks of words (`population_words`), every
row marked as generated. It imitates the layout and the rough spread of answers; it copies nothing
of PRISM, and its people are nobody. What is measured on it is measured on made-up data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks._llm.simulator.draws import Draws
from tasks._stages import population_words as words
from tasks._stages.prism_files import CONVERSATION_TYPES, FirstResponse, Opening, PrismData

RESPONSES_PER_OPENING = 2
# Mark of generated rows; real ids of PRISM begin with "user", "c" and "ut".
PREFIX = "gen-"


def is_generated(row_id: str) -> bool:
    """Whether an id is that of a generated participant, opening or response."""
    return row_id.startswith(PREFIX)


def filled(data: PrismData, seed: int, n_users: int, n_openings: int) -> PrismData:
    """PRISM's rows, and generated ones after them up to the numbers asked for.

    A generated row depends on the seed and its own number alone, so asking for more adds rows
    and changes none.

    Args:
        data: What there is; may be empty.
        seed: Seed of the run.
        n_users: Participants wanted; no row is generated where there are as many.
        n_openings: Openings wanted, likewise. Each has two responses.
    """
    people = max(0, n_users - len(data.survey))
    survey = [*data.survey, *(survey_row(seed, number) for number in range(people))]
    authors = [row["user_id"] for row in survey]
    count = max(0, n_openings - len(data.openings)) if authors else 0
    openings = [opening(seed, number, authors) for number in range(count)]
    responses = [
        response(seed, one, place) for one in openings for place in range(RESPONSES_PER_OPENING)
    ]
    return PrismData(survey, [*data.openings, *openings], [*data.responses, *responses])


def survey_row(seed: int, number: int) -> dict[str, Any]:
    """One made-up participant, by the names of ``survey.jsonl``; questions left out are absent."""
    draw = _draws(seed, "person", number)
    has_used = draw.uniform() < 0.8
    cases = {name: draw.uniform() < 0.3 for name in words.USE_CASES}
    birth, elsewhere = draw.sample(words.COUNTRIES, 2)
    return {
        "user_id": f"{PREFIX}user{number:05d}",
        "lm_familiarity": draw.pick(words.FAMILIARITY),
        "lm_direct_use": "Yes" if has_used else "No",
        "lm_indirect_use": draw.pick(("Yes", "No", "Unsure")),
        "lm_frequency_use": draw.pick(words.FREQUENCIES) if has_used else None,
        "lm_usecases": {**cases, "other": False, "other_text": None} if has_used else None,
        "stated_prefs": _stated(draw),
        "self_description": " ".join(draw.sample(words.BELIEFS, draw.between(2, 4))),
        "system_string": " ".join(draw.sample(words.INSTRUCTIONS, 2)),
        "age": draw.pick(words.AGES),
        "gender": draw.pick(words.GENDERS),
        "employment_status": draw.pick(words.WORK),
        "education": draw.pick(words.EDUCATION),
        "marital_status": draw.pick(words.MARITAL),
        "english_proficiency": draw.pick(words.ENGLISH),
        "location": {
            "birth_country": birth,
            "reside_country": birth if draw.uniform() < 0.9 else elsewhere,
        },
        "x_generated": True,
    }


def _stated(draw: Draws) -> dict[str, Any]:
    """Slider positions, 0 to 100, around a level of the person's own."""
    level = draw.between(50, 85)
    sliders: dict[str, Any] = {
        name: min(100, max(0, level + draw.between(-40, 40))) for name in words.SLIDERS
    }
    return {**sliders, "other": None, "other_text": None}


def opening(seed: int, number: int, authors: Sequence[str]) -> Opening:
    """One made-up opening: a situation, a question about a subject, and a wish."""
    draw = _draws(seed, "opening", number)
    kind = CONVERSATION_TYPES[number % len(CONVERSATION_TYPES)]
    question = draw.pick(words.QUESTIONS[kind]).format(subject=draw.pick(words.SUBJECTS[kind]))
    return Opening(
        conversation_id=f"{PREFIX}c{number:05d}",
        user_id=draw.pick(authors),
        conversation_type=kind,
        prompt=f"{draw.pick(words.SITUATIONS)} {question} {draw.pick(words.WISHES)}",
    )


def response(seed: int, one: Opening, place: int) -> FirstResponse:
    """One made-up response to an opening in two mixed tones, with a score of 1 to 100."""
    draw = _draws(seed, f"response {one.conversation_id}", place)
    tones = draw.sample(sorted(words.SENTENCES), 2)
    bank = [sentence for tone in tones for sentence in words.SENTENCES[tone]]
    question = one.prompt.partition("?")[0].rpartition(". ")[2]
    first = draw.pick(words.FIRST_SENTENCES).format(question=question)
    return FirstResponse(
        utterance_id=f"{PREFIX}ut{one.conversation_id.removeprefix(PREFIX)}-{place}",
        conversation_id=one.conversation_id,
        text=" ".join([first, *draw.sample(bank, draw.pick((2, 4, 6, 9)))]),
        model=None,
        score=float(draw.between(1, 100)),
        is_chosen=None,
    )


def _draws(seed: int, purpose: str, number: int) -> Draws:
    return Draws(f"{seed}/{number}".encode(), f"population {purpose}")
