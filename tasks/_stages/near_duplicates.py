"""Which texts say nearly the same, by the characters they share. It compares no meanings."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping

SHINGLE = 3


def normalized(text: str) -> str:
    """Lower-case words with one space between, without punctuation, accents of width or form.

    A text without any letter or digit stays as it is, so that "?" and "!" are not the same.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(one if one.isalnum() else " " for one in folded).split()
    return " ".join(words) if words else text.strip()


def shingles(text: str) -> frozenset[str]:
    """Runs of three characters of a normalized text with a space at either end."""
    padded = f" {text} "
    return frozenset(padded[at : at + SHINGLE] for at in range(max(1, len(padded) - SHINGLE + 1)))


def merged_into(texts: Mapping[str, str], threshold: float) -> dict[str, str]:
    """For each near-duplicate, the text that stands for it.

    In order of id, a text joins the first kept text that is similar enough, or is kept itself.
    Every merged text is thus similar to the one that stands for it; chains do not form. Exact:
    two sets with a Jaccard similarity of at least t share a member among the |s| − ⌈t|s|⌉ + 1
    rarest of either, so that only texts with a rare shingle in common are compared.

    Args:
        texts: Id to text.
        threshold: Jaccard similarity of the sets of shingles, in (0, 1]; 1 merges only texts with
            the same set.

    Returns:
        Id of a left-out text to id of the kept one. Ids of kept texts are not in it.
    """
    sets = {one: shingles(normalized(texts[one])) for one in sorted(texts)}
    counts = Counter(shingle for members in sets.values() for shingle in members)
    kept_with: dict[str, list[str]] = defaultdict(list)
    found: dict[str, str] = {}
    for one, members in sets.items():
        rarest = sorted(members, key=lambda shingle: (counts[shingle], shingle))
        probes = rarest[: len(rarest) - _at_least(threshold, len(rarest)) + 1]
        near = sorted({other for shingle in probes for other in kept_with[shingle]})
        for other in near:
            small, large = sorted((len(members), len(sets[other])))
            # No two sets of such sizes are similar enough; the sum is cheaper than the overlap.
            if small < threshold * large - 1e-9:
                continue
            if _jaccard(members, sets[other]) >= threshold:
                found[one] = other
                break
        else:
            for shingle in probes:
                kept_with[shingle].append(one)
    return found


def _at_least(threshold: float, size: int) -> int:
    """Members that a similar set shares: ⌈threshold · size⌉, not one more for a rounding error."""
    return max(1, math.ceil(threshold * size - 1e-9))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
