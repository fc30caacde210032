"""The endpoint as a client sees it: the official SDK, and errors as the real service words them."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tasks._llm.simulator import server, wire
from tasks._llm.simulator.judge import judge_truth
from tasks._llm.simulator.process import SimulatorProcess
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings

Ask = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def client(
    simulator: SimulatorProcess, served_settings: SimulatorSettings
) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=simulator.base_url, api_key=served_settings.api_key, max_retries=0
    ) as one:
        yield one


@pytest.fixture
def verdict_messages(ask_verdict: Ask) -> list[Any]:
    return ask_verdict("likes polite answers", "Hi", "Thank you.", "Thanks, please, kindly.")


def test_the_sdk_reads_an_answer(
    client: openai.OpenAI, ask_answer: Ask, served_settings: SimulatorSettings
) -> None:
    messages = ask_answer("Why is the sky blue over the sea?", "polite")
    reply = client.chat.completions.create(model="simulated-responder", messages=messages)
    choice = reply.choices[0]
    assert choice.message.content == respond(messages, served_settings)
    assert choice.message.role == "assistant"
    assert (choice.finish_reason, choice.logprobs, choice.message.refusal) == ("stop", None, None)
    assert (reply.object, reply.model) == ("chat.completion", "simulated-responder")
    assert reply.system_fingerprint == f"fp_{served_settings.fingerprint()}"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 0


def test_the_server_sends_the_judges_true_reply(
    client: openai.OpenAI, verdict_messages: list[Any], served_settings: SimulatorSettings
) -> None:
    reply = client.chat.completions.create(
        model="simulated-judge", messages=verdict_messages, temperature=0, n=5
    )
    assert [choice.message.content for choice in reply.choices] == [
        judge_truth(verdict_messages, served_settings, choice=index).reply for index in range(5)
    ]


def test_logprobs_tell_the_true_probabilities(
    client: openai.OpenAI, verdict_messages: list[Any], served_settings: SimulatorSettings
) -> None:
    truth = judge_truth(verdict_messages, served_settings)
    reply = client.chat.completions.create(
        model="simulated-judge", messages=verdict_messages, logprobs=True, top_logprobs=5
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == truth.reply
    (verdict,) = [token for token in logprobs.content if token.token in ("1", "2")]
    told = {token.token: math.exp(token.logprob) for token in verdict.top_logprobs}
    assert told == pytest.approx({"1": truth.p_first, "2": 1.0 - truth.p_first})
    assert math.exp(verdict.logprob) == pytest.approx(told[verdict.token])


def test_max_tokens_cuts_the_reply(client: openai.OpenAI, ask_answer: Ask) -> None:
    messages = ask_answer("Why is the sky blue over the sea?")
    whole = client.chat.completions.create(model="simulated-responder", messages=messages)
    cut = client.chat.completions.create(
        model="simulated-responder", messages=messages, max_tokens=7
    )
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 7
    assert (whole.choices[0].message.content or "").startswith(cut.choices[0].message.content or "")


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [
        "simulated-responder",
        "simulated-judge",
        "simulated-judge-b",
    ]
    assert client.models.retrieve("simulated-judge").owned_by == "simulation"


def test_rate_headers_are_sent(client: openai.OpenAI, verdict_messages: list[Any]) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="simulated-judge", messages=verdict_messages
    )
    for kind in ("requests", "tokens"):
        for figure in ("limit", "remaining", "reset"):
            assert raw.headers[f"x-ratelimit-{figure}-{kind}"]
    assert raw.headers["x-request-id"]


def test_a_wrong_key_is_rejected(simulator: SimulatorProcess, verdict_messages: list[Any]) -> None:
    with (
        openai.OpenAI(base_url=simulator.base_url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.chat.completions.create(model="simulated-judge", messages=verdict_messages)
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client: openai.OpenAI, verdict_messages: list[Any]) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=verdict_messages)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        ({"model": "simulated-judge"}, "messages"),
        ({"model": "simulated-judge", "messages": []}, "messages"),
        ({"model": "simulated-judge", "messages": ["hi"]}, "messages[0]"),
        ({"model": "simulated-judge", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "simulated-judge", "messages": MESSAGES, "n": 0}, "n"),
        ({"model": "simulated-judge", "messages": MESSAGES, "n": True}, "n"),
        ({"model": "simulated-judge", "messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ({"model": "simulated-judge", "messages": MESSAGES, "seed": "x"}, "seed"),
        ({"model": "simulated-judge", "messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
        ({"model": "simulated-judge", "messages": MESSAGES, "logprobs": 1}, "logprobs"),
        ({"model": "simulated-judge", "messages": MESSAGES, "stream": True}, "stream"),
        ({"model": "simulated-judge", "messages": MESSAGES, "tools": [{}]}, "tools"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.parse_chat_request(json.dumps(fields).encode())
    assert (caught.value.status, caught.value.param) == (400, param)
    assert set(json.loads(caught.value.body())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1]", b"1" * 5000, b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.parse_chat_request(body)
    assert caught.value.status == 400


def test_an_unknown_url_is_not_found_in_json(
    simulator: SimulatorProcess, served_settings: SimulatorSettings
) -> None:
    request = urllib.request.Request(
        f"{simulator.base_url}/embeddings",
        headers={"Authorization": f"Bearer {served_settings.api_key}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(request)
    assert caught.value.code == 404
    assert json.loads(caught.value.read())["error"]["type"] == "invalid_request_error"
    caught.value.close()


def test_how_a_reply_is_shown_does_not_change_it(verdict_messages: list[Any]) -> None:
    settings = SimulatorSettings()
    fields = {"model": "simulated-judge", "messages": verdict_messages}
    shown = [{}, {"temperature": 0}, {"logprobs": True}, {"max_tokens": 50}, {"user": "x"}]
    replies = [
        server.reply_body(json.dumps({**fields, **more}).encode(), settings, "f")[1]
        for more in shown
    ]
    texts = {json.loads(reply)["choices"][0]["message"]["content"] for reply in replies}
    assert len(texts) == 1


@pytest.mark.parametrize(
    "text", ["", " a  b\n\n c_d 12½ ²x 你好!\t", "VERDICT: [1]\u2028.", "\ud800"]
)
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(wire.pieces_of(text)) == text


def test_text_parts_of_a_message_are_read(verdict_messages: list[Any]) -> None:
    parts = [
        {**one, "content": [{"type": "text", "text": one["content"]}]} for one in verdict_messages
    ]
    settings = SimulatorSettings()
    assert judge_truth(parts, settings) == judge_truth(verdict_messages, settings)
