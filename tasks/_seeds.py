"""Randomness that depends on (seed, stable id) alone, so that order and sharding change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def stable_integer(seed: int, *ids: str) -> int:
    """A 64-bit integer named by ``seed`` and ``ids``; uniform over its range."""
    text = "\x1f".join((str(seed), *ids))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stable_shuffle(seed: int, purpose: str, ids: Iterable[str]) -> list[str]:
    """Ids in random order; adding an id moves no other id relative to the rest."""
    return sorted(ids, key=lambda one: (stable_integer(seed, purpose, one), one))


def stable_choice(seed: int, options: Sequence[T], *ids: str) -> T:
    """One of ``options``, drawn uniformly (up to 2⁻⁵⁰) by ``seed`` and ``ids``."""
    return options[stable_integer(seed, *ids) % len(options)]
