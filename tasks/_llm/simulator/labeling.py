"""The simulated reader: what one group of texts shows more than another, by visible style alone.

It is told neither what the texts were written for nor which attribute the groups differ in.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompts.traits import ATTRIBUTES
from tasks._llm.simulator.messages import tagged
from tasks._llm.simulator.style import score_vector

_HEADING = re.compile(r"^Response \d+:$", re.MULTILINE)
# Differences of mean scores, which lie in [-2, 2], below which a reader would notice nothing.
_VISIBLE = 0.25
_MOST_TRAITS = 2


def asks_for_label(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request shows two groups to tell apart."""
    return tagged(messages, "high") is not None and tagged(messages, "low") is not None


def label_reply(messages: Sequence[Mapping[str, Any]]) -> str:
    """Name the one or two traits that the first group shows most over the second.

    A second trait is named where its difference is at least half of the first's.
    """
    high = _mean_style(tagged(messages, "high") or "")
    low = _mean_style(tagged(messages, "low") or "")
    gaps = sorted(
        ((abs(a - b), one.first if a > b else one.second)
         for a, b, one in zip(high, low, ATTRIBUTES, strict=True)),
        reverse=True,
    )  # fmt: skip
    largest = gaps[0][0]
    named = [trait for gap, trait in gaps[:_MOST_TRAITS] if gap >= max(_VISIBLE, largest / 2)]
    return f"LABEL: {' and '.join(named) or 'no visible difference'}"


def _mean_style(group: str) -> list[float]:
    texts = [one.strip() for one in _HEADING.split(group) if one.strip()]
    scores = [score_vector(text) for text in texts] or [(0.0,) * len(ATTRIBUTES)]
    return [sum(column) / len(scores) for column in zip(*scores, strict=True)]
