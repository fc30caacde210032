"""When the next sends may leave: stated limits, learned limits, and what to do after a 429.

It sends nothing, sleeps nowhere and reads no clock: the caller says what time it is.

The life of a rate. At first sends leave in a short ramp, so that a strict server refuses few. The
first refusal stops new sends for a moment, to see how those on the wire fare. One refusal among
many that were taken delays its own call only; some servers refuse at random. When most sends of a
moment are refused, everything is held back, and one probe at a time asks whether the hold is over.
From what was accepted meanwhile comes the rate at which sends go on, evenly spaced. It grows
quickly at first and less with every time the limit is met; then it stays just below it, trying a
little more only after a long quiet time. So a limit costs a few refusals a minute and no sawtooth.
Refusals that go on far below what was once accepted are not about the rate, and it is let go.
"""

import re
from collections import deque
from collections.abc import Mapping

from tasks._llm.retry import moment_s
from tasks._llm.types import EngineSettings

_RAMP_S = 0.25
_RAMP_START_PER_S = 100.0
_RAMP_DOUBLING_S = 0.06
# Sends missed by a late timer may be caught up this far back; more would look like a burst. Slow
# rates lose little to a late timer, and strict servers count the milliseconds.
_CATCH_UP_S = 0.03
_SLOW_CATCH_UP_S = 0.004
_SLOW_PER_S = 40.0
# The first refusals of a run stop new sends until it is known how those on the wire fare.
_FRESH_S = 2.0
_LOOK_S = 0.1
# Refusals, more than were accepted meanwhile, that mean a limit; doubled by each false alarm.
_REFUSALS = 3
_MOST_REFUSALS = 24
_PROOF = 8
# Without a learned rate, this share of refusals in a second is worth a try at a lower rate.
# A pause is not for everybody where the server took what was sent after it this often.
_CONTRADICTIONS = 3
_TRY_SHARE = 0.04
_TRY_SENDS = 20
# Shorter says little; in longer there was nothing to do in between.
_TRY_S = (1.0, 5.0)
_TRY_AGAIN_S = 60.0
# The first hold, as a share of the first pause of a retry.
_FIRST_HOLD = 0.5
_PACED_HOLD = 0.2
_HOLD_GROWTH = 1.5
_PROBE_PATIENCE_S = 5.0
# A hold that took longer than this means a limit over a long window, such as a minute.
_LONG_HOLD_S = 2.5
_BELOW = 0.97
_LEAST_CUT = 0.9
_SEARCH_PER_S = 0.25
# A refusal so soon after a hold may be about what was sent before it, and ends no search.
_SETTLED_S = 2.0
# Refusals that go on far below what was once accepted, or after many cuts of a rate of which nearly
# everything was accepted, are not about the rate: some servers refuse at random.
_FUTILE = 0.4
_PEAK_S = 2.0
_NEAR = 0.7
_FAR = 0.6
_FUTILE_CUTS = 6
_QUIET_S = 20.0
_CREEP_PER_S = 0.002
_LOOK_AGAIN_S = 0.5
_IDLE_S = 5.0
_LIFTED_S = 90.0
_LIFTED_PER_S = 0.02
# All of the first replies are read for limits, and of the later ones enough to notice a change.
_READ_REPLIES = 64
_READ_EVERY = 16
_CONSISTENT_REPLIES = 5
_LEFT_STEP = 3
_USED_UP_S = 0.02
_REFILL = (0.5, 2.0)


