"""Faults on purpose: each looks as it should, at the stated rate, and ends in an answer."""

import asyncio
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks._llm.client import ChatClient, HttpReply
from tasks._llm.errors import QuotaExhausted
from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import Fault, FaultKind
from tasks._llm.simulator.errors import SettingsInvalid
from tasks._llm.simulator.faults import fault_of
from tasks._llm.simulator.limits import RateLimit
from tasks._llm.simulator.options import FAULTS, FaultOptions
from tasks._llm.simulator.process import SimulatorProcess, start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallRequest, Endpoint, EngineSettings

START = Callable[..., SimulatorProcess]


@pytest.fixture
def start() -> Iterator[START]:
    started: list[SimulatorProcess] = []

    def begin(**settings: Any) -> SimulatorProcess:
        started.append(start_simulator(SimulatorSettings.from_mapping(settings)))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


def ask(text: str = "x") -> CallRequest:
    return CallRequest("simulated", "simulated-judge", [{"role": "user", "content": text}])


def send(process: SimulatorProcess, *bodies: bytes, timeout_s: float = 5.0) -> list[Any]:
    """What the engine's own client makes of it, one after the other."""

    async def run() -> list[HttpReply | Fault]:
        settings = EngineSettings(timeout_s=timeout_s)
        client = ChatClient(Endpoint("simulated", process.base_url), settings)
        try:
            return [await client.send(body) for body in bodies]
        finally:
            await client.close()

    return list(asyncio.run(run()))


def served(process: SimulatorProcess) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{process.port}/simulator/served") as reply:
        counts: dict[str, Any] = json.loads(reply.read())
        return counts


@pytest.mark.parametrize(
    ("fault", "kind", "pause_s"),
    [
        ("rate_limited_s", FaultKind.RATE_LIMITED, 2.0),
        ("rate_limited_ms", FaultKind.RATE_LIMITED, 2.0),
        ("rate_limited_bare", FaultKind.RATE_LIMITED, None),
        ("quota", FaultKind.QUOTA, None),
        ("status_500", FaultKind.SERVER_ERROR, None),
        ("status_502", FaultKind.SERVER_ERROR, None),
        ("status_503", FaultKind.SERVER_ERROR, None),
        ("reset", FaultKind.CONNECTION_LOST, None),
        ("hang", FaultKind.TIMEOUT, None),
        ("slow_body", FaultKind.TIMEOUT, None),
        ("truncated_json", FaultKind.NOT_JSON, None),
        ("cut_body", FaultKind.CONNECTION_LOST, None),
        ("html", FaultKind.NOT_JSON, None),
        ("garbage", FaultKind.NOT_JSON, None),
        ("no_choices", FaultKind.NO_CHOICES, None),
        ("no_usage", None, None),
        ("huge", None, None),
        ("bad_utf8", None, None),
    ],
)
def test_each_fault_is_what_it_says_and_the_retry_gets_the_answer(
    start: START, fault: str, kind: FaultKind | None, pause_s: float | None
) -> None:
    options = {fault: 1.0, "most_per_request": 1, "retry_after_s": 2, "hang_s": 2}
    process = start(faults={**options, "huge_bytes": 5_000_000})
    body = ask().body()
    first, second = send(process, body, body, timeout_s=0.6)
    read = first if isinstance(first, Fault) else read_reply(*first[::2], first.headers)
    [right] = [read_reply(second.status, second.body)]
    assert isinstance(right, Answer)
    if kind is None:
        assert isinstance(read, Answer)
        assert read.text == right.text
        assert (read.prompt_tokens is None) == (fault == "no_usage")
        assert (len(first.body) > 5_000_000) == (fault == "huge")
    else:
        assert isinstance(read, Fault)
        assert (read.kind, read.retry_after_s) == (kind, pause_s)
    counts = served(process)
    assert counts["faults"] == {fault: 1}
    # The model does the work before a body is spoiled on its way, and the work is billed.
    is_early = fault.startswith(("rate", "quota", "status")) or fault in ("reset", "html")
    name = hashlib.sha256(body).hexdigest()
    assert counts["calls"] == {name: [2, 1 if is_early else 2]}


def test_faults_come_at_their_rates_and_repeat_with_the_seed() -> None:
    options = FaultOptions(seed=3, reset=0.1, html=0.1)
    keys = [hashlib.sha256(str(i).encode()).digest() for i in range(4000)]
    drawn = [fault_of(options, key, 1) for key in keys]
    assert drawn == [fault_of(options, key, 1) for key in keys]
    assert 300 < drawn.count("reset") < 500
    assert 300 < drawn.count("html") < 500
    assert drawn != [fault_of(FaultOptions(seed=4, reset=0.1, html=0.1), key, 1) for key in keys]


def test_no_request_meets_more_faults_than_allowed() -> None:
    options = FaultOptions(status_500=1.0, most_per_request=3)
    key = hashlib.sha256(b"x").digest()
    assert [fault_of(options, key, n) is None for n in range(1, 6)] == [False] * 3 + [True] * 2


