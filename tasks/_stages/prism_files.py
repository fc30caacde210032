"""PRISM's own files, from a folder or the Hugging Face hub, checked as a whole. It writes nothing.

Of ``conversations.jsonl`` and ``utterances.jsonl`` only the first turn is kept: later turns depend
on which response the author had picked. Nothing else of the layout is needed or looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tasks._stages.rows import Faults, json_lines
from tasks.errors import InputRejected

FILES = ("survey.jsonl", "conversations.jsonl", "utterances.jsonl")
CONVERSATION_TYPES = ("unguided", "values guided", "controversy guided")
# What PRISM writes where a model's response had no text.
EMPTY = "EMPTY STRING"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Opening(NamedTuple):
    """A conversation's first prompt."""

    conversation_id: str
    user_id: str
    conversation_type: str
    prompt: str


class FirstResponse(NamedTuple):
    """A response to a conversation's first prompt; score of 100 and choice are its author's."""

    utterance_id: str
    conversation_id: str
    text: str
    model: str | None
    score: float | None
    is_chosen: bool | None


class PrismData(NamedTuple):
    """Rows by id: survey rows as they are, openings, responses that have a text."""

    survey: list[dict[str, Any]]
    openings: list[Opening]
    responses: list[FirstResponse]


def prism_folder(source: str, revision: str | None = None) -> Path:
    """The folder that holds PRISM's files, downloaded first if ``source`` is a hub id.

    Args:
        source: A folder, or a dataset id on the Hugging Face hub such as ``owner/name``.
        revision: Branch, tag or commit on the hub.

    Raises:
        InputRejected: It is neither, a file is missing, or the hub does not give it.
    """
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(source):
            raise InputRejected(
                f"prism: {source} is no folder; expected one with {', '.join(FILES)}, or a dataset"
                " id of the Hugging Face hub such as owner/name; check the value of --prism"
            )
        folder = _downloaded(source, revision)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputRejected(
            f"prism: {source} lacks {', '.join(missing)}; expected {', '.join(FILES)} in PRISM's"
            " own layout; check the value of --prism"
        )
    return folder


@cache
def _downloaded(source: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = huggingface_hub.snapshot_download(
            repo_id=source, repo_type="dataset", revision=revision, allow_patterns=list(FILES)
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputRejected(
            f"prism: the Hugging Face hub does not give dataset {source!r} ({reason}); expected a"
            " public dataset, or one you are logged in for; check id and connection, or pass a"
            " folder"
        ) from error
    return Path(str(found))


def describe_prism(folder: Path) -> dict[str, str]:
    """What of the files enters the version: their content, never where they lie."""
    found = {}
    for name in FILES:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[f"{name.removesuffix('.jsonl')}_sha256"] = digest
    return found


def read_prism(folder: Path) -> PrismData:
    """Reads and checks the three files.

    Raises:
        InputRejected: Rows that are no JSON objects, lack a field or hold a value PRISM does not
            have there, repeated ids, references to rows that are not there; all in one line.
    """
    faults = Faults()
    # Ids that rows refer to, those of faulty rows too: one fault is not to be told twice.
    users: set[str] = set()
    conversations: set[str] = set()
    survey = dict(_survey(folder / FILES[0], users, faults))
    openings = dict(_openings(folder / FILES[1], users, conversations, faults))
    responses = dict(_responses(folder / FILES[2], conversations, faults))
    for name, rows in zip(FILES, (survey, openings, responses), strict=True):
        if not rows and not faults.of(name):
            faults.note(name, "no rows")
    if told := faults.told():
        raise InputRejected(
            f"prism: {folder} has {told}; expected PRISM's own layout; nothing was imported, repair"
            " the files and run again"
        )
    return PrismData(
        [survey[one] for one in sorted(survey)],
        [openings[one] for one in sorted(openings)],
        [responses[one] for one in sorted(responses) if responses[one].text],
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_score(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 100


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_turn(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_name(value: object) -> bool:
    return value is None or isinstance(value, str)


Rule = tuple[Callable[[object], bool], str]
_SURVEY: dict[str, Rule] = {"user_id": (_is_id, "an id")}
_CONVERSATION: dict[str, Rule] = {
    "conversation_id": (_is_id, "an id"),
    "user_id": (_is_id, "an id"),
    "conversation_type": (CONVERSATION_TYPES.__contains__, " or ".join(CONVERSATION_TYPES)),
    "opening_prompt": (_is_id, "a non-blank text"),
}
_UTTERANCE: dict[str, Rule] = {
    "utterance_id": (_is_id, "an id"),
    "conversation_id": (_is_id, "an id"),
    "turn": (_is_turn, "a whole number from 0"),
    "model_response": (_is_text, "a text"),
}
# Absent in some copies of the data, and then null.
_OPTIONAL: dict[str, Rule] = {
    "model_name": (_is_name, "a text or null"),
    "score": (_is_score, "a number from 1 to 100 or null"),
    "if_chosen": (_is_flag, "true, false or null"),
}


def _survey(path: Path, users: set[str], faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, row in _checked(path, _SURVEY, "user_id", users, faults):
        yield row["user_id"], row


def _openings(
    path: Path, users: set[str], conversations: set[str], faults: Faults
) -> Iterator[tuple[str, Opening]]:
    for number, row in _checked(path, _CONVERSATION, "conversation_id", conversations, faults):
        if row["user_id"] not in users:
            faults.note(path.name, "a user_id that the survey does not have", number)
        one = row["conversation_id"]
        yield one, Opening(one, row["user_id"], row["conversation_type"], row["opening_prompt"])


def _responses(
    path: Path, conversations: set[str], faults: Faults
) -> Iterator[tuple[str, FirstResponse]]:
    for number, row in _checked(path, _UTTERANCE, "utterance_id", set(), faults):
        if row["conversation_id"] not in conversations:
            faults.note(path.name, "a conversation_id that is no conversation", number)
        if row["turn"] != 0:
            continue
        text = row["model_response"].strip()
        score = row.get("score")
        yield (
            row["utterance_id"],
            FirstResponse(
                utterance_id=row["utterance_id"],
                conversation_id=row["conversation_id"],
                text="" if text == EMPTY else text,
                model=row.get("model_name"),
                score=None if score is None else float(score),
                is_chosen=row.get("if_chosen"),
            ),
        )


def _checked(
    path: Path, rules: Mapping[str, Rule], key: str, seen: set[str], faults: Faults
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows that keep the rules, with their row number from 1; what does not is noted.

    ``seen`` takes up every id, those of faulty rows too.
    """
    every = rules if rules is not _UTTERANCE else {**rules, **_OPTIONAL}
    for number, row in json_lines(path, faults):
        wrong = False
        for name, (is_right, expected) in every.items():
            if name not in row and name not in _OPTIONAL:
                faults.note(path.name, f"no {name}", number)
                wrong = True
            elif not is_right(row.get(name)):
                faults.note(path.name, f"{name} that is not {expected}", number)
                wrong = True
        if _is_id(row.get(key)):
            if row[key] in seen:
                faults.note(path.name, f"a {key} that was there before", number)
                wrong = True
            seen.add(row[key])
        if not wrong:
            yield number, row
