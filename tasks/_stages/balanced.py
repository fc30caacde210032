"""Who judges what when not everyone judges everything: a random design, evened out and connected.

It knows personas and pairs by row number and reads no dataset. What a design lets one learn is in
`tasks._stages.design_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks._stages.priorities import Keys, priorities

Cells = NDArray[np.bool_]


def balanced_design(
    seed: int,
    personas: Sequence[str],
    pairs: Sequence[str],
    per_pair: int,
    *,
    is_balanced: bool = True,
) -> Cells:
    """A seeded design with the same number of personas a pair.

    Each pair first takes the personas of least priority, which depends on the seed and the two
    ids alone. Then personas with too many pairs hand some to personas with too few, until loads
    differ by at most one. A persona u with more pairs than v always has one that v has not, so
    this never gets stuck. Last, if the bipartite graph of personas and pairs is not connected,
    its components are joined by swaps that keep every load.

    Order of the ids does not matter. A persona or pair more changes the draw of no other cell;
    evening out then moves a few cells elsewhere (a fraction of a percent at PRISM's size), unless
    ``is_balanced`` is false, which leaves loads and connection to chance.

    Args:
        seed: Seed of the run.
        personas: U ids.
        pairs: M ids.
        per_pair: Personas a pair, at most U.
        is_balanced: Whether loads are evened out and the graph is connected where it can be.

    Returns:
        (U, M) bool, in the order of the ids given.
    """
    row = np.argsort(np.array(personas))
    column = np.argsort(np.array(pairs))
    keys = priorities(
        seed, "design", [personas[one] for one in row], [pairs[one] for one in column]
    )
    cells = _least(keys, per_pair)
    if is_balanced:
        _even_out(cells, keys)
        _connect(cells, keys)
    given = np.zeros_like(cells)
    given[np.ix_(row, column)] = cells
    return given


def _least(keys: Keys, per_pair: int) -> Cells:
    """The ``per_pair`` rows of least key in each column."""
    cells = np.zeros(keys.shape, np.bool_)
    if per_pair >= keys.shape[0]:
        cells[:] = True
    elif keys.shape[1]:
        chosen = np.argpartition(keys, per_pair - 1, axis=0)[:per_pair]
        np.put_along_axis(cells, chosen, True, axis=0)
    return cells


def _even_out(cells: Cells, keys: Keys) -> None:
    """Moves cells from rows with too many to rows with too few; column sums stay as they are.

    The greater loads, total mod U of them one more than the others, stay with the rows that have
    most already. The most loaded row gives first, the cell it holds with least right (greatest
    key); of the rows that lack cells and have not this one, that of least key takes it.
    """
    loads = cells.sum(axis=1)
    n_rows = len(loads)
    fewest, n_greater = divmod(int(loads.sum()), n_rows)
    targets = np.full(n_rows, fewest)
    targets[np.argsort(-loads, kind="stable")[:n_greater]] += 1
    lacking = targets - loads
    for giver in np.argsort(lacking, kind="stable"):
        for column in _by_right(cells, keys, giver) if lacking[giver] < 0 else ():
            takers = np.flatnonzero((lacking > 0) & ~cells[:, column])
            if not len(takers):
                continue
            taker = takers[np.argmin(keys[takers, column])]
            cells[giver, column] = False
            cells[taker, column] = True
            lacking[giver] += 1
            lacking[taker] -= 1
            if lacking[giver] == 0:
                break


def _by_right(cells: Cells, keys: Keys, row: int) -> NDArray[np.intp]:
    """Columns of a row, greatest key first."""
    columns = np.flatnonzero(cells[row])
    return columns[np.argsort(keys[row, columns], kind="stable")[::-1]]


def components(cells: Cells) -> tuple[int, NDArray[np.intp]]:
    """Number of components of the bipartite graph, and the component of each row, then column."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_rows, n_columns = cells.shape
    rows, columns = np.nonzero(cells)
    size = n_rows + n_columns
    graph = coo_array((np.ones(len(rows), np.int8), (rows, n_rows + columns)), shape=(size, size))
    count, labels = connected_components(graph, directed=False)
    return int(count), labels


def _connect(cells: Cells, keys: Keys) -> None:
    """Joins components by swaps: (u, p), (v, q) become (u, q), (v, p).

    If (u, p) lies on a cycle, its component holds together without it; v, p, u and q then hang
    together whatever (v, q) was to the other component, so two components become one. A graph of
    N nodes and at least N − 1 edges in which every node has one has as many cycles as this takes;
    with fewer edges no graph is connected, and what can be joined is.
    """
    n_rows = cells.shape[0]
    while True:
        count, labels = components(cells)
        if count == 1:
            return
        extra = _on_cycles(cells, keys, labels[:n_rows])
        if not extra:
            return
        home = min(extra)
        u, p = extra[home]
        elsewhere = np.flatnonzero((labels[:n_rows] != home) & cells.any(axis=1))
        if not len(elsewhere):
            return
        v = int(elsewhere[0])
        q = int(_by_right(cells, keys, v)[0])
        cells[[u, v], [p, q]] = False
        cells[[u, v], [q, p]] = True


def _on_cycles(cells: Cells, keys: Keys, labels: NDArray[np.intp]) -> dict[int, tuple[int, int]]:
    """For each component with a cycle, a cell on one: it joins two nodes already joined."""
    n_rows = cells.shape[0]
    parent = list(range(n_rows + cells.shape[1]))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    rows, columns = np.nonzero(cells)
    found: dict[int, tuple[int, int]] = {}
    for at in np.argsort(keys[rows, columns], kind="stable"):
        row, column = int(rows[at]), int(columns[at])
        one, other = root(row), root(n_rows + column)
        if one == other:
            found.setdefault(int(labels[row]), (row, column))
        parent[one] = other
    return found