class Pacer:
    """The permits of one engine; used from one thread."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._requests = _Spacing(settings.requests_per_min)
        self._tokens = _Spacing(settings.tokens_per_min)
        self._stated_requests = _Spacing(None)
        self._learned_tokens = _Spacing(None)
        self._replies = self._consistent = self._in_flight = 0
        self._left: int | None = None
        self._seen_left = (0, 0.0)
        self._first_s: float | None = None
        self._ramp_from_s = 0.0
        self._ramp_sent = 0
        self._rate: float | None = None
        self._grown_s = 0.0
        self._search = _SEARCH_PER_S
        self._learned = _Spacing(None)
        self._held_since_s: float | None = None
        self._hold_until_s = 0.0
        self._hold_s = 0.0
        self._probe_sent_s: float | None = None
        self._epoch_s = 0.0
        self._accepted = 0
        self._recent: deque[float] = deque()
        self._last_second = 0
        # Most that was accepted a second, over windows of a few seconds.
        self._peak_per_s = 0.0
        self._futile_cuts = 0
        self._uncut_rate = 0.0
        self._window_from_s = 0.0
        self._window_good = 0
        # Sends since a refusal that may mean a limit; a single one proves nothing.
        self._suspect_s: float | None = None
        self._suspect_good = self._suspect_bad = 0
        self._refusals = _REFUSALS
        self._try_from_s = 0.0
        self._try_good = self._try_bad = 0
        self._try_after_s = 0.0
        self._try_pause_s = _TRY_AGAIN_S
        self._quiet_until_s = 0.0
        self._pause_sent_s = 0.0
        self._contradictions = 0
        self._took_s = 0.0

    @property
    def rate_per_s(self) -> float | None:
        """The learned rate of requests; None while no limit has been met."""
        return self._rate

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next send may leave; 0 if it may now.

        Args:
            now_s: The caller's clock, the same in all calls.
        """
        if self._first_s is None:
            self._first_s = self._ramp_from_s = self._window_from_s = now_s
            self._start_epoch(now_s)
        stated = max(
            self._requests.wait_s(now_s),
            self._tokens.wait_s(now_s),
            self._stated_requests.wait_s(now_s),
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
                # It grows while it waits, so a low rate is looked at again before it is due.
                wait = min(wait, _LOOK_AGAIN_S)
            return max(wait, stated)
        is_used_up = self._left is not None and self._in_flight >= max(self._left, 1)
        if is_used_up and now_s - self._first_s < _FRESH_S:
            # Only at first: not every server means by what is left what this takes it for.
            return max(_USED_UP_S, stated)
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
        if self._rate is None and self._held_since_s is None and now_s - self._took_s > _IDLE_S:
            self._start_epoch(now_s)
        self._took_s = now_s
        self._in_flight += 1
        self._ramp_sent += 1
        self._requests.took(now_s, 1.0)
        self._stated_requests.took(now_s, 1.0)
        self._tokens.took(now_s, float(tokens))
        self._learned_tokens.took(now_s, float(tokens))
        self._learned.took(now_s, 1.0)
        if self._held_since_s is not None:
            self._probe_sent_s = now_s

    def accepted(self, sent_s: float, now_s: float) -> None:
        """A send came back with anything but a refusal for its rate."""
        self._in_flight -= 1
        self._accepted += 1
        self._window_good += 1
        if now_s - self._window_from_s >= _PEAK_S:
            seen = self._window_good / (now_s - self._window_from_s)
            self._peak_per_s = max(self._peak_per_s, seen)
            self._window_from_s, self._window_good = now_s, 0
        if self._quiet_until_s > now_s and sent_s > self._pause_sent_s:
            # The server takes what was sent after the refusal.
            self._contradictions += 1
            self._quiet_until_s = self._ramp_from_s = now_s
        if self._suspect_s is not None and sent_s > self._suspect_s:
            self._suspect_good += 1
            if self._suspect_good >= max(_PROOF, 2 * self._suspect_bad):
                self._suspect_s = None
        if self._rate is None:
            self._try_good += 1
            self._try_lower(now_s)
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
        self._in_flight -= 1
        stated_s = pause_s or 0.0
        is_held = self._held_since_s is not None
        if stated_s and self._contradictions < _CONTRADICTIONS:
            self._quiet(sent_s, now_s + stated_s)
        if is_held:
            self._suspect_bad += 1
        elif self._rate is None:
            self._suspect(sent_s, now_s)
            if self._suspect_bad < self._refusals or self._suspect_bad <= self._suspect_good:
                self._try_bad += 1
                self._try_lower(now_s)
                return
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

    def _quiet(self, sent_s: float, until_s: float) -> None:
        self._quiet_until_s = max(self._quiet_until_s, until_s)
        self._pause_sent_s = max(self._pause_sent_s, sent_s)
        # What comes after the pause must not come at once.
        self._ramp_from_s, self._ramp_sent = self._quiet_until_s, 0

    def _suspect(self, sent_s: float, now_s: float) -> None:
        if self._suspect_s is None:
            self._suspect_s, self._suspect_good, self._suspect_bad = sent_s, 0, 0
            if now_s - (self._first_s or 0.0) < _FRESH_S and self._refusals == _REFUSALS:
                self._quiet(sent_s, now_s + _LOOK_S)
        self._suspect_bad += 1

    def _try_lower(self, now_s: float) -> None:
        """A limit just below what the slots can send refuses few, and all the time."""
        n = self._try_good + self._try_bad
        since_s = now_s - self._try_from_s
        if (since_s < _TRY_S[0] or n < _TRY_SENDS) and since_s < _TRY_S[1]:
            return
        is_busy = since_s < _TRY_S[1]
        if is_busy and self._try_bad > _TRY_SHARE * n and now_s >= self._try_after_s:
            self._try_after_s = now_s + self._try_pause_s
            self._try_pause_s *= 2.0
            self._rate = max(self._try_good, 1) / since_s * _BELOW
            self._learned.set_rate(self._rate)
            self._start_epoch(now_s)
        self._try_from_s, self._try_good, self._try_bad = now_s, 0, 0

    def learn(self, headers: Mapping[str, str]) -> None:
        """Reads limits a minute from the headers of a reply.

        Some servers state a limit of requests a second or a day under the same name, and none says
        which. It counts as one a minute where the other two headers, what is left and when all of
        it is back, move against each other as in a bucket that refills at that rate.
        """
        self._replies += 1
        if self._replies > _READ_REPLIES and self._replies % _READ_EVERY:
            return
        tokens = headers.get("x-ratelimit-limit-tokens") or headers.get("x-ratelimit-limit-tpm")
        if tokens is not None and re.fullmatch(r"[1-9]\d{2,11}", tokens):
            self._learned_tokens.set_rate(int(tokens) * _BELOW / 60.0)
        limit = _count(headers.get("x-ratelimit-limit-requests"))
        left = _count(headers.get("x-ratelimit-remaining-requests"))
        self._left = left
        if not limit or left is None:
            return
        full_s = moment_s(headers.get("x-ratelimit-reset-requests", ""))
        if full_s is None:
            return
        before, before_s = self._seen_left
        if not before or abs(left - before) < _LEFT_STEP or full_s == before_s:
            self._seen_left = self._seen_left if before else (left, full_s)
            return
        refill = (before - left) / (full_s - before_s) / (limit / 60.0)
        is_minute = _REFILL[0] <= refill <= _REFILL[1]
        self._consistent = self._consistent + 1 if is_minute else 0
        self._seen_left = self._seen_left if is_minute else (left, full_s)
        if self._consistent >= _CONSISTENT_REPLIES:
            self._stated_requests.set_rate(limit * _BELOW / 60.0)

    def _resume(self, now_s: float) -> None:
        since_s = self._held_since_s or now_s
        elapsed_s = max(now_s - self._epoch_s, 1e-3)
        average = self._accepted / elapsed_s
        is_short = now_s - since_s <= _LONG_HOLD_S
        is_settled = since_s - self._epoch_s >= _SETTLED_S
        self._held_since_s = self._probe_sent_s = self._suspect_s = None
        if self._rate is None and self._suspect_good >= 2 * self._suspect_bad:
            # A false alarm: those on the wire were taken after all.
            self._refusals = min(2 * self._refusals, _MOST_REFUSALS)
            self._start_epoch(now_s)
            return
        if not is_short:
            self._peak_per_s = 0.0
        elif self._rate is not None and self._is_futile(since_s):
            self._peak_per_s, self._futile_cuts = 0.0, 0
            self._rate = None
            self._learned.set_rate(None)
            self._refusals = _MOST_REFUSALS
            self._start_epoch(now_s)
            return
        self._contradictions = 0
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
            self._search = 0.0 if is_settled else self._search / 3.0
            if self._search < _CREEP_PER_S * 10:
                self._search = 0.0
        self._rate = max(self._rate, 0.02)
        self._learned.set_rate(self._rate)
        self._start_epoch(now_s)

    def _is_futile(self, refused_s: float) -> bool:
        rate, epoch_s = self._rate or 0.0, refused_s - self._epoch_s
        if epoch_s > _QUIET_S or self._search:
            self._futile_cuts, self._uncut_rate = 0, rate
        elif epoch_s >= 1.0:
            # At a rate that is far too high, much less is accepted than is sent.
            is_near = self._last_second >= _NEAR * rate
            self._futile_cuts = self._futile_cuts + 1 if is_near else 0
        is_far = rate < _FAR * self._uncut_rate and self._futile_cuts >= _FUTILE_CUTS
        return is_far or rate < _FUTILE * self._peak_per_s

    def _start_epoch(self, now_s: float) -> None:
        self._epoch_s = self._grown_s = now_s
        self._accepted = 0
        self._recent.clear()
        self._try_from_s, self._try_good, self._try_bad = now_s, 0, 0

    def _grow(self, now_s: float) -> None:
        """Called while the learned rate is what holds sends back; otherwise it proves nothing."""
        since_s, self._grown_s = now_s - self._grown_s, now_s
        quiet_s = now_s - self._epoch_s
        if self._search:
            share = self._search
        elif quiet_s > _LIFTED_S:
            share = _LIFTED_PER_S
        else:
            share = _CREEP_PER_S if quiet_s > _QUIET_S else 0.0
        if self._rate is not None and share:
            self._rate *= 1.0 + share * min(since_s, 1.0)
            self._learned.speed_up(self._rate, now_s)


class _Spacing:
    """Evenly spaced permits at a rate; without one, no spacing."""

    def __init__(self, per_min: float | None) -> None:
        self._per_s: float | None = None
        self._catch_up_s = _CATCH_UP_S
        self._next_s = 0.0
        # At the very limit the jitter of a network is refused.
        self.set_rate(None if per_min is None else per_min * _BELOW / 60.0)

    def set_rate(self, per_s: float | None) -> None:
        self._per_s = per_s
        is_slow = per_s is not None and per_s < _SLOW_PER_S
        self._catch_up_s = _SLOW_CATCH_UP_S if is_slow else _CATCH_UP_S

    def speed_up(self, per_s: float, now_s: float) -> None:
        if self._per_s is not None:
            self._next_s = now_s + (self._next_s - now_s) * min(self._per_s / per_s, 1.0)
        self.set_rate(per_s)

    def wait_s(self, now_s: float) -> float:
        return 0.0 if self._per_s is None else max(self._next_s - now_s, 0.0)

    def took(self, now_s: float, amount: float) -> None:
        if self._per_s is not None:
            self._next_s = max(self._next_s, now_s - self._catch_up_s) + amount / self._per_s


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None
