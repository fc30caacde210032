"""The simulated judge: a known choice model, and replies in known forms."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.traits import TRAITS, gloss, opposite, style_text
from prompts.verdict import Unparsed, Verdict, parse_verdict
from tasks._llm.simulator.judge import (
    OFF_MENU_REPLIES,
    SLOPPY_FORMS,
    JudgeTruth,
    judge_truth,
    p_first,
    utility,
)
from tasks._llm.simulator.messages import traits_named
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings

Ask = Callable[..., list[Any]]
NOISELESS = SimulatorSettings(
    noise_scale=0.0, position_bias_logit=0.0, sloppy_rate=0.0, off_menu_rate=0.0, common_taste=0.0
)
N_CALLS = 6_000


def is_within_binomial_bounds(n_hits: int, n: int, rate: float) -> bool:
    # Four standard deviations: a run in 16,000 would fail, and the seeds are fixed.
    return abs(n_hits - n * rate) <= 4.0 * math.sqrt(n * rate * (1.0 - rate)) + 1e-9


def truths(
    ask_verdict: Ask, settings: SimulatorSettings, first: str, second: str
) -> list[JudgeTruth]:
    return [
        judge_truth(ask_verdict("likes polite answers", f"Question {n}", first, second), settings)
        for n in range(N_CALLS)
    ]


@pytest.mark.parametrize("trait", TRAITS)
def test_judge_prefers_what_the_persona_wants(
    trait: str, ask_answer: Ask, ask_verdict: Ask, some_prompts: tuple[str, ...]
) -> None:
    persona = f"This person likes answers that are {trait}.\n{style_text([trait])}"
    n_right = 0
    for prompt in some_prompts:
        wanted = respond(ask_answer(prompt, trait), NOISELESS)
        other = respond(ask_answer(prompt, opposite(trait)), NOISELESS)
        n_right += judge_truth(ask_verdict(persona, prompt, wanted, other), NOISELESS).option == "1"
    assert n_right == len(some_prompts)


def test_swapping_answers_without_bias_and_noise_negates_the_choice(
    ask_answer: Ask, ask_verdict: Ask, some_prompts: tuple[str, ...]
) -> None:
    for prompt, persona in product(some_prompts[:6], attribute_personas()[::7]):
        first = respond(ask_answer(prompt, "polite"), NOISELESS)
        second = respond(ask_answer(prompt, "informal"), NOISELESS)
        one = judge_truth(ask_verdict(persona.profile, prompt, first, second), NOISELESS)
        other = judge_truth(ask_verdict(persona.profile, prompt, second, first), NOISELESS)
        assert {one.option, other.option} == {"1", "2"}
        assert one.p_first == 1.0 - other.p_first


def test_equal_answers_are_chosen_at_the_rate_of_the_position_bias(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(position_bias_logit=0.35, off_menu_rate=0.0)
    results = truths(ask_verdict, settings, "The same answer.", "The same answer.")
    rate = 1.0 / (1.0 + math.exp(-0.35))
    assert len({result.p_first for result in results}) == 1
    assert results[0].p_first == pytest.approx(rate)
    n_first = sum(result.option == "1" for result in results)
    assert is_within_binomial_bounds(n_first, N_CALLS, rate)


def test_choices_follow_the_probability_that_is_told(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(noise_scale=1.0, off_menu_rate=0.0)
    results = truths(ask_verdict, settings, "Thank you.", "Thank you, please, kindly, sorry.")
    assert 0.2 < results[0].p_first < 0.8
    n_first = sum(result.option == "1" for result in results)
    assert is_within_binomial_bounds(n_first, N_CALLS, results[0].p_first)


def test_reply_forms_come_at_the_rates_of_the_settings(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(sloppy_rate=0.1, off_menu_rate=0.05)
    results = truths(ask_verdict, settings, "One answer.", "Another answer, please.")
    usable = [result for result in results if result.option is not None]
    assert is_within_binomial_bounds(N_CALLS - len(usable), N_CALLS, 0.05)
    n_sloppy = sum(result.form == "sloppy" for result in usable)
    assert is_within_binomial_bounds(n_sloppy, len(usable), 0.1)


def test_forms_do_not_depend_on_the_choice(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(sloppy_rate=0.3, off_menu_rate=0.0)
    results = truths(ask_verdict, settings, "One answer.", "One answer.")
    for option in ("1", "2"):
        chosen = [result for result in results if result.option == option]
        n_sloppy = sum(result.form == "sloppy" for result in chosen)
        assert is_within_binomial_bounds(n_sloppy, len(chosen), 0.3)


def test_the_two_orders_of_a_pair_have_independent_noise(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(position_bias_logit=0.0, off_menu_rate=0.0)
    n_agree = 0
    for n in range(N_CALLS):
        prompt = f"Question {n}"
        one = judge_truth(ask_verdict("x", prompt, "The answer a.", "The answer b."), settings)
        other = judge_truth(ask_verdict("x", prompt, "The answer b.", "The answer a."), settings)
        assert one.p_first == 0.5
        n_agree += one.option != other.option
    assert is_within_binomial_bounds(n_agree, N_CALLS, 0.5)


def test_a_sloppier_judge_makes_the_same_choices(ask_verdict: Ask) -> None:
    tidy = SimulatorSettings(sloppy_rate=0.0, off_menu_rate=0.0)
    sloppy = SimulatorSettings(sloppy_rate=1.0, off_menu_rate=0.0)
    for n in range(200):
        messages = ask_verdict("likes polite answers", f"Question {n}", "Thanks.", "No.")
        one, other = judge_truth(messages, tidy), judge_truth(messages, sloppy)
        assert (one.form, other.form) == ("exact", "sloppy")
        assert one.option == other.option


@pytest.mark.parametrize("trait", TRAITS)
def test_only_whole_words_of_the_persona_count(trait: str) -> None:
    assert traits_named(f"likes {trait.upper()}, answers") == (trait,)
    assert traits_named(f"likes x{trait}x answers, {gloss(trait)}") == ()


def test_opposite_traits_in_one_persona_cancel() -> None:
    settings = SimulatorSettings(common_taste=0.0)
    assert utility("Thank you, please!", "polite and rude", settings) == 0.0


def test_everyone_shares_a_little_taste(ask_verdict: Ask) -> None:
    settings = SimulatorSettings(common_taste=1.0)
    assert utility("Thank you, please.", "", settings) > utility("You idiots, fine.", "", settings)


@pytest.mark.parametrize("difference", [0.0, 1e-300, 1.0, 1e3, 1e308, -1e308])
def test_probability_is_exact_at_extremes(difference: float) -> None:
    settings = SimulatorSettings(noise_scale=0.1, position_bias_logit=0.0)
    total = p_first(difference, settings) + p_first(-difference, settings)
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("form", SLOPPY_FORMS)
@pytest.mark.parametrize("option", ["1", "2"])
def test_sloppy_replies_are_usable_but_not_exact(form: str, option: str) -> None:
    menu = load_template("judge_attributes").menu
    assert menu is not None
    assert parse_verdict(form.format(option=option), menu) == Verdict(option, is_exact=False)


@pytest.mark.parametrize("reply", OFF_MENU_REPLIES)
def test_off_menu_replies_have_no_usable_verdict(reply: str) -> None:
    menu = load_template("judge_attributes").menu
    assert menu is not None
    assert isinstance(parse_verdict(reply, menu), Unparsed)


def test_the_exact_reply_is_the_grammars_own_line(ask_verdict: Ask) -> None:
    menu = load_template("judge_attributes").menu
    assert menu is not None
    truth = judge_truth(ask_verdict("polite", "Hi", "Thanks.", "No."), NOISELESS)
    assert truth.form == "exact"
    assert parse_verdict(truth.reply, menu) == Verdict("1", is_exact=True)


def test_a_request_without_two_answers_gets_no_verdict() -> None:
    truth = judge_truth([{"role": "user", "content": "Which is better?"}], SimulatorSettings())
    assert (truth.option, truth.form) == (None, "off_menu")


def test_default_noise_leaves_choices_informative_but_noisy(
    ask_answer: Ask, some_prompts: tuple[str, ...]
) -> None:
    settings = SimulatorSettings()
    personas = attribute_personas()
    chances = []
    for number, prompt in enumerate(some_prompts * 3):
        traits = personas[number * 31 % len(personas)].traits
        first = respond(ask_answer(prompt, *traits), settings)
        second = respond(ask_answer(prompt, *map(opposite, traits)), settings)
        for persona in personas:
            gap = utility(first, persona.profile, settings) - utility(
                second, persona.profile, settings
            )
            chances.append(1.0 / (1.0 + math.exp(-abs(gap) / settings.noise_scale)))
    assert 0.80 <= sum(chances) / len(chances) <= 0.90
