"""The reply grammar of a judge and its parser, kept together so that they cannot drift apart.

It says which option a reply names, or why none can be read. It never guesses, knows no ties, and
does not know which response an option stands for.

The grammar is one line, ``VERDICT: 1``. Beyond it the parser bears what judges do in practice:
any case, white space, markdown, quotes, brackets, a closing period, and the noun "response",
"answer" or "option" before the option. It bears nothing that takes reading: an option named in
prose, without the marker, is no verdict.
"""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from prompts._lookalikes import DECOR, IGNORED, fold, marker_pattern, without_ignored
from prompts.errors import PromptError

UnparsedReason = Literal["empty", "no_verdict", "off_menu", "truncated"]
UNPARSED_REASONS: tuple[UnparsedReason, ...] = get_args(UnparsedReason)

# Longer than any option with everything around it that the grammar bears.
_LONGEST_ANSWER = 100

_BLANK = re.compile(rf"[\s{IGNORED}]*+\Z")
_LEAD = re.compile(rf"[{DECOR}{IGNORED}]*+")
_LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*+")
_TRAIL = re.compile(rf"[{DECOR}.!。]+\Z")
_NOUN = re.compile(rf"(?:the\s+)?(?:response|answer|option)[{DECOR}]*")


class Verdict(NamedTuple):
    """The option a judge chose.

    Attributes:
        option: The option, spelled as the menu spells it.
        is_exact: Whether the whole reply, stripped, is exactly the grammar's line.
    """

    option: str
    is_exact: bool


class Unparsed(NamedTuple):
    """A reply without a usable verdict, and why; a value to store, neither a tie nor an error.

    Attributes:
        reason: ``empty``: nothing to see in the reply. ``no_verdict``: no marker. ``off_menu``:
            the last marker is not followed by exactly one offered option. ``truncated``: the
            reply was cut off before a usable verdict; a higher token limit may bring one.
    """

    reason: UnparsedReason


@dataclass(frozen=True)
class VerdictMenu:
    """What a judge may answer.

    Attributes:
        marker: The word in front of the colon, e.g. ``VERDICT``.
        options: The offered options, e.g. ``("1", "2")``.

    Raises:
        PromptError: If the marker is not a plain word, or the options are not at least two
            distinct short words.
    """

    marker: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]+", self.marker):
            raise PromptError(
                f"verdict menu: the marker is {self.marker!r}, expected one word of the letters "
                'A to Z; write e.g. marker = "VERDICT"'
            )
        are_plain = all(re.fullmatch(r"[A-Za-z0-9]{1,20}", option) for option in self.options)
        n_distinct = len({fold(option) for option in self.options})
        if not are_plain or n_distinct != len(self.options) or n_distinct < 2:
            raise PromptError(
                f"verdict menu: the options are {list(self.options)}, expected at least two, of "
                "ASCII letters and digits, different beyond their case; write e.g. "
                'options = ["1", "2"]'
            )

    def line(self, option: str) -> str:
        """Return the grammar's line for an option, e.g. ``VERDICT: 1``.

        Raises:
            PromptError: If the option is not on the menu.
        """
        if option not in self.options:
            raise PromptError(
                f"verdict option {option!r}: not offered, expected one of "
                f"{', '.join(self.options)}; use an option of the template's menu"
            )
        return f"{self.marker}: {option}"


def parse_verdict(
    text: str | None, menu: VerdictMenu, *, is_truncated: bool = False
) -> Verdict | Unparsed:
    """Read the verdict out of a judge's reply.

    The last marker decides, since judges change their minds and quote the instructions on the
    way. If it names no offered option the reply is off the menu even where an earlier marker was
    good: the judge's last word was "both", and taking the earlier one would put a choice into
    its mouth. What the marker says is the rest of its line, or the first line with content after
    it. Time is linear in the length of the reply.

    Args:
        text: The reply; None, as some servers send for no content, is an empty one.
        menu: The marker and the offered options.
        is_truncated: Whether the endpoint cut the reply at its token limit. A verdict that is
            there counts all the same; without one the reason is ``truncated``, be the reply
            empty (all tokens went into hidden reasoning) or cut inside the verdict itself.

    Returns:
        `Verdict` or `Unparsed`; never an exception, whatever the text.
    """
    reply = text or ""
    option, reason = _last_word(reply, menu)
    if option is None:
        return Unparsed("truncated" if is_truncated else reason)
    return Verdict(option, is_exact=reply.strip() == menu.line(option))


def _last_word(reply: str, menu: VerdictMenu) -> tuple[str | None, UnparsedReason]:
    """Return the option chosen, if any, and otherwise the reason why none is."""
    if _BLANK.match(reply):
        return None, "empty"
    end = -1
    for match in marker_pattern(menu.marker).finditer(reply):
        end = match.end()
    if end < 0:
        return None, "no_verdict"
    return _offered(_said_after(reply, end), menu), "off_menu"


def _said_after(reply: str, position: int) -> str:
    """Return the first line with content from a position on, folded, bare of decoration."""
    lead = _LEAD.match(reply, position)
    line = _LINE.match(reply, lead.end() if lead else position)
    said = without_ignored(line.group()).rstrip() if line else ""
    if len(said) > _LONGEST_ANSWER:
        return ""
    return _TRAIL.sub("", fold(said))


def _offered(said: str, menu: VerdictMenu) -> str | None:
    folded = {fold(option): option for option in menu.options}
    # The bare option comes first: a menu may offer the word "answer" itself.
    return folded.get(said) or folded.get(_NOUN.sub("", said, count=1))
