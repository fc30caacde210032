import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tasks._llm.errors import EndpointUnreachable
from tasks._llm.orders import Order
from tasks._llm.patience import Patience
from tasks._llm.retry import RULES, Fault, FaultKind, backoff_s, stated_pause_s
from tasks._llm.types import Endpoint, EngineSettings
from tests.tasks.llm.fake_server import ask


def test_every_fault_has_its_row() -> None:
    assert set(RULES) == set(FaultKind)
    assert all(rule.remedy for rule in RULES.values())


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "300"}, 300.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "2s"}, 2.0),
        ({"x-ratelimit-reset-requests": "6m0.5s"}, 360.5),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "1h2m3s"}, 3723.0),
        ({"x-ratelimit-reset": "7"}, 7.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "7",
                "x-ratelimit-reset-tokens": "9s",
                "x-ratelimit-remaining-tokens": "0",
            },
            9.0,
        ),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "9s"}, 1.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_pauses_are_read_under_their_several_names(
    headers: dict[str, str], pause_s: float | None
) -> None:
    assert stated_pause_s(headers) == pause_s


def test_dates_and_epochs_are_read_as_pauses() -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    for text in (
        format_datetime(then, usegmt=True),
        then.isoformat(),
        str(int(time.time() + 60)),
        str(int((time.time() + 60) * 1000)),
    ):
        pause_s = stated_pause_s({"retry-after": text})
        assert pause_s is not None
        assert 55 < pause_s <= 60
    assert stated_pause_s({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0


def test_backoff_doubles_up_to_its_cap_and_never_undercuts_the_server() -> None:
    settings = EngineSettings(backoff_s=1.0, backoff_cap_s=8.0)
    key = ask("x").key
    plain = Fault(FaultKind.SERVER_ERROR, "")
    for sends, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (500, 8)):
        assert longest / 2 <= backoff_s(key, sends, plain, settings) <= longest
    asked = Fault(FaultKind.RATE_LIMITED, "", 429, retry_after_s=120.0)
    assert backoff_s(key, 1, asked, settings) >= 120.0


def test_jitter_spreads_calls_and_repeats_between_runs() -> None:
    settings = EngineSettings(backoff_s=1.0)
    fault = Fault(FaultKind.SERVER_ERROR, "")
    pauses = [backoff_s(ask(str(i)).key, 1, fault, settings) for i in range(50)]
    assert pauses == [backoff_s(ask(str(i)).key, 1, fault, settings) for i in range(50)]
    assert len({round(pause_s, 3) for pause_s in pauses}) > 40


@pytest.mark.parametrize("kind", [FaultKind.UNREACHABLE, FaultKind.NAME_UNKNOWN])
def test_an_endpoint_that_was_there_is_waited_for_and_a_new_one_is_not(kind: FaultKind) -> None:
    fault = Fault(kind, "gone")
    endpoint = Endpoint("e", "http://127.0.0.1:9/v1")
    known = Patience(EngineSettings(unreachable_patience_s=60.0), endpoint)
    for begin_s in (1000.0, 5000.0):
        known.heard()
        for now_s in (begin_s, begin_s + 30.0, begin_s + 59.0):
            assert known.pause_s(Order(ask("x"), sends=1), fault, now_s) > 0
    with pytest.raises(EndpointUnreachable, match=kind):
        known.pause_s(Order(ask("x"), sends=1), fault, 5061.0)
    unknown = Patience(EngineSettings(unreachable_patience_s=60.0), endpoint)
    unknown.pause_s(Order(ask("x"), sends=1), fault, 1000.0)
    with pytest.raises(EndpointUnreachable):
        unknown.pause_s(Order(ask("x"), sends=2), fault, 1004.0)
