"""Random priorities of many (row, column) cells at once, each from (seed, purpose, two ids) alone.

Drawing the cells of least priority gives samples in which a new row or column changes nothing but
the cells it takes itself. It draws nothing on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks._seeds import stable_integer

Keys = NDArray[np.uint64]


def priorities(seed: int, purpose: str, rows: Sequence[str], columns: Sequence[str]) -> Keys:
    """A uniform 64-bit integer for each cell.

    Each id is hashed with SHA-256; the two keys are combined by the finalizer of SplitMix64,
    whose avalanche makes cells of one row look independent.

    Returns:
        (len(rows), len(columns)) uint64.
    """
    down = np.array([stable_integer(seed, purpose, "row", one) for one in rows], np.uint64)
    across = np.array([stable_integer(seed, purpose, "column", one) for one in columns], np.uint64)
    # The row key is mixed on its own first: a sum of the two raw keys would be the same for cells
    # whose keys happen to add up alike.
    return _mixed(_mixed(down)[:, None] ^ across[None, :])


def _mixed(keys: Keys) -> Keys:
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
