"""What the simulated responder makes of wishes and choices: what it is shown, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from prompts.catalog import load_template
from prompts.examples import Choice, examples_text, parse_examples
from prompts.traits import ATTRIBUTES, TRAITS, attribute_of, opposite, sign, style_text
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.simulator.style import score_vector
from tasks._llm.simulator.wishes import asks_for_summary, traits_chosen, traits_wished

SETTINGS = SimulatorSettings()
ASKED = [f"How do I grow {thing}?" for thing in ("roses", "beans", "figs", "kale", "dill")]


def styled(prompt: str, trait: str) -> str:
    template = load_template("respond_attributes")
    return respond(template.render(prompt=prompt, style=style_text((trait,))), SETTINGS)


def choices(trait: str) -> str:
    """Somebody who always chose the answer with the trait over the one with its opposite."""
    return examples_text(
        Choice(one, styled(one, trait), styled(one, opposite(trait))) for one in ASKED
    )


def shown(answers: list[str], trait: str) -> float:
    column = [one.name for one in ATTRIBUTES].index(attribute_of(trait).name)
    return sign(trait) * float(np.mean([score_vector(one)[column] for one in answers]))


def answered(template: str, **slots: str) -> list[str]:
    prompts = [f"What is known about {thing}?" for thing in ("rust", "salt", "wool")]
    loaded = load_template(template)
    return [respond(loaded.render(prompt=one, **slots), SETTINGS) for one in prompts]


@pytest.mark.parametrize("trait", TRAITS)
def test_choices_say_what_was_chosen_and_swapped_ones_say_the_opposite(trait: str) -> None:
    text = choices(trait)
    assert trait in traits_chosen(text)
    mirrored = examples_text(
        one._replace(chosen=one.other, other=one.chosen) for one in parse_examples(text)
    )
    assert opposite(trait) in traits_chosen(mirrored)


@pytest.mark.parametrize("trait", ["concise", "polite", "uncertain", "humorous"])
def test_answers_follow_the_choices_in_context(trait: str) -> None:
    told = shown(answered("respond_in_context", examples=choices(trait)), trait)
    plain = shown(answered("respond_base"), trait)
    assert told > plain + 0.2


def test_a_summary_says_what_the_choices_show_and_an_answer_then_follows_it() -> None:
    messages = load_template("summarize_answers").render(examples=choices("enthusiastic"))
    assert asks_for_summary(messages)
    summary = respond(messages, SETTINGS)
    assert "enthusiastic" in traits_wished(summary)
    told = shown(answered("respond_wishes", wishes=summary), "enthusiastic")
    assert told > shown(answered("respond_base"), "enthusiastic") + 0.2


def test_choices_between_equal_answers_say_nothing() -> None:
    same = examples_text([Choice("q", "An answer.", "An answer.")])
    assert traits_chosen(same) == ()
    assert traits_chosen("") == ()
    summary = respond(load_template("summarize_answers").render(examples=same), SETTINGS)
    assert traits_wished(summary) == ()


def test_wishes_are_read_by_name_and_by_everyday_words_and_opposites_cancel() -> None:
    assert traits_wished("Please be brief and professional.") == ("concise", "formal")
    assert traits_wished("be concise but detailed") == ()
    assert traits_wished("You are a helpful assistant.") == ()


def test_a_style_asked_for_is_read_before_wishes() -> None:
    style = load_template("respond_attributes").render(prompt="p", style=style_text(("rude",)))
    wishes = load_template("respond_wishes").render(prompt="p", wishes="be polite")
    both = [{**style[0], "content": style[0]["content"] + wishes[0]["content"]}, style[1]]
    assert shown([respond(both, SETTINGS)], "rude") > 0.2
