"""When the next sends may leave: stated limits, learned limits, and what to do after a 429.

It sends nothing, sleeps nowhere and reads no clock: the caller says what time it is.

The life of a rate. At first sends leave in a short ramp, so that a strict server refuses few. A
single refusal delays its own call only, and others for as long as the server asks; some servers
refuse at random. When most of the last sends are refused, everything is held back, and one probe
at a time asks whether the hold is over. From what was accepted meanwhile comes the rate at which
sends go on, evenly spaced. It grows quickly until the limit has been met once at this pace, and
from then on stays just below it, trying a little more only after a long quiet time. So a limit
costs a few refusals a minute and no sawtooth.
"""

import re
from collections import deque
from collections.abc import Mapping

from tasks._llm.types import EngineSettings

_RAMP_S = 0.25
_RAMP_START_PER_S = 100.0
_RAMP_DOUBLING_S = 0.04
# Sends missed by a late timer may be caught up this far back; more would look like a burst.
_CATCH_UP_S = 0.03
# The first hold, as a share of the first pause of a retry.
_FIRST_HOLD = 0.5
_PACED_HOLD = 0.2
_HOLD_GROWTH = 1.5
_PROBE_PATIENCE_S = 5.0
# A hold that took longer than this means a limit over a long window, such as a minute.
_LONG_HOLD_S = 2.5
_BELOW = 0.97
_LEAST_CUT = 0.9
_SEARCH_PER_S = 0.10
# Refusals that come as soon after every cut are not about the rate: some servers refuse at random.
_FUTILE_CUTS = 14
_FUTILE_SENDS = 60
_LAST_RESULTS = 8
_REFUSED_RESULTS = 4
_QUIET_S = 20.0
_CREEP_PER_S = 0.002
_LIFTED_S = 90.0
_LIFTED_PER_S = 0.02


