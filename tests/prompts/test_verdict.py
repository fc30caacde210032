"""What judges write, and what we make of it.

`REPLIES` is the specification: read it from top to bottom. A digit is a verdict, ``exact`` marks
the one spelling that the grammar asks for, anything else is the reason why nothing was read.
"""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import PromptError
from prompts.verdict import UNPARSED_REASONS, Unparsed, Verdict, VerdictMenu, parse_verdict

MENU = VerdictMenu("VERDICT", ("1", "2"))

# fmt: off
REPLIES: list[tuple[str, str]] = [
    # As asked.
    ("VERDICT: 1",                                                      "1 exact"),
    ("VERDICT: 2",                                                      "2 exact"),
    ("  VERDICT: 2\n\n",                                                "2 exact"),
    # Case and space.
    ("verdict: 1",                                                      "1"),
    ("Verdict:2",                                                       "2"),
    ("VERDICT : 1",                                                     "1"),
    ("VERDICT:    2",                                                   "2"),
    ("VERDICT:\t1",                                                     "1"),
    ("VERDICT:\n2",                                                     "2"),
    ("VERDICT:\r\n\r\n**1**\r\n",                                       "1"),
    # Decoration.
    ("**VERDICT: 1**",                                                  "1"),
    ("**VERDICT:** 2",                                                  "2"),
    ("**Verdict**: **1**",                                              "1"),
    ("### VERDICT: 2",                                                  "2"),
    ("> VERDICT: 1",                                                    "1"),
    ("_VERDICT: 2_",                                                    "2"),
    ("`VERDICT: 1`",                                                    "1"),
    ("```\nVERDICT: 2\n```",                                            "2"),
    ("| VERDICT: 1 |",                                                  "1"),
    ("VERDICT: [1]",                                                    "1"),
    ("VERDICT: (2)",                                                    "2"),
    ("VERDICT: <1>",                                                    "1"),
    ('VERDICT: "2"',                                                    "2"),
    ("VERDICT: “1”",                                                    "1"),
    ("VERDICT: 2.",                                                     "2"),
    ("VERDICT: 1!",                                                     "1"),
    ("VERDICT: #2",                                                     "2"),
    ('{"verdict": "1"}',                                                "1"),
    ('{"final_verdict": 2}',                                            "2"),
    # A noun in front.
    ("VERDICT: Response 1",                                             "1"),
    ("VERDICT: response_2",                                             "2"),
    ("VERDICT: <response_1>",                                           "1"),
    ("VERDICT: Answer 2.",                                              "2"),
    ("VERDICT: **Option 1**",                                           "1"),
    ("VERDICT: the response 2",                                         "2"),
    ("VERDICT: Response #1",                                            "1"),
    # Other alphabets and invisible characters.
    ("VERDICT:1",                                                      "1"),
    ("ＶＥＲＤＩＣＴ：２",                                                   "2"),
    ("VERDICT: 1\ufe0f\u20e3",                                          "1"),
    ("\ufeffVERDICT: 2\u200b",                                          "2"),
    ("VERDICT: 1\x00",                                                  "1"),
    ("\x07VERD\x08ICT: 2",                                              "2"),
    # Words around it. The last marker is the judge's last word.
    ("The first one is warmer.\nVERDICT: 1",                            "1"),
    ("VERDICT: 2\n\nIt is shorter, as this person likes it.",           "2"),
    ("Both are fine. My verdict: 1",                                    "1"),
    ("VERDICT: 1\nWait, no.\nVERDICT: 2",                               "2"),
    ("VERDICT: 1 VERDICT: 2",                                           "2"),
    ('It says "VERDICT: 1" in the text, but no. VERDICT: 2',            "2"),
    ('Told to end with "VERDICT: 1" or "VERDICT: 2", I do.\nVERDICT: 1', "1"),
    ("VERDICT: tie\nOn reflection:\nVERDICT: 1",                        "1"),
    ("VERDICT: VERDICT: 2",                                             "2"),
    ("<think>VERDICT: 1?</think>VERDICT: 2",                            "2"),
    # Not offered.
    ("VERDICT: 1 or 2",                                                 "off_menu"),
    ("VERDICT: 1/2",                                                    "off_menu"),
    ("VERDICT: 1 and 2",                                                "off_menu"),
    ("VERDICT: 1, 2",                                                   "off_menu"),
    ("VERDICT: 1 > 2",                                                  "off_menu"),
    ("VERDICT: both",                                                   "off_menu"),
    ("VERDICT: tie",                                                    "off_menu"),
    ("VERDICT: neither",                                                "off_menu"),
    ("VERDICT: A",                                                      "off_menu"),
    ("VERDICT: Response B",                                             "off_menu"),
    ("VERDICT: 3",                                                      "off_menu"),
    ("VERDICT: 0",                                                      "off_menu"),
    ("VERDICT: 12",                                                     "off_menu"),
    ("VERDICT: 11",                                                     "off_menu"),
    ("VERDICT: 1.5",                                                    "off_menu"),
    ("VERDICT: .1",                                                     "off_menu"),
    ("VERDICT: -1",                                                     "off_menu"),
    ("VERDICT: +2",                                                     "off_menu"),
    ("VERDICT: ½",                                                      "off_menu"),
    ("VERDICT: 1?",                                                     "off_menu"),
    ("VERDICT: one",                                                    "off_menu"),
    ("VERDICT: the first",                                              "off_menu"),
    ("VERDICT: not 1",                                                  "off_menu"),
    ("VERDICT: response",                                               "off_menu"),
    ("VERDICT: 1 is better than 2",                                     "off_menu"),
    ("VERDICT: 2 (shorter)",                                            "off_menu"),
    ("VERDICT: Response 1 over Response 2",                             "off_menu"),
    ("VERDICT:",                                                        "off_menu"),
    ("VERDICT: **",                                                     "off_menu"),
    ("VERDICT:: 1",                                                     "off_menu"),
    # The last word is not offered, so an earlier good one does not count.
    ("VERDICT: 1\nActually, they are equal.\nVERDICT: tie",             "off_menu"),
    ("VERDICT: 2\nVERDICT:",                                            "off_menu"),
    ('VERDICT: 2, though the text says "VERDICT: 1" itself',            "off_menu"),
    # No marker: prose is not read, whatever it seems to say.
    ("1",                                                               "no_verdict"),
    ("2.",                                                              "no_verdict"),
    ("Response 1",                                                      "no_verdict"),
    ("B is so much better than A",                                      "no_verdict"),
    ("Response 2 is better than response 1.",                           "no_verdict"),
    ("VERDICT 1",                                                       "no_verdict"),
    ("VERDICT - 2",                                                     "no_verdict"),
    ("The verdict is 1",                                                "no_verdict"),
    ("VERDICTS: 1",                                                     "no_verdict"),
    ("PREVERDICT: 1",                                                   "no_verdict"),
    ("V E R D I C T : 1",                                               "no_verdict"),
    ("VERDIKT: 1",                                                      "no_verdict"),
    ("Answer: 2",                                                       "no_verdict"),
    ("I'm sorry, but I can't take the place of a person.",              "no_verdict"),
    ("🙂",                                                              "no_verdict"),
    # Nothing to see.
    ("",                                                                "empty"),
    (" \n\t ",                                                          "empty"),
    ("\u200b\u2060\ufeff",                                              "empty"),
    ("\x00\x00",                                                        "empty"),
]
# fmt: on


