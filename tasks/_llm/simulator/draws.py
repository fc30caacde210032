"""Random draws that derive from a hash, alike on every machine and Python version.

It keeps no global state: equal keys give equal draws, and different keys independent ones.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_TWO_64 = float(2**64)


def uniform_from(eight_bytes: bytes) -> float:
    """Return a number in (0, 1) from 8 bytes of a hash."""
    return (int.from_bytes(eight_bytes, "big") + 0.5) / _TWO_64


class Draws:
    """A stream of draws from one key.

    The `random` module would do for numbers, but how it picks and shuffles has changed between
    Python versions, and a reply must not.

    Args:
        key: What the stream derives from.
        name: Name of the stream; streams of one key with different names are independent.
    """

    def __init__(self, key: bytes, name: str) -> None:
        self._key = hashlib.sha256(key + name.encode()).digest()
        self._count = 0
        self._buffer = b""

    def uniform(self) -> float:
        """Return a number in (0, 1)."""
        if not self._buffer:
            self._buffer = hashlib.sha256(self._key + self._count.to_bytes(8, "big")).digest()
            self._count += 1
        eight_bytes, self._buffer = self._buffer[:8], self._buffer[8:]
        return uniform_from(eight_bytes)

    def below(self, n: int) -> int:
        """Return an integer in [0, n)."""
        return min(int(self.uniform() * n), n - 1)

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        rest = list(items)
        for last in range(len(rest) - 1, 0, -1):
            other = self.below(last + 1)
            rest[last], rest[other] = rest[other], rest[last]
        return rest

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """Return up to n different items."""
        return self.shuffled(items)[:n]
