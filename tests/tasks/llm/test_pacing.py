"""The pacer against simulated servers, on a clock of the test's own."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count

import pytest

from tasks._llm.pacing import Pacer
from tasks._llm.types import EngineSettings

Limit = Callable[[float], bool]


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
    admit: Limit, seconds: float, *, latency_s: float = 0.1, pause_s: float | None = None
) -> tuple[list[float], list[float]]:
    """Times of accepted and of refused sends, with 64 in flight and work without end."""
    pacer = Pacer(EngineSettings())
    accepted: list[float] = []
    refused: list[float] = []
    flying: list[tuple[float, float, bool]] = []
    now_s = 0.0
    while now_s < seconds:
        while len(flying) < 64 and pacer.wait_s(now_s) <= 0:
            pacer.took(now_s, 100)
            is_good = admit(now_s)
            (accepted if is_good else refused).append(now_s)
            heapq.heappush(flying, (now_s + (latency_s if is_good else 0.02), now_s, is_good))
        step_s = max(pacer.wait_s(now_s), 0.001) if len(flying) < 64 else 1.0
        next_s = now_s + step_s
        if flying and flying[0][0] <= next_s:
            back_s, sent_s, is_good = heapq.heappop(flying)
            now_s = back_s
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
    # At 5 a second one refused send and its pause weigh more than at hundreds.
    assert len(accepted) >= (0.9 if per_s > 5 else 0.85) * per_s * 120
    most = 0.02 if per_s > 5 else 0.03
    assert len(refused) <= most * (len(accepted) + len(refused))
    # No sawtooth: no ten seconds in which much is lost.
    for start in range(10, 110, 10):
        inside = sum(1 for at in accepted if start <= at < start + 10)
        assert inside >= 0.75 * per_s * 10, start


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


def test_refusals_at_random_do_not_slow_the_run_down_for_good() -> None:
    draws = count()

    def admit(now_s: float) -> bool:
        return hash((next(draws), 3)) % 25 > 0

    accepted, refused = simulate(admit, 60.0)
    # 64 in flight at 0.1 s are 640 a second at most.
    assert len(accepted) >= 0.25 * 640 * 60
    assert len(refused) <= 0.06 * len(accepted)
