"""An enforced rate limit: so many requests a second, told in the headers that providers use.

It knows no request and no account: there is one bucket.
"""

import math


class RateLimit:
    """A token bucket that refills steadily.

    Args:
        requests_per_s: Steady rate.
        burst: Requests that a full bucket allows at once.
        now_s: Time on the caller's clock.
    """

    def __init__(self, requests_per_s: float, burst: int, now_s: float) -> None:
        self._per_s = requests_per_s
        self._burst = burst
        self._left = float(burst)
        self._seen_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one request from the bucket; False where it is empty."""
        self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def headers(self, *, is_refused: bool) -> dict[str, str]:
        """Return the headers for the request that was last taken or refused.

        The limit is per minute, as providers state it; the reset is when the bucket is full.
        """
        full_ms = math.ceil((self._burst - self._left) / self._per_s * 1000)
        stated = {
            "x-ratelimit-limit-requests": f"{self._per_s * 60:.0f}",
            "x-ratelimit-remaining-requests": f"{int(self._left)}",
            "x-ratelimit-reset-requests": f"{full_ms}ms",
        }
        if is_refused:
            wait_s = (1.0 - self._left) / self._per_s
            stated["retry-after-ms"] = f"{math.ceil(wait_s * 1000)}"
            stated["Retry-After"] = f"{math.ceil(wait_s)}"
        return stated
