"""The prompts that the package brings along, for a first run with no data of one's own.

They are ordinary requests to an assistant, written for this package; they are no benchmark.
"""

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class StarterPrompt(NamedTuple):
    """One prompt.

    Attributes:
        prompt_id: ``p001`` and so on; an id keeps its text for good.
        text: What the user asks, one or two sentences.
    """

    prompt_id: str
    text: str


@cache
def starter_prompts() -> tuple[StarterPrompt, ...]:
    """Return the prompts in the order of their ids; read once, at the first call."""
    text = (files("prompts") / "starter_prompts.jsonl").read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines())
    return tuple(StarterPrompt(row["prompt_id"], row["text"]) for row in rows)
