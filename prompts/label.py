"""The reply grammar of the labelling template and its parser.

It reads a label or says why there is none; whether a label is true it cannot say.
"""

import re
from typing import Literal, NamedTuple

LabelFault = Literal["empty", "no_label", "truncated"]

# Longer than six words ever are: what goes on is a sentence, and none was asked for.
LONGEST = 80

_MARKED = re.compile(r"^[\s*_#>`\"'(\[]*LABEL[\s*_`\"']*:(?P<label>[^\r\n]*)$", re.I | re.M)
_AROUND = " \t*_`\"'.()[]"


class Label(NamedTuple):
    """A label as the reply has it, in one line, or None and the reason.

    Attributes:
        text: At most `LONGEST` characters, no line break or control character.
        fault: ``empty``: nothing in the reply. ``no_label``: no marked line, nothing behind the
            marker, or more than a label. ``truncated``: cut off before the label ended.
    """

    text: str | None
    fault: LabelFault | None


def parse_label(reply: str | None, *, is_truncated: bool = False) -> Label:
    """Read the label behind the last marker of a reply.

    Args:
        reply: What the model wrote, or None.
        is_truncated: Whether the endpoint cut the reply at its token limit.
    """
    if is_truncated:
        return Label(None, "truncated")
    if not (reply or "").strip():
        return Label(None, "empty")
    found = _MARKED.findall(reply or "")
    words = "".join(one if one.isprintable() else " " for one in found[-1]) if found else ""
    text = " ".join(words.split()).strip(_AROUND)
    if not text or len(text) > LONGEST:
        return Label(None, "no_label")
    return Label(text, None)
