"""The Files and Batches endpoints in OpenAI's wire format, with expiry and partial failure.

Files and batches live in the memory of one server and end with it. It makes no answers itself.
"""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

from tasks._llm.simulator.draws import Draws
from tasks._llm.simulator.faults import Counts
from tasks._llm.simulator.options import BatchOptions
from tasks._llm.simulator.wire import WireError

_JSON = "application/json"
_ENDPOINT = "/v1/chat/completions"
_WINDOW_S = 86_400
# Lines answered before other requests get their turn.
_TURN_LINES = 20
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")

Answer = Callable[[bytes], bytes]


class _File(NamedTuple):
    card: dict[str, Any]
    content: bytes


class _Line(NamedTuple):
    custom_id: str
    body: bytes


@dataclass(eq=False)
class _Batch:
    card: dict[str, Any]
    number: int
    lines: list[_Line] = field(default_factory=list)


class Batches:
    """Everything under ``/v1/files`` and ``/v1/batches`` of one server."""

    def __init__(self, options: BatchOptions, counts: Counts, answer: Answer) -> None:
        """Take what a batch needs.

        Args:
            options: How the endpoint behaves.
            counts: Told of every line that a batch takes.
            answer: Body of a chat request → body of its reply; raises `WireError`.
        """
        self._options = options
        self._counts = counts
        self._answer = answer
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._losses: dict[str, int] = {}

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer one request.

        Raises:
            WireError: If it cannot be answered.
        """
        parts = request.path.strip("/").split("/")[1:]
        match [request.method, *parts]:
            case ("POST", "files"):
                return _reply(await self._upload(request))
            case ("GET", "files"):
                return _reply(_listed([file.card for file in self._files.values()], request))
            case ("GET", "files", file_id):
                return _reply(self._file(file_id).card)
            case ("DELETE", "files", file_id):
                self._file(file_id)
                del self._files[str(file_id)]
                return _reply({"id": file_id, "object": "file", "deleted": True})
            case ("GET", "files", file_id, "content"):
                content = self._file(file_id).content
                return web.Response(body=content, content_type="application/octet-stream")
            case ("POST", "batches"):
                card = await self._create(request)
                await asyncio.sleep(self._options.create_hang_s)
                return _reply(card)
            case ("GET", "batches"):
                return _reply(_listed([one.card for one in self._batches.values()], request))
            case ("GET", "batches", batch_id):
                return _reply(self._batch(batch_id).card)
            case ("POST", "batches", batch_id, "cancel"):
                return _reply(self._cancel(batch_id))
        raise WireError(404, f"Unknown request URL: {request.method} {request.path}.")

    async def _upload(self, request: web.BaseRequest) -> dict[str, Any]:
        if not request.content_type.startswith("multipart/"):
            raise WireError(400, "Expected multipart/form-data.")
        purpose, name, content = "", "", bytearray()
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            data = bytearray()
            # Chunks: reading a part at once is bounded to a size meant for ordinary requests.
            while chunk := await part.read_chunk(2**16):  # type: ignore[union-attr]
                data += chunk
            if getattr(part, "name", None) == "file":
                name, content = getattr(part, "filename", None) or "upload", data
            elif getattr(part, "name", None) == "purpose":
                purpose = data.decode("utf-8", "replace")
        if not name:
            raise WireError(400, "'file' is a required property.", param="file")
        if purpose != "batch":
            raise WireError(400, f"Invalid purpose: {purpose!r}; expected 'batch'.")
        return self._keep(bytes(content), name, "batch")

    def _keep(self, content: bytes, name: str, purpose: str) -> dict[str, Any]:
        card: dict[str, Any] = {
            "id": f"file-{uuid.uuid4().hex}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[card["id"]] = _File(card, content)
        return card

    def _file(self, file_id: str) -> _File:
        if file_id not in self._files:
            raise WireError(404, f"No such File object: {file_id}", param="id")
        return self._files[file_id]

    def _batch(self, batch_id: str) -> _Batch:
        if batch_id not in self._batches:
            raise WireError(404, f"No batch found with id '{batch_id}'.", param="id")
        return self._batches[batch_id]

    async def _create(self, request: web.BaseRequest) -> dict[str, Any]:
        try:
            fields = json.loads(await request.read())
        except ValueError:
            raise WireError(400, "The body of the request is not valid JSON.") from None
        if not isinstance(fields, dict) or fields.get("endpoint") != _ENDPOINT:
            raise WireError(400, f"Invalid 'endpoint': expected {_ENDPOINT}.", param="endpoint")
        if fields.get("completion_window") != "24h":
            raise WireError(400, "Invalid 'completion_window': expected 24h.")
        file = self._file(str(fields.get("input_file_id")))
        now = int(time.time())
        card: dict[str, Any] = {
            "id": f"batch_{uuid.uuid4().hex}",
            "object": "batch",
            "endpoint": _ENDPOINT,
            "errors": None,
            "input_file_id": file.card["id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + _WINDOW_S,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": fields.get("metadata"),
        }
        batch = _Batch(card, len(self._batches))
        self._batches[card["id"]] = batch
        task = asyncio.create_task(self._run(batch, file.content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return card

    def _cancel(self, batch_id: str) -> dict[str, Any]:
        card = self._batch(batch_id).card
        if card["status"] not in _OPEN:
            raise WireError(409, f"Cannot cancel a batch with status '{card['status']}'.")
        if card["status"] != "finalizing":
            _enter(card, "cancelling")
        return card

    async def _run(self, batch: _Batch, content: bytes) -> None:
        card, part_s = batch.card, self._options.duration_s / 10
        await asyncio.sleep(part_s)
        errors = self._validate(batch, content)
        if errors:
            card["errors"] = {"object": "list", "data": errors}
            _enter(card, "failed")
            return
        card["request_counts"]["total"] = len(batch.lines)
        self._counts.batch_lines.update(line.custom_id for line in batch.lines)
        draws = Draws(f"{self._options.seed}|{batch.number}".encode(), "batch")
        is_expiring = draws.uniform() < self._options.expire_share
        lines = draws.shuffled(batch.lines)
        n_answered = round(len(lines) * self._options.finished_share) if is_expiring else len(lines)
        if card["status"] != "cancelling":
            _enter(card, "in_progress")
        outputs: list[bytes] = []
        failures: list[bytes] = []
        n_done = 0
        start_s = time.monotonic()
        for n_done, line in enumerate(lines[:n_answered], 1):
            if card["status"] == "cancelling":
                n_done -= 1
                break
            self._answer_line(line, card, outputs, failures)
            if n_done % _TURN_LINES == 0:
                due_s = start_s + 8 * part_s * n_done / len(lines)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        rest_s = start_s + 8 * part_s - time.monotonic()
        while rest_s > 0 and card["status"] != "cancelling":
            await asyncio.sleep(min(rest_s, 0.02))
            rest_s = start_s + 8 * part_s - time.monotonic()
        end = "cancelled" if card["status"] == "cancelling" else "completed"
        if end == "completed" and is_expiring:
            end = "expired"
        for line in lines[n_done:]:
            self._lose(line.custom_id)
            failures.append(_line_of(line.custom_id, None, f"batch_{end}"))
        if end == "completed":
            _enter(card, "finalizing")
        await asyncio.sleep(part_s)
        for name, kept in (("output", outputs), ("error", failures)):
            if kept:
                file = self._keep(
                    b"\n".join(kept) + b"\n", f"{card['id']}_{name}.jsonl", "batch_output"
                )
                card[f"{name}_file_id"] = file["id"]
        _enter(card, end)

    def _validate(self, batch: _Batch, content: bytes) -> list[dict[str, Any]]:
        errors: list[dict[str, Any]] = []

        def refuse(code: str, message: str, line: int | None = None) -> None:
            errors.append({"code": code, "message": message, "line": line, "param": None})

        seen: set[str] = set()
        for number, raw in enumerate(content.splitlines(), 1):
            try:
                fields = json.loads(raw)
                custom_id, body = fields["custom_id"], fields["body"]
                is_known = fields["method"] == "POST" and fields["url"] == _ENDPOINT
            except (ValueError, KeyError, TypeError):
                refuse("invalid_json_line", "This line is not a valid request.", number)
                continue
            if not isinstance(custom_id, str) or custom_id in seen:
                refuse("duplicate_custom_id", "The custom_id is missing or repeated.", number)
            if not is_known:
                refuse("mismatched_url", f"The url is not {_ENDPOINT}.", number)
            seen.add(str(custom_id))
            # As our own client writes a request, so that counts by hash cover both ways.
            written = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
            batch.lines.append(_Line(str(custom_id), written))
        if not batch.lines and not errors:
            refuse("empty_file", "The file has no requests.")
        if len(batch.lines) > self._options.max_lines:
            refuse("too_many_tasks", f"The file has more than {self._options.max_lines} requests.")
        others = [one for one in self._batches.values() if one is not batch]
        n_open = sum(len(one.lines) for one in others if one.card["status"] in _OPEN)
        limit = self._options.max_open_lines
        if limit and n_open + len(batch.lines) > limit:
            refuse("token_limit_exceeded", f"Enqueued limit reached: {n_open} of {limit}.")
        return errors[:100]

    def _answer_line(
        self, line: _Line, card: dict[str, Any], outputs: list[bytes], failures: list[bytes]
    ) -> None:
        counts = card["request_counts"]
        lost = self._losses.get(line.custom_id, 0)
        if lost < self._options.most_per_line:
            draws = Draws(f"{self._options.seed}|{lost}|{line.custom_id}".encode(), "line")
            if draws.uniform() < self._options.missing_share:
                self._lose(line.custom_id)
                return
            if draws.uniform() < self._options.line_error_share:
                self._lose(line.custom_id)
                error = WireError(500, "The server had an error.", kind="server_error")
                failures.append(_line_of(line.custom_id, (500, error.body())))
                counts["failed"] += 1
                return
        key = hashlib.sha256(line.body).digest()
        self._counts.arrivals[key] += 1
        try:
            reply = self._answer(line.body)
        except WireError as error:
            failures.append(_line_of(line.custom_id, (error.status, error.body())))
            counts["failed"] += 1
            return
        self._counts.answers[key] += 1
        outputs.append(_line_of(line.custom_id, (200, reply)))
        counts["completed"] += 1

    def _lose(self, custom_id: str) -> None:
        self._losses[custom_id] = self._losses.get(custom_id, 0) + 1


def _line_of(custom_id: str, reply: tuple[int, bytes] | None, code: str = "") -> bytes:
    """Return one line of an output or error file; the reply's bytes go in as they are."""
    name = hashlib.sha256(custom_id.encode()).hexdigest()[:24]
    head = f'{{"id": "batch_req_{name}", "custom_id": {json.dumps(custom_id)}, '.encode()
    if reply is None:
        error = {"code": code, "message": "This request could not be executed in time."}
        return head + b'"response": null, "error": ' + json.dumps(error).encode() + b"}"
    status, body = reply
    response = f'{{"status_code": {status}, "request_id": "req_{name}", "body": '.encode()
    return head + b'"response": ' + response + body + b'}, "error": null}'


def _enter(card: dict[str, Any], status: str) -> None:
    card["status"] = status
    card[f"{status}_at"] = int(time.time())


def _listed(cards: list[dict[str, Any]], request: web.BaseRequest) -> dict[str, Any]:
    """Return one page of a list, newest first."""
    cards = cards[::-1]
    after = request.query.get("after")
    ids = [card["id"] for card in cards]
    start = ids.index(after) + 1 if after in ids else 0
    text = request.query.get("limit", "20")
    limit = min(int(text), 100) if text.isdigit() and int(text) else 20
    page = cards[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(cards),
    }


def _reply(card: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(card).encode(), content_type=_JSON)
