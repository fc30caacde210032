"""A profile says what the participant said, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.catalog import load_template
from prompts.profiles import (
    DEMOGRAPHICS,
    PREFERENCES,
    USE_CASES,
    prism_profile,
    prism_system_text,
)

FULL: dict[str, Any] = {
    "user_id": "u1",
    "lm_familiarity": "Very familiar",
    "lm_direct_use": "Yes",
    "lm_indirect_use": "Unsure",
    "lm_frequency_use": "Every week",
    "lm_usecases": {"research": True, "games": False, "other": True, "other_text": "knitting"},
    "stated_prefs": {
        "values": 0,
        "creativity": 71.0,
        "safety": None,
        "other": 93,
        "other_text": "short words",
    },
    "order_stated_prefs": {"values": 555, "creativity": 556},
    "order_lm_usecases": {"research": 557},
    "self_description": "I look after bees.",
    "system_string": "Never hurry me.",
    "age": "45-54 years old",
    "gender": "Female",
    "employment_status": "Retired",
    "education": "Vocational",
    "marital_status": "Prefer not to say",
    "english_proficiency": "Fluent",
    "religion": {"self_described": "Quaker", "categorised": "Christian", "simplified": "Christian"},
    "ethnicity": {"self_described": None, "categorised": "Mixed", "simplified": "Mixed"},
    "location": {"birth_country": "Chile", "reside_country": None, "special_region": "Asia"},
    "x_profile_text": "A text of another project.",
}


def test_every_field_that_was_answered_is_in_the_profile() -> None:
    profile = prism_profile(FULL)
    assert profile is not None
    for told in (
        "Very familiar", "Unsure", "Every week", "knitting", "short words: 93",
        "I look after bees.", "45-54 years old", "Female", "Retired", "Vocational", "Fluent",
        USE_CASES["research"],
        "Quaker", "Mixed", "Chile", f"{PREFERENCES['creativity']}: 71",
    ):  # fmt: skip
        assert told in profile, told


def test_a_slider_at_zero_is_an_answer_and_a_null_is_none() -> None:
    profile = prism_profile(FULL)
    assert profile is not None
    assert f"{PREFERENCES['values']}: 0\n" in profile
    assert PREFERENCES["safety"] not in profile


def test_what_was_not_told_or_is_no_answer_is_left_out() -> None:
    profile = prism_profile(FULL)
    assert profile is not None
    for absent in ("Prefer not", "marital", "None", "lives in", USE_CASES["games"], "Christian"):
        assert absent not in profile, absent


def test_display_orders_system_string_and_foreign_texts_are_not_read() -> None:
    profile = prism_profile(FULL)
    assert profile is not None
    assert not any(one in profile for one in ("555", "556", "557", "hurry", "another project"))
    without = {name: value for name, value in FULL.items() if not name.startswith("order_")}
    assert prism_profile(without) == profile


def test_the_system_string_is_kept_apart() -> None:
    assert prism_system_text(FULL) == "Never hurry me."
    assert prism_system_text({"system_string": None}) is None
    assert prism_system_text({"system_string": "EMPTY STRING"}) is None


def test_a_declined_answer_is_not_replaced_by_a_coarser_one() -> None:
    religion = {"self_described": "Prefer not to say", "categorised": "Other"}
    assert prism_profile({"religion": religion}) is None


def test_a_row_that_tells_nothing_has_no_profile() -> None:
    assert prism_profile({"user_id": "u2", "age": None, "lm_usecases": None}) is None
    assert prism_profile({"self_description": "  ", "age": "Prefer not to say"}) is None


@pytest.mark.parametrize("name", [*DEMOGRAPHICS, "self_description", "lm_familiarity"])
def test_one_answer_alone_makes_a_profile_without_empty_headings(name: str) -> None:
    profile = prism_profile({name: "something told"})
    assert profile is not None
    assert profile.count(":\n") == 1
    assert "something told" in profile
    assert "\n\n\n" not in profile


def test_the_template_is_versioned_and_hashed_as_all_are() -> None:
    template = load_template("profile_prism")
    assert template.version == "1"
    assert len(template.sha256) == 64
    assert all(slot.is_untrusted for slot in template.slots)


VALUE = st.none() | st.text(max_size=8) | st.integers() | st.floats() | st.booleans()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: VALUE | st.dictionaries(st.sampled_from(["values", "other", "other_text"]), VALUE)
            for name in FULL
        },
    )
)
def test_any_survey_row_gives_a_profile_or_none(row: dict[str, Any]) -> None:
    profile = prism_profile(row)
    assert profile is None or profile.strip()
