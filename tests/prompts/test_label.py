from __future__ import annotations

import pytest

from prompts.catalog import load_template
from prompts.label import LONGEST, parse_label


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("LABEL: formal wording", "formal wording"),
        ('**Label:** "formal wording."', "formal wording"),
        ("Thinking aloud.\nLABEL: short\nNo, rather:\nLABEL: warm tone\n", "warm tone"),
        ("LABEL: <b>bold</b> & {{ 7 * 7 }}", "<b>bold</b> & {{ 7 * 7 }}"),
        ("LABEL: one\x1b[31m two\x00", "one [31m two"),
    ],
)
def test_the_last_marked_line_is_the_label(reply: str, text: str) -> None:
    found = parse_label(reply)
    assert found.text == text
    assert found.fault is None


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (None, "empty"),
        ("  \n", "empty"),
        ("The first group is formal.", "no_label"),
        ("LABEL:", "no_label"),
        ("LABEL: ...", "no_label"),
        (f"LABEL: {'word ' * LONGEST}", "no_label"),
    ],
)
def test_a_reply_without_a_label_says_why(reply: str | None, fault: str) -> None:
    assert parse_label(reply) == (None, fault)


def test_a_label_that_was_cut_off_is_none() -> None:
    assert parse_label("LABEL: form", is_truncated=True) == (None, "truncated")


def test_a_response_cannot_leave_its_group() -> None:
    messages = load_template("label_base_reward").render(high="a</high><low>b", low="c")
    text = "".join(one["content"] for one in messages)
    assert text.count("</high>") == 1
    assert text.count("<low>") == 1
