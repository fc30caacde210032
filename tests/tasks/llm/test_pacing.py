"""The pacer against simulated servers, on a clock of the test's own."""

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from random import Random

import pytest

from tasks._llm.pacing import Pacer
from tasks._llm.simulator.limits import RateLimit
from tasks._llm.types import EngineSettings

Limit = Callable[[float], bool]
_START_S = 4096.0


def simulate_bucket(bucket: RateLimit, seconds: float) -> tuple[list[float], list[float]]:
    """As `simulate`, against the simulator's own bucket and the headers that it sends."""
    stated: dict[float, dict[str, str]] = {}

    def admit(now_s: float) -> bool:
        is_good = bucket.take(now_s)
        headers = bucket.headers(is_refused=not is_good)
        stated[now_s] = {name.lower(): value for name, value in headers.items()}
        return is_good

    return simulate(admit, seconds, headers=stated)


def window(per_window: int, window_s: float) -> Limit:
    recent: deque[float] = deque()

    def admit(now_s: float) -> bool:
        while recent and now_s - recent[0] >= window_s:
            recent.popleft()
        if len(recent) >= per_window:
            return False
        recent.append(now_s)
        return True

    return admit


def fixed_window(per_window: int, window_s: float) -> Limit:
    counts: dict[int, int] = {}

    def admit(now_s: float) -> bool:
        at = int(now_s / window_s)
        counts[at] = counts.get(at, 0) + 1
        return counts[at] <= per_window

    return admit


def bucket(per_s: float, size: float) -> Limit:
    state = [size, 0.0]

    def admit(now_s: float) -> bool:
        state[0] = min(state[0] + (now_s - state[1]) * per_s, size)
        state[1] = now_s
        if state[0] < 1:
            return False
        state[0] -= 1
        return True

    return admit


def simulate(
    admit: Limit,
    seconds: float,
    *,
    latency_s: float = 0.1,
    pause_s: float | None = None,
    headers: Mapping[float, Mapping[str, str]] | None = None,
) -> tuple[list[float], list[float]]:
    """Times of accepted and of refused sends, with 64 in flight and work without end."""
    pacer = Pacer(EngineSettings())
    accepted: list[float] = []
    refused: list[float] = []
    flying: list[tuple[float, float, bool]] = []
    # The clock of an event loop does not begin with the run.
    now_s = _START_S
    while now_s < _START_S + seconds:
        while len(flying) < 64 and pacer.wait_s(now_s) <= 0:
            pacer.took(now_s, 100)
            is_good = admit(now_s)
            (accepted if is_good else refused).append(now_s - _START_S)
            heapq.heappush(flying, (now_s + (latency_s if is_good else 0.02), now_s, is_good))
        step_s = max(pacer.wait_s(now_s), 0.001) if len(flying) < 64 else 1.0
        next_s = now_s + step_s
        if flying and flying[0][0] <= next_s:
            back_s, sent_s, is_good = heapq.heappop(flying)
            now_s = back_s
            if headers is not None:
                pacer.learn(headers[sent_s])
            if is_good:
                pacer.accepted(sent_s, now_s)
            else:
                pacer.refused(sent_s, now_s, pause_s)
        else:
            now_s = next_s
    return accepted, refused


@pytest.mark.parametrize(
    ("limit", "per_s"),
    [
        (lambda: window(50, 1.0), 50),
        (lambda: window(200, 1.0), 200),
        (lambda: fixed_window(100, 1.0), 100),
        (lambda: bucket(100, 100), 100),
        (lambda: bucket(20, 20), 20),
        (lambda: window(5, 1.0), 5),
    ],
    ids=["window 50", "window 200", "fixed 100", "bucket 100", "bucket 20", "window 5"],
)
@pytest.mark.parametrize("pause_s", [None, 1.0])
def test_goodput_stays_near_the_limit_and_few_are_refused(
    limit: Callable[[], Limit], per_s: float, pause_s: float | None
) -> None:
    accepted, refused = simulate(limit(), 120.0, pause_s=pause_s)
    assert len(accepted) >= 0.9 * per_s * 120
    # A limit that nobody states has to be met to be known: at 5 a second that weighs.
    met = 3 if per_s == 5 else 0
    assert len(refused) - met < 0.02 * (len(accepted) + len(refused))
    # No sawtooth: no ten seconds in which much is lost.
    for start in range(10, 110, 10):
        inside = sum(1 for at in accepted if start <= at < start + 10)
        assert inside >= 0.75 * per_s * 10, start


