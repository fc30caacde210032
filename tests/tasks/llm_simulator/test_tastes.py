"""Hidden tastes of survey profiles, and what judge, rater and critic make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.profiles import prism_profile
from prompts.traits import ATTRIBUTES, attribute_of, sign
from prompts.verdict import Verdict, parse_verdict
from tasks._llm.simulator.judge import (
    JUDGE_MODELS,
    SECOND_JUDGE_MODEL,
    certainty,
    judge_truth,
    utility,
)
from tasks._llm.simulator.messages import traits_named
from tasks._llm.simulator.rating import asks_for_rating, rating_reply, visible_controversy
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import style_scores
from tasks._llm.simulator.tastes import LEANINGS, N_LEANINGS, is_survey, leanings_told, taste

Ask = Callable[..., list[Any]]
QUIET = SimulatorSettings(
    noise_scale=0.0, position_bias_logit=0.0, sloppy_rate=0.0, off_menu_rate=0.0, common_taste=0.0
)
DEPTH, WARMTH, PLAY, ASSURANCE = range(N_LEANINGS)
EVEN = {
    name: 50 for name in ("values", "creativity", "fluency", "factuality", "diversity", "safety")
}


def profile(**survey: Any) -> str:
    found = prism_profile({"age": "25-34 years old", **survey})
    assert found is not None
    return found


@pytest.fixture(scope="module")
def profiles() -> list[str]:
    return [profile(age=f"{n} years old", education=f"school {n % 7}") for n in range(400)]


def test_attribute_users_weigh_exactly_their_two_traits() -> None:
    names = [attribute.name for attribute in ATTRIBUTES]
    for persona in attribute_personas():
        wanted = [0.0] * len(names)
        for trait in persona.traits:
            wanted[names.index(attribute_of(trait).name)] = float(sign(trait))
        assert taste(persona.profile) == tuple(wanted)
        assert not is_survey(persona.profile)


@pytest.mark.parametrize("text", ["", "A person.", "x", "likes\n-- dashes"])
def test_a_profile_without_traits_and_lines_has_no_tastes(text: str) -> None:
    assert taste(text) == (0.0,) * len(ATTRIBUTES)


def test_tastes_of_survey_profiles_have_the_rank_that_is_told(profiles: list[str]) -> None:
    weights = np.array([taste(one) for one in profiles])
    values = np.linalg.svd(weights, compute_uv=False)
    assert np.linalg.matrix_rank(np.array(LEANINGS)) == N_LEANINGS
    assert values[N_LEANINGS - 1] > 1.0
    assert values[N_LEANINGS] < 1e-9


def test_every_survey_profile_weighs_as_much_as_two_traits(profiles: list[str]) -> None:
    lengths = np.linalg.norm([taste(one) for one in profiles], axis=1)
    np.testing.assert_allclose(lengths, np.sqrt(2.0))


def test_people_disagree_on_the_whole(profiles: list[str]) -> None:
    weights = np.array([taste(one) for one in profiles])
    assert np.linalg.norm(weights.mean(axis=0)) < 0.2


def test_the_same_profile_always_has_the_same_taste_and_another_word_another() -> None:
    assert taste(profile(gender="Male")) == taste(profile(gender="Male"))
    assert taste(profile(gender="Male")) != taste(profile(gender="Female"))


@pytest.mark.parametrize(
    ("slider", "leaning"),
    [("creativity", PLAY), ("factuality", DEPTH), ("personalisation", WARMTH)],
)
def test_what_is_stated_to_matter_moves_its_leaning(slider: str, leaning: int) -> None:
    low = leanings_told(profile(stated_prefs={**EVEN, slider: 0}))
    high = leanings_told(profile(stated_prefs={**EVEN, slider: 100}))
    assert high[leaning] > low[leaning] + 0.5


def test_equal_importance_of_everything_tells_nothing() -> None:
    same = {**EVEN, "personalisation": 90, "helpfulness": 90}
    same = dict.fromkeys(same, 90)
    assert leanings_told(profile(stated_prefs=same)) == (0.0,) * N_LEANINGS


def test_who_somebody_is_tells_nothing() -> None:
    told = leanings_told(
        profile(gender="Female", religion={"simplified": "Muslim"}, education="University")
    )
    assert told == (0.0,) * N_LEANINGS


def test_words_of_values_count_and_preference_labels_are_no_such_words() -> None:
    assert leanings_told(profile(self_description="I value honesty."))[ASSURANCE] > 0.5
    assert leanings_told(profile(stated_prefs=EVEN)) == (0.0,) * N_LEANINGS


def test_familiarity_counts() -> None:
    assert leanings_told(profile(lm_familiarity="Not familiar at all"))[WARMTH] > 0.0
    assert leanings_told(profile(lm_familiarity="Very familiar"))[WARMTH] < 0.0


def test_a_revision_after_the_critique_pleases_the_persona_more(
    profiles: list[str], some_prompts: tuple[str, ...], ask_answer: Ask
) -> None:
    gains = []
    for number, person in enumerate(profiles[:120]):
        prompt = some_prompts[number % len(some_prompts)]
        draft = respond(ask_answer(prompt), QUIET)
        slots = {"persona": person, "prompt": prompt, "draft": draft}
        critique = respond(list(load_template("critique_prism").render(**slots)), QUIET)
        rewrite = load_template("rewrite_prism").render(**slots, critique=critique)
        revised = respond(list(rewrite), QUIET)
        gains.append(utility(revised, person, QUIET) - utility(draft, person, QUIET))
    assert np.mean(np.array(gains) > 0.0) > 0.9


def test_a_critique_names_only_what_the_draft_lacks(profiles: list[str]) -> None:
    template = load_template("critique_prism")
    draft = "Thank you so much, please, kindly! Certainly, without doubt, this is surely so."
    scores = style_scores(draft)
    for person in profiles[:50]:
        slots = {"persona": person, "prompt": "Why?", "draft": draft}
        critique = respond(list(template.render(**slots)), QUIET)
        assert len(traits_named(critique)) in (1, 2)
        for trait in traits_named(critique):
            assert sign(trait) * scores[attribute_of(trait).name] < 0.9


def asked(prompt: str) -> list[Any]:
    return list(load_template("rate_controversy").render(prompt=prompt))


@pytest.mark.parametrize(
    ("prompt", "low", "high"),
    [
        ("What is the capital of Peru?", 1, 1),
        ("Is a cat better than a dog?", 2, 3),
        ("Should abortion be legal, and what does the church say?", 5, 5),
    ],
)
def test_ratings_follow_what_is_visible(prompt: str, low: int, high: int) -> None:
    menu = load_template("rate_controversy").menu
    assert menu is not None
    assert asks_for_rating(asked(prompt))
    parsed = parse_verdict(rating_reply("simulated-judge", asked(prompt), QUIET), menu)
    assert isinstance(parsed, Verdict)
    assert low <= int(parsed.option) <= high
    assert 1.0 <= visible_controversy(prompt) <= 5.0


def test_a_request_for_a_verdict_is_no_request_for_a_rating(ask_verdict: Ask) -> None:
    assert not asks_for_rating(ask_verdict("polite", "RATING: 3?", "Yes.", "No."))


@pytest.mark.parametrize(("p", "said"), [(1.0, 100), (0.5, 0), (0.2, 0), (0.9, 80)])
def test_certainty_is_the_distance_from_a_coin(p: float, said: int) -> None:
    assert certainty(p) == said


def test_a_judge_that_is_asked_for_certainty_tells_it_and_chooses_the_same(
    ask_verdict: Ask,
) -> None:
    messages = ask_verdict("polite", "Why?", "Thank you, please.", "No.")
    asked_too = [*messages]
    asked_too[0] = {**messages[0], "content": messages[0]["content"] + "\nCERTAINTY: 0 to 100"}
    told = judge_truth(asked_too, QUIET)
    assert told.reply == "CERTAINTY: 100\nVERDICT: 1"
    assert judge_truth(messages, QUIET).reply == "VERDICT: 1"


def test_the_second_judge_has_the_tastes_of_the_first_and_the_bias_that_is_told(
    ask_verdict: Ask,
) -> None:
    assert SECOND_JUDGE_MODEL in JUDGE_MODELS
    settings = SimulatorSettings(position_bias_logit=0.4)
    same = ask_verdict("polite", "Why?", "Equal.", "Equal.")
    second = judge_truth(same, settings, model=SECOND_JUDGE_MODEL)
    assert second.p_first == pytest.approx(1 / (1 + np.exp(0.2)))
    messages = ask_verdict("polite", "Why?", "Thank you, please.", "No.")
    first = judge_truth(messages, SimulatorSettings(position_bias_logit=0.0))
    other = judge_truth(
        messages, SimulatorSettings(position_bias_logit=0.0), model=SECOND_JUDGE_MODEL
    )
    assert 0.5 < other.p_first < first.p_first
