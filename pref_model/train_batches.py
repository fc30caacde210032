"""Which labels a gradient step sees: whole pairs, in an order worked out from seed and step.

Nothing here holds a position: the batch of step n is a function of (seed, n), so a resumed run
and a run on several processes see what one uninterrupted process would have seen.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from pref_model.backbone_config import Grouping
from pref_model.types import Ints, Preferences


class LabelBatch(NamedTuple):
    """B groups with all their labels.

    Attributes:
        pairs: (B,) int64, the pair of each group.
        pair: (n,) int64, group of each label, a row of `pairs`.
        user: (n,) int64.
        label: (n,) float32 in [0, 1].
        weight: (n,) float32.
    """

    pairs: Ints
    pair: torch.Tensor
    user: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor


class GroupedLabels:
    """Training labels in groups that share their two backbone passes.

    Grouped by "pair", two passes serve every label of the pair. Grouped by "label", each label
    is a group of its own, as in the authors' code: two passes a label.

    Attributes:
        pairs: (G,) int64, the pair of each group; groups are sorted by pair, then by user.
    """

    def __init__(self, cells: Preferences, grouping: Grouping = "pair") -> None:
        order = np.lexsort((cells.label, cells.user, cells.pair))
        sorted_pair = cells.pair[order]
        if grouping == "pair":
            self.pairs, counts = np.unique(sorted_pair, return_counts=True)
        else:
            self.pairs, counts = sorted_pair, np.ones(sorted_pair.size, dtype=np.int64)
        self._counts = counts.astype(np.int64)
        self._begin = np.cumsum(self._counts) - self._counts
        self._user = torch.as_tensor(cells.user[order])
        self._label = torch.as_tensor(cells.label[order], dtype=torch.float32)
        self._weight = torch.as_tensor(cells.weight[order], dtype=torch.float32)

    def batch(self, groups: Ints) -> LabelBatch:
        """Return the labels of some groups (B,), which may be none."""
        counts = self._counts[groups]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        cells = torch.as_tensor(np.repeat(self._begin[groups], counts) + within)
        return LabelBatch(
            self.pairs[groups],
            torch.as_tensor(np.repeat(np.arange(groups.size), counts)),
            self._user[cells],
            self._label[cells],
            self._weight[cells],
        )


class StepPlan:
    """The groups of each gradient step.

    Every group is drawn once an epoch. With lengths, steps are cut from runs of groups of like
    length, so that little is padded; lengths are jittered by a fifth, so that a small set is not
    cut into the same steps each time.

    Attributes:
        n_groups: G, groups an epoch.
        steps_an_epoch: ceil(G / size).
    """

    def __init__(
        self, n_groups: int, size: int, seed: int, lengths: Ints | None = None, bucket: int = 1
    ) -> None:
        self.n_groups = n_groups
        self._size = min(size, n_groups)
        self._seed = seed
        self._lengths = lengths
        self._bucket = max(bucket, 1)
        self.steps_an_epoch = -(-n_groups // self._size)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def groups(self, step: int) -> Ints:
        """Return the groups of a step, sorted: at most `size`, the same for every process."""
        epoch, within = divmod(step, self.steps_an_epoch)
        return self._epoch(epoch)[within]

    def _make_epoch(self, epoch: int) -> list[Ints]:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(self.n_groups)
        run = self._size * self._bucket
        if self._lengths is not None and self._bucket > 1:
            key = self._lengths[order] * rng.uniform(0.8, 1.2, order.size)
            order = order[np.lexsort((key, np.arange(order.size) // run))]
        steps = [np.sort(order[low : low + self._size]) for low in range(0, order.size, self._size)]
        if self._bucket == 1:
            return steps
        return [steps[row] for row in rng.permutation(len(steps))]


def share_of(groups: Ints, lengths: Ints | None, process: int, n_processes: int) -> Ints:
    """Return one process's part of a step's groups, dealt out by length so that all take alike."""
    if n_processes == 1:
        return groups
    dealt = groups if lengths is None else groups[np.argsort(-lengths[groups], kind="stable")]
    return np.sort(dealt[process::n_processes])


def micro_batches(groups: Ints, lengths: Ints, max_tokens: int) -> list[Ints]:
    """Cut groups, shortest first, so that two padded texts a group stay within `max_tokens`.

    A group that alone exceeds the limit is a batch of its own; no groups make one empty batch.
    """
    order = groups[np.argsort(lengths[groups], kind="stable")]
    cuts, low = [], 0
    for row in range(1, order.size):
        if 2 * int(lengths[order[row]]) * (row + 1 - low) > max_tokens:
            cuts.append(order[low:row])
            low = row
    cuts.append(order[low:])
    return cuts
