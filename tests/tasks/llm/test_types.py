import pickle
from typing import Any

import pytest

from tasks._llm.errors import RequestInvalid, clean_line
from tasks._llm.types import CallRequest, Endpoint, EngineSettings, Secret
from tests.tasks.llm.fake_server import ask


def test_request_key_is_the_golden_one() -> None:
    # A changed value here means that every ledger in the world is bought again.
    request = CallRequest(
        "sim-1",
        "simulated-judge",
        [{"role": "user", "content": "Which is better? é"}],
        {"temperature": 0.0, "max_tokens": 16},
        repeat=2,
    )
    assert request.identity() == (
        b'{"endpoint":"chat.completions:sim-1",'
        b'"messages":[{"content":"Which is better? \\u00e9","role":"user"}],'
        b'"model":"simulated-judge","repeat":2,"sampling":{"max_tokens":16,"temperature":0}}'
    )
    assert request.key == "e89590481ebd980503824ef8ad41e0e10407e8205668281db93cb112962490a6"


def test_request_key_ignores_the_order_of_names() -> None:
    one = ask("x", sampling={"temperature": 0.5, "seed": 3, "logit_bias": {"1": 2, "2": 3}})
    two = ask("x", sampling={"logit_bias": {"2": 3, "1": 2}, "seed": 3, "temperature": 0.5})
    reordered = ask("x", messages=[dict(reversed(list(m.items()))) for m in ask("x").messages])
    assert one.key == two.key
    assert reordered.key == ask("x").key


def test_whole_float_and_integer_are_one_request() -> None:
    one, two = ask("x", sampling={"temperature": 1}), ask("x", sampling={"temperature": 1.0})
    assert one.key == two.key
    assert one.body() == two.body()
    assert one.key != ask("x", sampling={"temperature": True}).key


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint_name": "other"},
        {"model": "gpt-4o"},
        {"messages": [{"role": "system", "content": "You judge!"}, *ask("x").messages[1:]]},
        {"messages": list(reversed(ask("x").messages))},
        {"messages": [{"role": "user", "content": "x"}]},
        {"sampling": {"temperature": 0.1, "max_tokens": 16}},
        {"sampling": {"temperature": 0, "max_tokens": 17}},
        {"sampling": {"temperature": 0, "max_tokens": 16, "seed": 1}},
        {"sampling": {"temperature": 0, "max_tokens": 16, "logprobs": True}},
        {"sampling": {}},
        {"repeat": 1},
    ],
)
def test_everything_that_can_change_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert ask("x", **change).key != ask("x").key


def test_a_request_has_no_field_that_cannot_change_the_answer() -> None:
    fields = set(CallRequest.__dataclass_fields__)
    assert fields == {"endpoint_name", "model", "messages", "sampling", "repeat"}


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"model": ""},
        {"repeat": -1},
        {"sampling": {"stream": True}},
        {"sampling": {"n": 2}},
        {"sampling": {"model": "x"}},
    ],
)
def test_unsendable_requests_are_refused_when_made(change: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        ask("x", **change)


@pytest.mark.parametrize(
    "sampling", [{"temperature": float("nan")}, {"x": object()}, {"x": {1: 2}}, {"x": {1, 2}}]
)
def test_values_without_json_form_are_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid) as caught:
        _ = ask("x", sampling=sampling).key
    assert "\n" not in str(caught.value)


def test_a_lone_surrogate_can_be_sent() -> None:
    assert b"\\ud800" in ask("\ud800").body()


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("sk-planted-0123456789")
    endpoint = Endpoint("e", "http://127.0.0.1:80/v1", secret)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", repr(endpoint)]
    assert not any("planted" in text or "hidden" in text for text in shown)
    assert endpoint.shown_url == "http://127.0.0.1:80/v1"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(endpoint)
    assert secret.scrub("bad key sk-planted-0123456789!") == "bad key [secret]!"


@pytest.mark.parametrize(
    "url", ["http://user:hidden@127.0.0.1:80/v1", "http://x/v1?token=hidden", "http://:hidden@x/v1"]
)
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(RequestInvalid, match="OPENAI_API_KEY") as caught:
        Endpoint("e", url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x/v1", "http://", "http://x:99999/"])
def test_unusable_base_urls_are_refused(url: str) -> None:
    with pytest.raises(RequestInvalid):
        Endpoint("e", url)


@pytest.mark.parametrize(
    "setting",
    [{"max_in_flight": 0}, {"timeout_s": -1.0}, {"timeout_s": float("nan")}, {"max_calls": -1}],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match=next(iter(setting))):
        EngineSettings(**setting)


def test_text_from_outside_becomes_one_harmless_line() -> None:
    hostile = "a\x1b[31mred\r\n\tb\u202ec\x00d" + "e" * 10_000_000
    line = clean_line(hostile, 60)
    assert line.startswith("a[31mred bcde")
    assert len(line) == 60
    assert line.isprintable()
