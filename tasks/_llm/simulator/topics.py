"""What a prompt is about: its content words, and the kind of answer that it asks for.

It understands nothing; it drops small words and keeps the rest in the prompt's own spelling.
"""

import re
from functools import lru_cache

from tasks._llm.simulator.phrases import small_words
from tasks._llm.simulator.style import evidence

_MAX_CHARS = 1_500
_MAX_TOPICS = 12

_WORD_OR_BREAK = re.compile(r"[^\W\d_][\w\u2019'-]*[^\W_]|[^\w\s]|\w+|\n")
_SENTENCE_END = frozenset(".!?\n:;")

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("write", re.compile(r"\b(?:write|compose|draft|create|generate|rewrite|script)\b", re.I)),
    ("list", re.compile(r"\b(?:list|names|ideas|examples|top|suggest|recommend)\b", re.I)),
    ("why", re.compile(r"\b(?:why|reasons?|causes?)\b", re.I)),
    ("how", re.compile(r"\b(?:how|steps?|ways?|recipe|fix|learn|make)\b", re.I)),
    ("what", re.compile(r"\b(?:what|who|when|where|which|explain|describe|define)\b", re.I)),
)


def answer_kind(prompt: str) -> str:
    """Return the kind of content sentences that suit a prompt; ``any`` where none stands out."""
    for kind, pattern in _KINDS:
        if pattern.search(prompt[:200]):
            return kind
    return "any"


@lru_cache(maxsize=4096)
def topics_of(prompt: str) -> tuple[str, ...]:
    """Return up to 12 topics of a prompt, in order of appearance, at least two.

    A topic is one content word, or two that follow each other. Words that would count as
    evidence of a style are left out: the answer's style must not depend on the question's.
    """
    topics: list[str] = []
    seen: set[str] = set()
    run: list[str] = []
    at_start = True
    for token in [*_WORD_OR_BREAK.findall(prompt[:_MAX_CHARS]), "\n"]:
        word = _topic_word(token, at_start)
        at_start = token in _SENTENCE_END
        if word is not None:
            run.append(word)
            if len(run) < 2:
                continue
        if run:
            phrase = " ".join(run)
            key = phrase.lower()
            if key not in seen and not any(evidence(phrase).net):
                topics.append(phrase)
                seen.update((key, *(part.lower() for part in run)))
            run = []
    if len(topics) < 2:
        topics.extend(("the request", "its details"))
    return tuple(topics[:_MAX_TOPICS])


def _topic_word(token: str, at_start: bool) -> str | None:
    lowered = token.lower()
    if len(token) < 3 or "'" in token or "\u2019" in token or lowered in small_words():
        return None
    if not token[0].isalpha() or len(token) > 30 or any(evidence(lowered).net):
        return None
    # A capital at the start of a sentence says nothing; one inside it marks a name.
    return lowered if at_start and token[1:].islower() else token
