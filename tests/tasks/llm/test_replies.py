import json
from typing import Any

import pytest

from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import Fault, FaultKind
from tests.tasks.llm.fake_server import completion, error_body


def answer(body: bytes, status: int = 200) -> Answer:
    read = read_reply(status, body)
    assert isinstance(read, Answer), read
    return read


def test_text_finish_reason_and_usage_are_read() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    assert answer(completion("hi", usage=usage)) == Answer("hi", None, "stop", 7, 3, 5)


@pytest.mark.parametrize(
    "usage", [None, {}, [], "x", {"prompt_tokens": -1, "completion_tokens": True}, {"x": 2**70}]
)
def test_missing_or_senseless_usage_is_none_and_never_invented(usage: Any) -> None:
    assert answer(completion("hi", usage=usage))[3:] == (None, None, None)


def test_a_refusal_is_kept_apart_from_the_text() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I will not."}
    read = answer(completion(choices=[{"message": message, "finish_reason": "stop"}]))
    assert (read.text, read.refusal) == (None, "I will not.")


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "VERDICT"}, {"type": "x"}, {"type": "text", "text": ": 1"}]
    read = answer(completion(choices=[{"message": {"content": parts}}]))
    assert read.text == "VERDICT: 1"


@pytest.mark.parametrize(
    "body",
    [
        error_body("filtered", code="content_filter"),
        error_body("filtered", kind="content_policy_violation"),
        json.dumps(
            {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}
        ).encode(),
    ],
)
def test_a_content_filter_is_an_answer_without_text(body: bytes) -> None:
    assert answer(body, 400) == Answer(None, None, "content_filter", None, None, None)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, completion()[:-9], FaultKind.NOT_JSON),
        (200, b"", FaultKind.NOT_JSON),
        (200, b"<!DOCTYPE html><h1>Sign in</h1>", FaultKind.NOT_JSON),
        (200, b"[1]", FaultKind.NOT_JSON),
        (200, b"[" * 200_000, FaultKind.NOT_JSON),
        (200, completion(choices=[]), FaultKind.NO_CHOICES),
        (200, completion(choices=None), FaultKind.NO_CHOICES),
        (200, completion(choices=["x"]), FaultKind.NO_CHOICES),
        (200, completion(choices=[{"message": None}]), FaultKind.NO_CHOICES),
        (200, error_body("upstream is down"), FaultKind.NO_CHOICES),
        (204, b"", FaultKind.NOT_JSON),
        (302, b"", FaultKind.REDIRECTED),
        (400, error_body("too long", code="context_length_exceeded"), FaultKind.REFUSED),
        (400, error_body("no such model", code="model_not_found"), FaultKind.MODEL_UNKNOWN),
        (401, error_body("bad key", code="invalid_api_key"), FaultKind.KEY_REJECTED),
        (402, error_body("pay"), FaultKind.QUOTA),
        (403, error_body("not in your country"), FaultKind.KEY_REJECTED),
        (404, error_body("The model `x` does not exist"), FaultKind.MODEL_UNKNOWN),
        (404, b"404 page not found", FaultKind.PATH_UNKNOWN),
        (404, b"<h1>no model here</h1>", FaultKind.PATH_UNKNOWN),
        (408, b"", FaultKind.SERVER_ERROR),
        (413, b"", FaultKind.REFUSED),
        (422, b'{"detail": "bad field"}', FaultKind.REFUSED),
        (429, error_body("slow down", code="rate_limit_exceeded"), FaultKind.RATE_LIMITED),
        (429, b"", FaultKind.RATE_LIMITED),
        (429, error_body("no credit", code="insufficient_quota"), FaultKind.QUOTA),
        (429, error_body("no credit", kind="insufficient_quota"), FaultKind.QUOTA),
        (500, b"oops", FaultKind.SERVER_ERROR),
        (503, b"<h1>busy</h1>", FaultKind.SERVER_ERROR),
        (529, b"{}", FaultKind.SERVER_ERROR),
    ],
)
def test_faults_are_told_apart(status: int, body: bytes, kind: FaultKind) -> None:
    read = read_reply(status, body)
    assert isinstance(read, Fault)
    assert read.kind is kind


def test_hostile_bytes_are_data() -> None:
    broken = completion("caf").replace(b"caf", b"caf\xff\x1b[31m\x00")
    assert answer(broken).text == "caf\ufffd\x1b[31m\x00"
    assert answer(completion("\ud800x")).text == "?x"
    huge = "y" * 5_000_000
    assert answer(completion(huge)).text == huge