class Pacer:
    """The permits of one engine; used from one thread."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._requests = _Spacing(settings.requests_per_min)
        self._tokens = _Spacing(settings.tokens_per_min)
        self._learned_tokens = _Spacing(None)
        self._ramp_from_s: float | None = None
        self._ramp_sent = 0
        self._rate: float | None = None
        self._grown_s = 0.0
        self._is_searching = True
        self._learned = _Spacing(None)
        self._held_since_s: float | None = None
        self._hold_until_s = 0.0
        self._hold_s = 0.0
        self._probe_sent_s: float | None = None
        self._epoch_s = 0.0
        self._accepted = 0
        self._recent: deque[float] = deque()
        self._last_second = 0
        self._futile_cuts = 0
        # A single refusal proves nothing; a limit that is met refuses nearly everything.
        self._is_indifferent = True
        self._quiet_until_s = 0.0
        self._results: deque[bool] = deque(maxlen=_LAST_RESULTS)

    @property
    def rate_per_s(self) -> float | None:
        """The learned rate of requests; None while no limit has been met."""
        return self._rate

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next send may leave; 0 if it may now.

        Args:
            now_s: The caller's clock, the same in all calls.
        """
        if self._ramp_from_s is None:
            self._ramp_from_s = self._epoch_s = now_s
        stated = max(
            self._requests.wait_s(now_s),
            self._tokens.wait_s(now_s),
            self._learned_tokens.wait_s(now_s),
            self._quiet_until_s - now_s,
        )
        if self._held_since_s is not None:
            wait = self._hold_until_s - now_s
            if self._probe_sent_s is not None:
                wait = max(wait, self._probe_sent_s + _PROBE_PATIENCE_S - now_s)
            return max(wait, stated)
        if self._rate is not None:
            wait = self._learned.wait_s(now_s)
            if wait > 0:
                self._grow(now_s)
            return max(wait, stated)
        since_s = now_s - self._ramp_from_s
        if since_s < _RAMP_S:
            growth = 2.0 ** (since_s / _RAMP_DOUBLING_S) - 1.0
            allowed = 1.0 + _RAMP_START_PER_S * _RAMP_DOUBLING_S / 0.693 * growth
            if self._ramp_sent >= allowed:
                return max(0.005, stated)
        return stated

    def took(self, now_s: float, tokens: int) -> None:
        """One send was permitted.

        Args:
            now_s: As in `wait_s`.
            tokens: Tokens it may use, prompt and completion.
        """
        self._ramp_sent += 1
        self._requests.took(now_s, 1.0)
        self._tokens.took(now_s, float(tokens))
        self._learned_tokens.took(now_s, float(tokens))
        self._learned.took(now_s, 1.0)
        if self._held_since_s is not None:
            self._probe_sent_s = now_s

    def accepted(self, sent_s: float, now_s: float) -> None:
        """A send came back with anything but a refusal for its rate."""
        self._accepted += 1
        self._results.append(True)
        self._recent.append(now_s)
        while now_s - self._recent[0] > 1.0:
            self._recent.popleft()
        if self._held_since_s is not None and sent_s > self._held_since_s:
            self._resume(now_s)

    def refused(self, sent_s: float, now_s: float, pause_s: float | None) -> None:
        """A send was refused for its rate.

        Args:
            sent_s: When it left.
            now_s: As in `wait_s`.
            pause_s: What the server asks for; nobody knocks before it is over.
        """
        stated_s = pause_s or 0.0
        self._results.append(False)
        if self._is_indifferent:
            if self._results.count(False) < _REFUSED_RESULTS:
                self._quiet_until_s = max(self._quiet_until_s, now_s + stated_s)
                return
            self._is_indifferent = False
        if self._held_since_s is None or sent_s > self._held_since_s:
            if self._held_since_s is not None:
                self._hold_s = min(self._hold_s * _HOLD_GROWTH, self._settings.backoff_cap_s)
            else:
                self._held_since_s = now_s
                self._last_second = sum(1 for at in self._recent if now_s - at <= 1.0)
                share = _FIRST_HOLD if self._rate is None else _PACED_HOLD
                self._hold_s = share * self._settings.backoff_s
            self._probe_sent_s = None
            self._hold_until_s = now_s + self._hold_s
        # Sends that left before the hold began only confirm it.
        self._hold_until_s = max(self._hold_until_s, now_s + stated_s)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Reads a limit of tokens a minute, under the names servers use.

        A limit of requests is not read from headers: some servers state it a minute, some a day,
        and none says which. What is refused tells it exactly.
        """
        limit = headers.get("x-ratelimit-limit-tokens") or headers.get("x-ratelimit-limit-tpm")
        if limit is None or not re.fullmatch(r"[1-9]\d{2,11}", limit):
            return
        self._learned_tokens.set_rate(int(limit) * _BELOW / 60.0)

    def _resume(self, now_s: float) -> None:
        since_s = self._held_since_s or now_s
        elapsed_s = max(now_s - self._epoch_s, 1e-3)
        average = self._accepted / elapsed_s
        is_short = now_s - since_s <= _LONG_HOLD_S
        is_futile = is_short and self._rate is not None and self._accepted < _FUTILE_SENDS
        self._futile_cuts = self._futile_cuts + 1 if is_futile else 0
        self._held_since_s = self._probe_sent_s = None
        if self._futile_cuts >= _FUTILE_CUTS:
            self._is_indifferent, self._futile_cuts, self._rate = True, 0, None
            self._start_epoch(now_s)
            return
        if self._rate is None:
            self._rate = average
        else:
            # What got through over the whole window if the hold was long; otherwise in the second
            # before it, which says little about slow rates, so that one refusal never costs much.
            if not is_short:
                self._rate = min(average, self._rate) * _BELOW
            else:
                seen = min(float(self._last_second), self._rate)
                self._rate = max(seen * _BELOW, self._rate * _LEAST_CUT)
            self._is_searching = False
        self._rate = max(self._rate, 0.02)
        self._learned.set_rate(self._rate)
        self._start_epoch(now_s)

    def _start_epoch(self, now_s: float) -> None:
        self._epoch_s = self._grown_s = now_s
        self._accepted = 0
        self._recent.clear()
        self._results.clear()

    def _grow(self, now_s: float) -> None:
        """Called while the learned rate is what holds sends back; otherwise it proves nothing."""
        since_s, self._grown_s = now_s - self._grown_s, now_s
        quiet_s = now_s - self._epoch_s
        if self._is_searching:
            share = _SEARCH_PER_S
        elif quiet_s > _LIFTED_S:
            share = _LIFTED_PER_S
        else:
            share = _CREEP_PER_S if quiet_s > _QUIET_S else 0.0
        if self._rate is not None and share:
            self._rate *= 1.0 + share * min(since_s, 1.0)
            self._learned.set_rate(self._rate)


class _Spacing:
    """Evenly spaced permits at a rate; without one, no spacing."""

    def __init__(self, per_min: float | None) -> None:
        self._per_s = None if per_min is None else per_min / 60.0
        self._next_s = 0.0

    def set_rate(self, per_s: float) -> None:
        self._per_s = per_s

    def wait_s(self, now_s: float) -> float:
        return 0.0 if self._per_s is None else max(self._next_s - now_s, 0.0)

    def took(self, now_s: float, amount: float) -> None:
        if self._per_s is not None:
            self._next_s = max(self._next_s, now_s - _CATCH_UP_S) + amount / self._per_s
