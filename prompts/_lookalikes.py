"""Patterns for a word as a reader sees it: any case, fullwidth or styled, invisible parts between.

It only builds pattern sources and folds short strings; what counts as a tag or as a verdict is
decided by its callers, `prompts.neutral` and `prompts.verdict`, which share these patterns so that
what one can find the other can disarm.
"""

import re
import unicodedata
from collections import defaultdict
from functools import cache

# Characters that take no part in what a reader sees: controls other than white space, format
# characters, combining marks, variation selectors and filler letters. Written out as ranges since
# a scan of the Unicode database would cost a second at first use.
IGNORED = (
    r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20f0\u3164\ufe00-\ufe0f\ufeff"
    r"\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
# What a writer may put around a word: white space, quotes, brackets, markdown.
DECOR = (
    r"\s*_~`\"'()\[\]{}<>#|"
    r"\u2018-\u201f\xab\xbb\u2039\u203a\u300a-\u300f\u3010\u3011"
)
# Each sign with its fullwidth, small and lookalike forms.
COLON = r":\ufe13\ufe55\uff1a\u02d0\u0589\u05c3\u2236\ua789"
LESS = r"<\ufe64\uff1c\u02c2\u1438\u2039\u2329\u27e8\u3008"
GREATER = r">\ufe65\uff1e\u02c3\u1433\u203a\u232a\u27e9\u3009"
SLASH = r"/\\\uff0f\uff3c\u2044\u2215\u29f8"

# Cyrillic, Greek and small capital letters that pass for a Latin one in most fonts; NFKC keeps
# them apart. Only the letters that our tags and the marker are made of.
_PASSES_FOR = {
    "a": "\u0430\u0410\u03b1\u0391\u1d00",
    "c": "\u0441\u0421\u03f2\u1d04",
    "d": "\u0501\u1d05",
    "e": "\u0435\u0415\u03b5\u0395\u1d07",
    "f": "\u0493\ua730",
    "i": "\u0456\u0406\u03b9\u0399\u0131\u026a",
    "m": "\u043c\u041c\u039c\u1d0d",
    "n": "\u043f\u039d\u0274",
    "o": "\u043e\u041e\u03bf\u039f\u1d0f",
    "p": "\u0440\u0420\u03c1\u03a1\u1d18",
    "r": "\u0433\u0280",
    "s": "\u0455\u0405\ua731",
    "t": "\u0442\u0422\u03c4\u03a4\u1d1b",
    "v": "\u0475\u0474\u03bd\u1d20",
    "y": "\u0443\u0423\u03c5\u03a5\u028f",
}


@cache
def _spellings() -> dict[str, str]:
    """Map each ASCII letter and digit to every character that compatibility-folds to it."""
    found: dict[str, list[str]] = defaultdict(list)
    # The planes' parts that hold compatibility letters: the BMP, mathematical letters, and the
    # enclosed alphanumerics.
    for start, stop in ((0x21, 0xD800), (0xF900, 0x10000), (0x1D400, 0x1D800), (0x1F100, 0x1F200)):
        for code in range(start, stop):
            character = chr(code)
            folded = unicodedata.normalize("NFKC", character).casefold()
            if len(folded) == 1 and folded.isascii() and folded.isalnum():
                found[folded].append(character)
    for letter, others in _PASSES_FOR.items():
        found[letter].extend(others)
    return {letter: "".join(characters) for letter, characters in found.items()}


def spelled(word: str) -> str:
    """Return a pattern source for ``word`` however it is cased, styled or interrupted.

    An underscore stands for any run of spaces, hyphens and underscores, or none. The quantifiers
    are possessive, so a match costs time in proportion to its length whatever the text.
    """
    parts = []
    for character in word.casefold():
        if character == "_":
            parts.append(rf"[\s_\-{IGNORED}]*+")
        else:
            same = _spellings().get(character, character)
            parts.append(f"[{re.escape(same)}][{IGNORED}]*+")
    return "".join(parts)


@cache
def marker_pattern(marker: str) -> re.Pattern[str]:
    """Compile the pattern of a verdict marker with its colon, e.g. ``**Verdict** :``.

    Groups: ``word`` is the marker's own letters, ``between`` what stands before the colon.
    """
    first = f"[{re.escape(_spellings()[marker[0].casefold()])}]"
    # Filler letters count as \w, yet a reader sees nothing in front of the marker. The look back
    # comes after the first letter, as a pattern that begins with a set of characters is searched
    # for several times faster than one that begins with a look back.
    return re.compile(
        rf"(?P<word>{first}(?<![^\W_\u115f\u1160\u3164\uffa0]{first})[{IGNORED}]*+"
        rf"{spelled(marker[1:])})(?P<between>[{DECOR}{IGNORED}]*+)[{COLON}]"
    )


_IGNORED_RUN = re.compile(f"[{IGNORED}]+")


def without_ignored(text: str) -> str:
    """Return the text less the characters that a reader does not see."""
    return _IGNORED_RUN.sub("", text)


def fold(text: str) -> str:
    """Return what a short text says: invisible parts dropped, width and case folded away.

    For short strings only: normalization is quadratic on some long runs of combining marks.
    """
    return unicodedata.normalize("NFKC", without_ignored(text)).casefold()