def told(outcome: Verdict | Unparsed) -> str:
    if isinstance(outcome, Unparsed):
        return outcome.reason
    return f"{outcome.option} exact" if outcome.is_exact else outcome.option


@pytest.mark.parametrize(("reply", "expected"), REPLIES, ids=[ascii(r[0])[:60] for r in REPLIES])
def test_reply_is_read_as_the_catalogue_says(reply: str, expected: str) -> None:
    assert told(parse_verdict(reply, MENU)) == expected


def test_the_catalogue_is_large_and_shows_every_outcome() -> None:
    assert len({reply for reply, _ in REPLIES}) == len(REPLIES) >= 60
    shown = {expected for _, expected in REPLIES}
    assert shown == {"1", "2", "1 exact", "2 exact", *UNPARSED_REASONS} - {"truncated"}


# fmt: off
CUT_OFF: list[tuple[str, str]] = [
    ("The first answer is warm and",    "truncated"),
    ("VERD",                            "truncated"),
    ("VERDICT:",                        "truncated"),
    ("VERDICT: Respon",                 "truncated"),
    ("VERDICT: 1\nOn the other hand, VERDICT:", "truncated"),
    ("VERDICT: tie\nbecause",           "truncated"),  # its last word was still to come
    ("",                                "truncated"),  # all tokens went into hidden reasoning
    ("VERDICT: 2",                      "2 exact"),
    ("VERDICT: 1\nThe first answer is", "1"),
]
# fmt: on


@pytest.mark.parametrize(("reply", "expected"), CUT_OFF)
def test_cut_off_reply_counts_only_with_a_verdict(reply: str, expected: str) -> None:
    assert told(parse_verdict(reply, MENU, is_truncated=True)) == expected


def test_no_content_at_all_is_empty() -> None:
    assert parse_verdict(None, MENU) == Unparsed("empty")
    assert parse_verdict(None, MENU, is_truncated=True) == Unparsed("truncated")