def test_faults_change_no_fingerprint_and_no_answer(start: START) -> None:
    plain = SimulatorSettings()
    faulty = SimulatorSettings.from_mapping(
        {"faults": {"reset": 0.5}, "requests_per_s": 5, "batch": {"expire_share": 1}}
    )
    assert faulty.fingerprint() == plain.fingerprint()
    quirky = SimulatorSettings.from_mapping({"quirks": {"ignores": ["seed"]}})
    assert quirky.fingerprint() != plain.fingerprint()
    assert SimulatorSettings.from_json(faulty.to_json()) == faulty
    bodies = [ask(str(i)).body() for i in range(5)]
    straight = [reply.body for reply in send(start(), *bodies)]
    counted = [reply.body for reply in send(start(is_counting=True), *bodies)]
    assert straight == counted


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"faults": {"reset": 1.5}}, "faults.reset"),
        ({"faults": {"reset": 0.6, "html": 0.6}}, "faults"),
        ({"faults": {"tornado": 0.1}}, "faults.tornado"),
        ({"faults": 3}, "faults"),
        ({"faults": {"seed": 0.5}}, "faults.seed"),
        ({"batch": {"expire_share": -1}}, "batch.expire_share"),
        ({"batch": {"max_lines": 0}}, "batch.max_lines"),
        ({"quirks": {"ignores": ["the law"]}}, "quirks.ignores"),
        ({"quirks": {"has_json_mode": 1}}, "quirks.has_json_mode"),
        ({"requests_per_s": -1}, "requests_per_s"),
        ({"burst_requests": 1.5}, "burst_requests"),
        ({"is_counting": "yes"}, "is_counting"),
    ],
)
def test_an_option_that_is_not_allowed_gives_one_line(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsInvalid, match="expected") as caught:
        SimulatorSettings.from_mapping(values)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_fault_has_a_field_and_a_line_in_the_docstring() -> None:
    text = FaultOptions.__doc__ or ""
    for name in FAULTS:
        assert hasattr(FaultOptions(), name)
        assert f"        {name}: " in text


def test_a_bucket_lets_its_rate_through_and_says_when_to_come_again() -> None:
    limit = RateLimit(10.0, burst=5, now_s=0.0)
    passed = sum(limit.take(0.001 * k) for k in range(10_001))
    assert passed in (104, 105)
    while limit.take(10.0):
        pass
    headers = limit.headers(is_refused=True)
    assert headers["x-ratelimit-limit-requests"] == "600"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    wait_s = int(headers["retry-after-ms"]) / 1000
    assert not limit.take(10.0 + wait_s - 0.01)
    assert limit.take(10.0 + wait_s + 0.001)


def test_requests_above_the_rate_are_refused_with_headers(start: START) -> None:
    process = start(requests_per_s=1, burst_requests=3, is_counting=True)
    replies = send(process, *[ask(str(i)).body() for i in range(5)])
    assert [reply.status for reply in replies] == [200] * 3 + [429] * 2
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies[:3]] == list("210")
    fault = read_reply(429, replies[4].body, replies[4].headers)
    assert isinstance(fault, Fault)
    assert fault.kind is FaultKind.RATE_LIMITED
    assert fault.retry_after_s is not None
    assert 0 < fault.retry_after_s <= 1
    assert (served(process)["requests"], served(process)["rate_limited"]) == (3, 2)


def test_an_exhausted_quota_has_an_error_of_its_own() -> None:
    from tasks._llm.retry import RULES

    assert RULES[FaultKind.QUOTA].error is QuotaExhausted


def test_what_is_ignored_is_ignored(start: START) -> None:
    process = start(
        quirks={
            "ignores": ["logprobs", "n", "usage", "rate_headers", "batch", "models"],
            "has_json_mode": True,
        }
    )
    fields = {"model": "simulated-judge", "messages": [{"role": "user", "content": "hi"}]}
    schema = {"properties": {"color": {"enum": ["red", "blue"]}}}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = json.dumps({**fields, "n": 3, "logprobs": True, "response_format": wanted}).encode()
    [reply] = send(process, body)
    data = json.loads(reply.body)
    assert len(data["choices"]) == 1
    assert data["choices"][0]["logprobs"] is None
    assert json.loads(data["choices"][0]["message"]["content"]) == {"color": "red"}
    assert "usage" not in data
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]
    for path in ("models", "batches", "files"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                f"{process.base_url}/{path}"
            )
        assert caught.value.code == 404
        caught.value.close()


def test_an_endpoint_without_repeatability_varies_its_answers(start: START) -> None:
    fields = {
        "model": "simulated-responder",
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "temperature": 0,
    }
    replies = send(start(quirks={"ignores": ["temperature"]}), *[json.dumps(fields).encode()] * 4)
    texts = {json.loads(reply.body)["choices"][0]["message"]["content"] for reply in replies}
    assert len(texts) > 1
