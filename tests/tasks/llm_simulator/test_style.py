"""The visible style of a text: symmetric, calibrated, and blind to who wrote it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.traits import ATTRIBUTES, TRAITS, attribute_of, sign
from tasks._llm.simulator.phrases import content_bank, content_kinds, trait_bank
from tasks._llm.simulator.style import evidence, score_vector, style_scores

NAMES = [attribute.name for attribute in ATTRIBUTES]


def filled(pattern: str) -> str:
    return pattern.replace("{a}", "garden tools").replace("{b}", "spring rain")


@pytest.mark.parametrize("kind", content_kinds())
def test_neutral_sentences_show_no_trait(kind: str) -> None:
    assert {p for p in content_bank(kind) if any(evidence(filled(p)).net)} == set()


@pytest.mark.parametrize("trait", TRAITS)
def test_every_phrase_shows_its_own_trait_and_no_other(trait: str) -> None:
    bank = trait_bank(trait)
    # A question tail gets its mark when it is put on a sentence.
    tails = [f"{tail}?" if trait == "engaging" else tail for tail in bank.tails]
    swaps = [word for words in bank.swaps.values() for word in words]
    mild = (*bank.mild_leads, *bank.mild_tails)
    phrases = [*bank.leads, *tails, *bank.lines, *mild, *swaps]
    own = NAMES.index(attribute_of(trait).name)
    for phrase in phrases:
        net = list(evidence(filled(phrase)).net)
        shown = net.pop(own) * sign(trait)
        assert shown > 0 or attribute_of(trait).name == "length", phrase
        assert not any(net), phrase


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_has_at_least_fourteen_phrases(trait: str) -> None:
    bank = trait_bank(trait)
    swaps = {word for words in bank.swaps.values() for word in words}
    assert len({*bank.leads, *bank.tails, *bank.lines, *swaps}) >= 14


@given(st.text(max_size=400))
def test_scores_of_any_text_lie_between_minus_one_and_one(text: str) -> None:
    assert all(-1.0 <= score <= 1.0 for score in score_vector(text))


def test_texts_that_nobody_simulated_are_scored_too() -> None:
    warm = style_scores("Thanks so much for asking! Could you tell me which one you'd like?")
    cold = style_scores("Figure it out. That is all. I should not have to say this, idiot.")
    assert warm["politeness"] > 0 > cold["politeness"]
    assert warm["elicitation"] > 0 > cold["elicitation"]
    assert warm["formality"] < 0


def test_contractions_hedge_as_much_as_the_words_they_stand_for() -> None:
    short, long = style_scores("I\u2019m not sure."), style_scores("I am not sure.")
    assert short["confidence"] == long["confidence"] < 0
    assert short["formality"] < long["formality"] == 0


def test_trait_words_inside_other_words_are_no_evidence() -> None:
    assert evidence(
        "The thankless superintendent lovingly thickened Wowbagger's uncertainty."
    ).net == ((0.0,) * len(NAMES))


def test_more_words_score_longer() -> None:
    scores = [score_vector("word " * n)[0] for n in (0, 1, 20, 74, 150, 1000)]
    assert scores == sorted(scores)
    assert scores[3] == pytest.approx(0.0, abs=1e-9)
