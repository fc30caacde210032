"""The simulated responder: what is asked for is visible, the rest stays near neutral."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prompts.traits import ATTRIBUTES, TRAITS, attribute_of, opposite, sign
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import score_vector
from tasks._llm.simulator.topics import topics_of

NAMES = [attribute.name for attribute in ATTRIBUTES]
Ask = Callable[..., list[Any]]


@pytest.fixture(scope="module", params=["fresh", "revision"])
def scores_by_trait(
    request: pytest.FixtureRequest, ask_answer: Ask, some_prompts: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Scores (prompts × seeds, attributes) of answers with one trait each."""
    result = {}
    for trait in TRAITS:
        rows = []
        for seed in range(5):
            settings = SimulatorSettings(seed=seed)
            for prompt in some_prompts:
                is_fresh = request.param == "fresh"
                draft = None if is_fresh else respond(ask_answer(prompt), settings)
                answer = respond(ask_answer(prompt, trait, draft=draft), settings)
                rows.append(score_vector(answer))
        result[trait] = np.array(rows)
    return result


def test_the_trait_asked_for_is_visible(scores_by_trait: dict[str, np.ndarray]) -> None:
    for trait, scores in scores_by_trait.items():
        own = scores[:, NAMES.index(attribute_of(trait).name)] * sign(trait)
        assert (own > 0).mean() >= 0.95, trait


def test_opposite_traits_lie_equally_far_apart(scores_by_trait: dict[str, np.ndarray]) -> None:
    for place, attribute in enumerate(ATTRIBUTES):
        gap = (
            scores_by_trait[attribute.first][:, place].mean()
            - scores_by_trait[attribute.second][:, place].mean()
        )
        assert 1.5 <= gap <= 2.0, attribute.name


def test_other_attributes_stay_near_neutral(scores_by_trait: dict[str, np.ndarray]) -> None:
    for trait, scores in scores_by_trait.items():
        others = np.delete(scores, NAMES.index(attribute_of(trait).name), axis=1)
        assert np.abs(others).mean(axis=0).max() < 0.25, trait


@pytest.mark.parametrize("trait", TRAITS)
def test_two_traits_are_both_visible(
    trait: str, ask_answer: Ask, some_prompts: tuple[str, ...]
) -> None:
    own = NAMES.index(attribute_of(trait).name)
    shown = []
    for other in TRAITS:
        if other in (trait, opposite(trait)):
            continue
        for prompt in some_prompts[:3]:
            answer = respond(ask_answer(prompt, trait, other), SimulatorSettings())
            shown.append(score_vector(answer)[own] * sign(trait) > 0)
    assert np.mean(shown) >= 0.95


def test_base_answers_are_neutral_on_average_and_differ(
    ask_answer: Ask, some_prompts: tuple[str, ...]
) -> None:
    scores = np.array(
        [
            score_vector(respond(ask_answer(prompt), SimulatorSettings(seed=seed)))
            for prompt in some_prompts
            for seed in range(20)
        ]
    )
    assert np.abs(scores.mean(axis=0)).max() < 0.1
    assert scores.std(axis=0).min() > 0.05


def test_answers_are_about_their_own_prompt(ask_answer: Ask, some_prompts: tuple[str, ...]) -> None:
    for prompt in some_prompts[:8]:
        words = {word.lower() for topic in topics_of(prompt) for word in topic.split()}
        answer = respond(ask_answer(prompt), SimulatorSettings()).lower()
        assert sum(word in answer for word in words) >= min(2, len(words))
        others = [p for p in some_prompts if p != prompt]
        assert all(respond(ask_answer(p), SimulatorSettings()).lower() != answer for p in others)


def test_the_prompt_lends_the_answer_no_style(ask_answer: Ask) -> None:
    loud = "Please, haha, perhaps write an amazing, wonderful joke about penguins, thanks!!!"
    assert not {"please", "haha", "amazing", "joke", "penguins"} & {
        word for topic in topics_of(loud) for word in topic.split()
    }


def test_a_revision_keeps_the_words_of_the_draft(ask_answer: Ask) -> None:
    prompt = "Why do leaves change color in autumn?"
    draft = (
        "Leaves hold a green pigment named chlorophyll. In autumn the trees break it down, and "
        "yellow carotenoids stay behind. Some leaves also make red anthocyanins."
    )
    revised = respond(
        ask_answer(prompt, "verbose", "enthusiastic", draft=draft), SimulatorSettings()
    )
    assert all(word in revised for word in ("chlorophyll", "carotenoids", "anthocyanins"))
    assert score_vector(revised)[NAMES.index("enthusiasm")] > 0


def test_a_revision_without_a_length_keeps_the_length_of_the_draft(
    ask_answer: Ask, some_prompts: tuple[str, ...]
) -> None:
    ratios = []
    for prompt in some_prompts:
        draft = respond(ask_answer(prompt), SimulatorSettings())
        revised = respond(ask_answer(prompt, "polite", draft=draft), SimulatorSettings())
        ratios.append(len(revised.split()) / len(draft.split()))
    assert 0.8 <= np.mean(ratios) <= 1.25


def test_everything_that_is_read_changes_the_answer(ask_answer: Ask) -> None:
    messages = ask_answer("Why is the sky blue over the sea?", "polite")
    answers = [
        respond(messages, SimulatorSettings()),
        respond(messages, SimulatorSettings(seed=1)),
        respond(messages, SimulatorSettings(), request_seed=1),
        respond(messages, SimulatorSettings(), choice=1),
        respond([*messages, {"role": "user", "content": "Again."}], SimulatorSettings()),
    ]
    assert len(set(answers)) == len(answers)
    assert respond(messages, SimulatorSettings(noise_scale=9.0)) == answers[0]


@pytest.mark.parametrize(
    "prompt", ["", "?!", "你好，世界", "{a} {b} {{ x }} %s", "Ünïcödé wörds für Zoë", "x" * 5000]
)
def test_any_prompt_gets_an_answer(prompt: str) -> None:
    messages = [{"role": "user", "content": prompt}]
    answer = respond(messages, SimulatorSettings())
    assert len(answer.split()) > 20
    assert "{a}" not in answer or "{a}" in prompt
