"""A team's own prompts, responses, preferences and users, checked as a whole. It writes nothing.

docs/own-data.md tells the layout. Unknown columns are named, never guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tasks._stages.rows import READERS, Faults
from tasks.errors import InputRejected
from warehouse.paths import hash_file

NEEDED = ("prompts", "responses", "preferences")
OPTIONAL = ("users",)


class OwnResponse(NamedTuple):
    """A text that was shown, and the model that wrote it where that is known."""

    prompt_id: str
    text: str
    model: str | None


class OwnUser(NamedTuple):
    """What is known of a user."""

    profile: str | None
    system: str | None


class OwnAnswer(NamedTuple):
    """One row of the preferences: P(A preferred), how often it counts, and when it was given."""

    user_id: str
    response_a_id: str
    response_b_id: str
    preference: float
    weight: float
    answered_at: datetime | None


class OwnData(NamedTuple):
    """Rows by id; answers in the order of the file, with their row numbers."""

    prompts: dict[str, str]
    responses: dict[str, OwnResponse]
    users: dict[str, OwnUser]
    answers: list[tuple[int, OwnAnswer]]
    ignored: dict[str, tuple[str, ...]]


def own_files(source: str) -> dict[str, Path]:
    """Which file of a folder holds what; ``users`` is absent where there is no such file.

    Raises:
        InputRejected: No folder, a file is missing, or there are two of a kind.
    """
    folder = Path(source)
    endings = " or ".join(READERS)
    if not folder.is_dir():
        raise InputRejected(
            f"data: {source} is no folder; expected one with {', '.join(NEEDED)} and, if you like,"
            f" users, each as {endings}; check the path"
        )
    found: dict[str, Path] = {}
    faults = []
    for name in (*NEEDED, *OPTIONAL):
        there = [folder / f"{name}{end}" for end in READERS if (folder / f"{name}{end}").is_file()]
        if len(there) > 1:
            faults.append(f"{name} more than once ({', '.join(one.name for one in there)})")
        elif there:
            found[name] = there[0]
        elif name in NEEDED:
            faults.append(f"no {name}")
    if faults:
        raise InputRejected(
            f"data: {source} has {'; '.join(faults)}; expected one file each of {', '.join(NEEDED)}"
            f" ({endings}); nothing was imported, add or remove files"
        )
    return found


def describe_own(source: str) -> dict[str, Any]:
    """What of the files enters the version: their names and content hashes, never their folder."""
    return {"files": {path.name: hash_file(path)[1] for path in own_files(source).values()}}


def read_own(source: str) -> OwnData:
    """Reads and checks all files.

    Raises:
        InputRejected: Rows that lack a field or hold a value that does not fit, repeated ids,
            references to rows that are not there; every fault of every file in one line.
    """
    files = own_files(source)
    faults = Faults()
    ignored: dict[str, tuple[str, ...]] = {}
    # Ids that rows refer to, those of faulty rows too: one fault is not to be told twice.
    ids: dict[str, set[str]] = {name: set() for name in (*NEEDED, *OPTIONAL)}

    def rows(name: str, key: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
        return _checked(files[name], name, key, ids[name], faults, ignored)

    prompts = {row["prompt_id"]: row["prompt_text"] for _, row in rows("prompts", "prompt_id")}
    responses = {}
    for number, row in rows("responses", "response_id"):
        if row["prompt_id"] not in ids["prompts"]:
            faults.note(files["responses"].name, "a prompt_id that the prompts do not have", number)
        responses[row["response_id"]] = OwnResponse(
            row["prompt_id"], row["response_text"], row.get("response_model")
        )
    users = {}
    if "users" in files:
        for _, row in rows("users", "user_id"):
            users[row["user_id"]] = OwnUser(row.get("profile_text"), row.get("system_text"))
    answers = []
    for number, row in rows("preferences", None):
        answer = _answer(row)
        for problem in _references(answer, ids, responses, has_users="users" in files):
            faults.note(files["preferences"].name, problem, number)
        users.setdefault(answer.user_id, OwnUser(None, None))
        answers.append((number, answer))
    for name, some in (("prompts", prompts), ("responses", responses), ("preferences", answers)):
        if not some and not faults.of(files[name].name):
            faults.note(files[name].name, "no rows")
    if told := faults.told():
        raise InputRejected(
            f"data: {source} has {told}; expected the layout of docs/own-data.md; nothing was"
            " imported, repair the files and run again"
        )
    return OwnData(prompts, responses, users, answers, ignored)


def _references(
    answer: OwnAnswer,
    ids: dict[str, set[str]],
    responses: dict[str, OwnResponse],
    *,
    has_users: bool,
) -> Iterator[str]:
    """What an answer says of rows that are not there, or do not belong together."""
    if has_users and answer.user_id not in ids["users"]:
        yield "a user_id that the users do not have"
    a, b = answer.response_a_id, answer.response_b_id
    for name, one in (("response_a_id", a), ("response_b_id", b)):
        if one not in ids["responses"]:
            yield f"a {name} that the responses do not have"
    if a == b:
        yield "twice the same response"
    elif a in responses and b in responses and responses[a].prompt_id != responses[b].prompt_id:
        yield "responses to two different prompts"


def _answer(row: dict[str, Any]) -> OwnAnswer:
    return OwnAnswer(
        row["user_id"],
        row["response_a_id"],
        row["response_b_id"],
        row["preference"],
        1.0 if row.get("weight") is None else row["weight"],
        row.get("time"),
    )


class _Unfit(Exception):
    """A value that a column does not take."""


def _id(value: object) -> str:
    # A team's ids are often numbers; 17 and "17" name the same thing.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise _Unfit


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise _Unfit


def _number(value: object) -> float:
    if isinstance(value, bool):
        raise _Unfit
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _Unfit from None
    return number


def _share(value: object) -> float:
    number = _number(value)
    if not 0.0 <= number <= 1.0:
        raise _Unfit
    return number


def _weight(value: object) -> float:
    number = _number(value)
    if not (math.isfinite(number) and number > 0.0):
        raise _Unfit
    return number


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise _Unfit from None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise _Unfit
    return moment.astimezone(UTC)


class _Column(NamedTuple):
    read: Callable[[object], Any]
    expected: str
    is_optional: bool = False


_COLUMNS: dict[str, dict[str, _Column]] = {
    "prompts": {
        "prompt_id": _Column(_id, "an id"),
        "prompt_text": _Column(_text, "a non-blank text"),
    },
    "responses": {
        "response_id": _Column(_id, "an id"),
        "prompt_id": _Column(_id, "an id"),
        "response_text": _Column(_text, "a non-blank text"),
        "response_model": _Column(_text, "a text or null", True),
    },
    "users": {
        "user_id": _Column(_id, "an id"),
        "profile_text": _Column(_text, "a text or null", True),
        "system_text": _Column(_text, "a text or null", True),
    },
    "preferences": {
        "user_id": _Column(_id, "an id"),
        "response_a_id": _Column(_id, "an id"),
        "response_b_id": _Column(_id, "an id"),
        "preference": _Column(_share, "a number from 0 to 1"),
        "weight": _Column(_weight, "a number above 0 or null", True),
        "time": _Column(_moment, "an ISO 8601 time with its zone or null", True),
    },
}


def _checked(
    path: Path,
    name: str,
    key: str | None,
    seen: set[str],
    faults: Faults,
    ignored: dict[str, tuple[str, ...]],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows whose values fit, converted, with their row number; what does not fit is noted.

    ``seen`` takes up every id, those of faulty rows too.
    """
    columns = _COLUMNS[name]
    unknown: set[str] = set()
    for number, raw in READERS[path.suffix](path, faults):
        unknown |= raw.keys() - columns.keys()
        row: dict[str, Any] = {}
        for column, (read, expected, is_optional) in columns.items():
            value = raw.get(column)
            if value is None and is_optional:
                continue
            if value is None:
                faults.note(path.name, f"no {column}", number)
                continue
            try:
                row[column] = read(value)
            except _Unfit:
                faults.note(path.name, f"{column} that is not {expected}", number)
        if key is not None and key in row:
            if row[key] in seen:
                faults.note(path.name, f"a {key} that was there before", number)
                continue
            seen.add(row[key])
        if all(column in row for column, one in columns.items() if not one.is_optional):
            yield number, row
    if unknown:
        ignored[path.name] = tuple(sorted(unknown))
