"""The Files and Batches endpoints as the official SDK sees them."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types import Batch

from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.server import reply_body
from tasks._llm.simulator.settings import SimulatorSettings

Serve = Callable[..., openai.OpenAI]


@pytest.fixture
def serve() -> Iterator[Serve]:
    opened: list[Any] = []

    def begin(**options: Any) -> openai.OpenAI:
        batch = {"duration_s": 0.3, **options}
        process = start_simulator(SimulatorSettings.from_mapping({"batch": batch}))
        client = openai.OpenAI(base_url=process.base_url, api_key="x", max_retries=0)
        opened.extend((client.close, process.stop))
        return client

    yield begin
    for close in opened:
        close()


def body_of(number: int, model: str = "simulated-judge") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"hi {number}"}]}


def line(custom_id: str, body: dict[str, Any], url: str = "/v1/chat/completions") -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
    return json.dumps(fields).encode()


def create(client: openai.OpenAI, *lines: bytes) -> Batch:
    file = client.files.create(file=("in.jsonl", b"\n".join(lines)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"name": "mine"},
    )


def wait(client: openai.OpenAI, batch: Batch) -> tuple[Batch, list[str]]:
    seen = [batch.status]
    end_s = time.monotonic() + 30
    while batch.status not in ("completed", "expired", "cancelled", "failed"):
        assert time.monotonic() < end_s
        batch = client.batches.retrieve(batch.id)
        if batch.status != seen[-1]:
            seen.append(batch.status)
    return batch, [str(one) for one in seen]


def content(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    lines = [json.loads(one) for one in client.files.content(file_id).text.splitlines()]
    return {one["custom_id"]: one for one in lines}


def test_a_batch_goes_through_its_states_and_answers_as_single_calls_do(serve: Serve) -> None:
    client = serve()
    bodies = {f"call-{i}": body_of(i) for i in range(40)}
    batch = create(client, *[line(name, body) for name, body in bodies.items()])
    assert batch.metadata == {"name": "mine"}
    batch, seen = wait(client, batch)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    assert batch.error_file_id is None
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (40, 40, 0)
    output = content(client, batch.output_file_id)
    assert list(output) != list(bodies)
    settings = SimulatorSettings()
    for name, body in bodies.items():
        single = reply_body(json.dumps(body).encode(), settings, settings.fingerprint())[1]
        assert output[name]["response"]["status_code"] == 200
        assert output[name]["response"]["body"] == json.loads(single)
        assert output[name]["error"] is None


def test_an_expired_batch_brings_what_it_finished_and_names_the_rest(serve: Serve) -> None:
    client = serve(expire_share=1.0, finished_share=0.25)
    batch, seen = wait(client, create(client, *[line(str(i), body_of(i)) for i in range(40)]))
    assert (seen[-1], batch.status) == ("expired", "expired")
    output, errors = (content(client, one) for one in (batch.output_file_id, batch.error_file_id))
    assert len(output) == 10
    assert set(output) | set(errors) == {str(i) for i in range(40)}
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}
    assert {one["response"] for one in errors.values()} == {None}


def test_failed_lines_are_in_the_error_file_and_missing_ones_in_neither(serve: Serve) -> None:
    client = serve(line_error_share=0.3, missing_share=0.3)
    lines = [line(str(i), body_of(i)) for i in range(60)]
    batch, _ = wait(client, create(client, *lines, line("bad", body_of(0, "gpt-4o"))))
    output, errors = (content(client, one) for one in (batch.output_file_id, batch.error_file_id))
    assert batch.status == "completed"
    assert not set(output) & set(errors)
    assert 0 < 61 - len(output) - len(errors) < 40
    codes = {name: one["response"]["status_code"] for name, one in errors.items()}
    assert codes.pop("bad") == 404
    assert set(codes.values()) == {500}


def test_a_cancelled_batch_keeps_what_is_done(serve: Serve) -> None:
    client = serve(duration_s=20)
    batch = create(client, *[line(str(i), body_of(i)) for i in range(10)])
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.retrieve(batch.id).status == "cancelling"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"{"], "invalid_json_line"),
        ([b"[1]"], "invalid_json_line"),
        ([line("a", body_of(1)), line("a", body_of(2))], "duplicate_custom_id"),
        ([line("a", body_of(1), "/v1/embeddings")], "mismatched_url"),
        ([b""], "empty_file"),
        ([line(str(i), body_of(i)) for i in range(6)], "too_many_tasks"),
    ],
)
def test_a_file_that_is_no_batch_fails_as_a_whole(
    serve: Serve, lines: list[bytes], code: str
) -> None:
    client = serve(max_lines=5)
    batch, seen = wait(client, create(client, *lines))
    assert seen == ["validating", "failed"]
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == code
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_what_is_not_there_is_not_found(serve: Serve) -> None:
    client = serve()
    for ask in (client.files.content, client.files.retrieve, client.batches.retrieve):
        with pytest.raises(openai.NotFoundError):
            ask("nowhere")
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("x", b"x"), purpose="fine-tune")
    file = client.files.create(file=("x", b"x"), purpose="batch")
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_come_in_pages_newest_first(serve: Serve) -> None:
    client = serve()
    made = [create(client, line("a", body_of(i))).id for i in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    assert len(client.batches.list(limit=2).data) == 2


def test_a_large_upload_arrives_whole(serve: Serve) -> None:
    client = serve()
    data = b"x" * 5_000_000
    file = client.files.create(file=("large.jsonl", data), purpose="batch")
    assert file.bytes == len(data)
    assert client.files.content(file.id).content == data