def test_a_run_that_was_idle_is_not_paced_by_its_idle_time() -> None:
    admit = window(100, 1.0)
    pacer = Pacer(EngineSettings())
    accepted = 0
    for begin_s, seconds in ((10.0, 0.1), (3610.0, 30.0)):
        now_s = begin_s
        while now_s < begin_s + seconds:
            while pacer.wait_s(now_s) <= 0:
                pacer.took(now_s, 100)
                if admit(now_s):
                    accepted += 1
                    pacer.accepted(now_s, now_s + 0.001)
                else:
                    pacer.refused(now_s, now_s + 0.001, None)
            now_s += 0.002
    assert accepted >= 0.8 * 100 * 30


def test_a_limit_a_minute_is_found_and_kept() -> None:
    accepted, refused = simulate(window(600, 60.0), 900.0)
    assert len(accepted) >= 0.8 * 600 * 15
    assert len(refused) <= 0.02 * (len(accepted) + len(refused))


def test_without_a_limit_nothing_is_held_back_after_the_ramp() -> None:
    accepted, refused = simulate(lambda now_s: True, 2.0, latency_s=0.05)
    assert refused == []
    assert len(accepted) >= 0.8 * 64 / 0.05 * 2.0


def test_stated_limits_are_kept() -> None:
    for settings, cost in (
        (EngineSettings(requests_per_min=600), 1),
        (EngineSettings(tokens_per_min=60_000), 100),
    ):
        pacer = Pacer(settings)
        now_s, sent = 0.0, 0
        while now_s < 60:
            wait_s = pacer.wait_s(now_s)
            if wait_s <= 0:
                pacer.took(now_s, cost if cost > 1 else 5)
                sent += 1
            else:
                now_s += wait_s
        assert 570 <= sent <= 605


@pytest.mark.parametrize("value", ["0", "-5", "nan", "1e9", "", "unlimited", "9" * 40])
def test_limits_in_headers_that_make_no_sense_are_passed_over(value: str) -> None:
    pacer = Pacer(EngineSettings())
    pacer.learn({"x-ratelimit-limit-tokens": value})
    assert pacer.wait_s(0.0) == 0.0
    pacer.took(0.0, 10**9)
    assert pacer.wait_s(1.0) == 0.0


def test_a_token_limit_in_headers_is_kept() -> None:
    pacer = Pacer(EngineSettings())
    pacer.learn({"x-ratelimit-limit-tokens": "60000"})
    pacer.took(0.0, 5000)
    assert pacer.wait_s(1.0) == pytest.approx(5000 / 970 - 1.0, abs=0.2)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("latency_s", [0.1, 0.5])
def test_refusals_at_random_do_not_slow_a_run_down(share: float, latency_s: float) -> None:
    draws = Random(7)
    accepted, refused = simulate(lambda now_s: draws.random() >= share, 60.0, latency_s=latency_s)
    # 64 in flight are so many a second at most; from a bad start, a third is far from a collapse.
    assert len(accepted) >= 0.3 * 64 / latency_s * 60
    assert len(refused) <= 1.3 * share * (len(accepted) + len(refused))


def test_a_pause_that_the_server_itself_does_not_keep_holds_nobody_else() -> None:
    draws = Random(8)
    accepted, _ = simulate(lambda now_s: draws.random() >= 0.02, 60.0, pause_s=1.0)
    assert len(accepted) >= 0.5 * 640 * 60


@pytest.mark.parametrize(("per_s", "burst"), [(20, 20), (20, 1200), (200, 200), (5, 5)])
def test_a_limit_in_headers_is_kept_from_the_start(per_s: int, burst: int) -> None:
    accepted, refused = simulate_bucket(RateLimit(per_s, burst, _START_S), 30.0)
    assert sum(1 for at in accepted if at >= 2) >= 0.9 * per_s * 28
    assert len(refused) < 0.02 * (len(accepted) + len(refused)) + 3


@pytest.mark.parametrize("per", ["second", "day"])
def test_a_limit_in_headers_that_is_not_a_minutes_slows_nothing_down(per: str) -> None:
    window_s = {"second": 1.0, "day": 86_400.0}[per]
    pacer = Pacer(EngineSettings())
    bucket = RateLimit(100.0 / window_s, 100, 0.0)
    now_s = sent = 0.0
    while now_s < 10.0:
        if pacer.wait_s(now_s) <= 0 and bucket.take(now_s):
            pacer.took(now_s, 100)
            sent += 1
            stated = bucket.headers(is_refused=False)
            pacer.learn({**stated, "x-ratelimit-limit-requests": "100"})
            pacer.accepted(now_s, now_s + 0.001)
        now_s += 0.005
    assert sent >= (90 if per == "day" else 900)
