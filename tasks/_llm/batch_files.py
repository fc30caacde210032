"""The lines of a batch's files: calls out, replies in.

It sends nothing and stores nothing.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tasks._llm.types import CallRequest

_URL = b'","method":"POST","url":"/v1/chat/completions","body":'
_ENDPOINT_PREFIX = "chat.completions:"


class LineReply(NamedTuple):
    """What one line of an output or error file says.

    Attributes:
        custom_id: The request key.
        status: HTTP status of the call; None where it was not executed.
        body: JSON of the reply, in the order and with the values of the file.
        code: Why it was not executed, such as "batch_expired"; empty otherwise.
    """

    custom_id: str
    status: int | None
    body: bytes
    code: str


def input_line(key: str, body: bytes) -> bytes:
    """One line of an input file, with its line feed.

    Args:
        key: Request key; it comes back as ``custom_id``.
        body: JSON of the chat request.
    """
    return b'{"custom_id":"' + key.encode("ascii") + _URL + body + b"}\n"


def request_of(identity: bytes) -> CallRequest:
    """The request that has this identity, see `CallRequest.identity`."""
    fields = json.loads(identity)
    return CallRequest(
        endpoint_name=fields["endpoint"].removeprefix(_ENDPOINT_PREFIX),
        model=fields["model"],
        messages=fields["messages"],
        sampling=fields["sampling"],
        repeat=fields["repeat"],
    )


def write_input(path: Path, requests: Iterable[tuple[str, bytes]]) -> None:
    """Writes an input file from (key, identity) pairs, one line in memory at a time."""
    with path.open("wb") as file:
        for key, identity in requests:
            file.write(input_line(key, request_of(identity).body()))


def read_lines(path: Path) -> Iterator[LineReply]:
    """Reads an output or error file; a line that is none is passed over, its call is missing.

    Yields:
        One line at a time, in the file's order, which means nothing.
    """
    with path.open("rb") as file:
        for raw in file:
            line = _read_line(raw)
            if line is not None:
                yield line


def _read_line(raw: bytes) -> LineReply | None:
    try:
        fields = json.loads(raw.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    custom_id = fields.get("custom_id") if isinstance(fields, dict) else None
    if not isinstance(custom_id, str):
        return None
    response = fields.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        body = json.dumps(response.get("body"), ensure_ascii=False).encode("utf-8", "replace")
        return LineReply(custom_id, response["status_code"], body, "")
    error = fields.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return LineReply(custom_id, None, b"", code if isinstance(code, str) else "no_response")
