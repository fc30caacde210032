"""The 14 traits, and the 84 users made of them."""

import re
from itertools import combinations

import pytest

from prompts.errors import PromptError
from prompts.personas import attribute_personas
from prompts.traits import (
    ATTRIBUTES,
    TRAITS,
    attribute_of,
    gloss,
    in_attribute_order,
    opposite,
    sign,
    style_text,
)


def traits_named_in(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) & set(TRAITS)


def test_there_are_seven_attributes_in_the_order_of_the_paper() -> None:
    assert [(a.first, a.second) for a in ATTRIBUTES] == [
        ("verbose", "concise"),
        ("formal", "informal"),
        ("humorous", "serious"),
        ("engaging", "unengaging"),
        ("polite", "rude"),
        ("enthusiastic", "demure"),
        ("confident", "uncertain"),
    ]


@pytest.mark.parametrize("trait", TRAITS)
def test_opposite_is_the_other_sign_of_the_same_attribute(trait: str) -> None:
    other = opposite(trait)
    assert other != trait
    assert opposite(other) == trait
    assert attribute_of(other) == attribute_of(trait)
    assert sign(other) == -sign(trait)


@pytest.mark.parametrize("trait", TRAITS)
def test_gloss_names_no_trait(trait: str) -> None:
    assert traits_named_in(gloss(trait)) == set()


def test_glosses_are_all_different() -> None:
    assert len({gloss(trait) for trait in TRAITS}) == 14


def test_there_are_84_users_with_distinct_ids_and_profiles() -> None:
    personas = attribute_personas()
    assert len(personas) == 84
    assert len({p.persona_id for p in personas}) == 84
    assert len({p.profile for p in personas}) == 84


def test_users_are_exactly_the_pairs_of_traits_that_do_not_contradict() -> None:
    expected = {frozenset(pair) for pair in combinations(TRAITS, 2) if opposite(pair[0]) != pair[1]}
    assert {frozenset(p.traits) for p in attribute_personas()} == expected


def test_persona_id_spells_the_traits_in_attribute_order() -> None:
    for persona in attribute_personas():
        assert persona.traits == in_attribute_order(persona.traits)
        assert persona.persona_id == "+".join(persona.traits)
    assert "concise+polite" in {p.persona_id for p in attribute_personas()}


def test_profile_names_both_traits_with_their_glosses_and_no_other() -> None:
    for persona in attribute_personas():
        assert traits_named_in(persona.profile) == set(persona.traits)
        assert all(gloss(trait) in persona.profile for trait in persona.traits)


def test_style_text_does_not_depend_on_the_order_of_the_traits() -> None:
    assert style_text(("polite", "concise")) == style_text(("concise", "polite"))
    assert traits_named_in(style_text(("polite", "concise"))) == {"concise", "polite"}


@pytest.mark.parametrize(
    ("traits", "found"),
    [((), "none given"), (("brief",), "'brief'"), (("rude", "polite"), "'politeness'")],
)
def test_wrong_traits_are_refused_in_one_line(traits: tuple[str, ...], found: str) -> None:
    with pytest.raises(PromptError, match=found) as caught:
        style_text(traits)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
