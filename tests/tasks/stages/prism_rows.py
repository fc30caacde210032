"""A tiny data set in PRISM's layout, made up here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

USERS = ("u1", "u2", "u3", "u4", "u5", "u6")
QUESTIONS = (
    "Should towns close their centers to cars?",
    "should towns close their centers to cars",
    "How do I keep bees on a balcony?",
    "Is it right to eat meat?",
    "What is a good name for a boat?",
    "Do schools give too much homework?",
)
KINDS = ("controversy guided", "values guided", "unguided", "values guided", "unguided", "unguided")


def survey_rows() -> list[dict[str, Any]]:
    return [
        {
            "user_id": user,
            "age": "25-34 years old",
            "self_description": f"I am the person named {user} and I like gardens.",
            "system_string": "Be brief." if user == "u1" else None,
            "stated_prefs": {"values": 10 * number, "other": None, "other_text": None},
            "order_stated_prefs": {"values": 777},
        }
        for number, user in enumerate(USERS)
    ]


def conversation_rows() -> list[dict[str, Any]]:
    return [
        {
            "conversation_id": f"c{number}",
            "user_id": USERS[number],
            "conversation_type": kind,
            "opening_prompt": question,
            "conversation_history": [],
        }
        for number, (question, kind) in enumerate(zip(QUESTIONS, KINDS, strict=True))
    ]


def utterance_rows() -> list[dict[str, Any]]:
    """Two first-turn responses a conversation, and a later turn that must not be read."""
    rows = []
    for number, question in enumerate(QUESTIONS):
        for place, score in ((0, 90 - 10 * number), (1, 20)):
            rows.append(
                {
                    "utterance_id": f"t{number}{place}",
                    "conversation_id": f"c{number}",
                    "turn": 0,
                    "user_prompt": question,
                    "model_response": f"Answer {place} to it. There are many sides to this.",
                    "model_name": "m1",
                    "score": score,
                    "if_chosen": place == 0,
                }
            )
        rows.append({**rows[-1], "utterance_id": f"t{number}9", "turn": 1, "model_response": "Z"})
    return rows


def write_prism(
    folder: Path,
    *,
    survey: Sequence[Mapping[str, Any] | str] | None = None,
    conversations: Sequence[Mapping[str, Any] | str] | None = None,
    utterances: Sequence[Mapping[str, Any] | str] | None = None,
) -> Path:
    """Writes the three files; a row that is a text goes in as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "survey": survey if survey is not None else survey_rows(),
        "conversations": conversations if conversations is not None else conversation_rows(),
        "utterances": utterances if utterances is not None else utterance_rows(),
    }
    for name, rows in given.items():
        # Not escaped: texts may hold separators that are no ends of lines in JSON lines.
        lines = [
            one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{one}\n" for one in lines), "utf-8")
    return folder