@pytest.mark.parametrize("option", MENU.options)
def test_every_line_of_the_menu_is_read_back_exactly(option: str) -> None:
    assert parse_verdict(MENU.line(option), MENU) == Verdict(option, is_exact=True)


@given(st.text())
def test_any_text_gives_an_offered_option_or_a_known_reason(text: str) -> None:
    outcome = parse_verdict(text, MENU)
    if isinstance(outcome, Verdict):
        assert outcome.option in MENU.options
    else:
        assert outcome.reason in UNPARSED_REASONS


@given(st.text(), st.sampled_from(MENU.options))
def test_prose_before_the_verdict_changes_nothing(prose: str, option: str) -> None:
    outcome = parse_verdict(f"{prose}\n{MENU.line(option)}\n", MENU)
    assert isinstance(outcome, Verdict)
    assert outcome.option == option


def slow_reading(reply: str) -> str | None:
    """Read plain ASCII replies by splitting, with none of the parser's patterns."""
    last = re.sub(r"(?<![A-Za-z0-9])verdict ?:", "\0", reply, flags=re.IGNORECASE).split("\0")[1:]
    if not last:
        return None
    lines = last[-1].strip().splitlines() or [""]
    said = lines[0].strip().removesuffix(".").lower().removeprefix("response ")
    return said if said in MENU.options else None


def test_parser_agrees_with_a_slow_twin_on_every_short_reply_from_a_few_words() -> None:
    words = ["VERDICT:", "verdict :", " 1", " 2", " response 1", ".", "\n", " or", "x"]
    for n_words in range(5):
        for chosen in itertools.product(words, repeat=n_words):
            reply = "".join(chosen)
            if ".." in reply or " \n" in reply:
                continue
            outcome = parse_verdict(reply, MENU)
            read = outcome.option if isinstance(outcome, Verdict) else None
            assert read == slow_reading(reply), reply


# Five million characters each. With a pattern that backtracks, a single one of these would run for
# hours, so the test needs no clock: it ends or it does not.
MILLIONS = 5_000_000
HOSTILE = [
    "V" * MILLIONS,
    "VERDICT" * (MILLIONS // 7),
    "VERDICT " + "*" * MILLIONS,
    "VERDICT" + " " * MILLIONS + "x",
    "VERDICT:" + "\n" * MILLIONS,
    "VERDICT: 1" + "x" * MILLIONS,
    "VERDICT: " + "response " * (MILLIONS // 9),
    "V\u200b" * (MILLIONS // 2),
    "VERDICT: 1" + "\u0315\u0300" * (MILLIONS // 2) + "2",
    "\u200b" * MILLIONS + "x",
]


@pytest.mark.parametrize("reply", HOSTILE, ids=range(len(HOSTILE)))
def test_five_million_hostile_characters_are_read_in_one_pass(reply: str) -> None:
    assert isinstance(parse_verdict(reply, MENU), Unparsed)


def test_verdict_after_five_million_characters_is_found() -> None:
    assert parse_verdict("lorem " * (MILLIONS // 6) + "\nVERDICT: 2", MENU) == Verdict("2", False)


def test_menu_keeps_its_own_spelling_of_options() -> None:
    menu = VerdictMenu("Choice", ("Left", "Right"))
    assert parse_verdict("CHOICE: left", menu) == Verdict("Left", False)
    assert parse_verdict("Choice: Right", menu) == Verdict("Right", True)
    assert parse_verdict("VERDICT: Left", menu) == Unparsed("no_verdict")


def test_menu_may_offer_the_noun_itself() -> None:
    menu = VerdictMenu("VERDICT", ("answer", "silence"))
    assert parse_verdict("VERDICT: answer", menu) == Verdict("answer", True)


@pytest.mark.parametrize(
    ("marker", "options"),
    [
        ("", ("1", "2")),
        ("TWO WORDS", ("1", "2")),
        ("VERDICT:", ("1", "2")),
        ("VERDICT", ()),
        ("VERDICT", ("1",)),
        ("VERDICT", ("1", "1")),
        ("VERDICT", ("a", "A")),
        ("VERDICT", ("1", "")),
        ("VERDICT", ("1", "1 or 2")),
    ],
)
def test_menu_that_cannot_be_read_back_is_refused_in_one_line(
    marker: str, options: tuple[str, ...]
) -> None:
    with pytest.raises(PromptError, match="expected") as caught:
        VerdictMenu(marker, options)
    assert "\n" not in str(caught.value)


def test_line_of_an_option_that_is_not_offered_is_refused() -> None:
    with pytest.raises(PromptError, match=r"'3'.*one of 1, 2"):
        MENU.line("3")
