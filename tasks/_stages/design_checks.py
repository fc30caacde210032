"""What a design can teach before any verdict is known: coverage, loads, connection, dimensions.

Its answers are necessary conditions that follow from counting; it fits nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks._convert import index_of, rows_of
from tasks._stages.balanced import Cells, components


class DesignCheck(NamedTuple):
    """A design's shape and whether d base rewards can follow from its training part.

    Attributes:
        n_personas: U.
        n_pairs: M.
        n_cells: Cells to be judged.
        coverage: ``n_cells`` / (U · M).
        loads: Pairs a persona → number of personas with that many.
        crowds: Personas a pair → number of pairs with that many.
        n_components: Components of the bipartite graph of all cells; 1 is connected.
        n_base_rewards: d.
        n_train_cells: Cells of the training part.
        n_parameters: d (U + M − d) of the training part.
        n_short_personas: Training personas with fewer than d training pairs.
        n_short_pairs: Training pairs with fewer than d training personas.
        n_train_components: Components of the training part.
    """

    n_personas: int
    n_pairs: int
    n_cells: int
    coverage: float
    loads: dict[int, int]
    crowds: dict[int, int]
    n_components: int
    n_base_rewards: int
    n_train_cells: int
    n_parameters: int
    n_short_personas: int
    n_short_pairs: int
    n_train_components: int

    @property
    def can_identify(self) -> bool:
        """Whether no counting argument speaks against d base rewards; see `check_design`."""
        return (
            self.n_short_personas == 0
            and self.n_short_pairs == 0
            and self.n_train_components == 1
            and self.n_train_cells >= self.n_parameters
        )


def check_design(
    cells: Cells,
    d: int,
    seen_personas: NDArray[np.bool_] | None = None,
    seen_pairs: NDArray[np.bool_] | None = None,
) -> DesignCheck:
    """Counts what a design covers, and whether its training part can determine d base rewards.

    The model is P_um = s(λ_uᵀφ_m) (METHOD eq 4). Suppose the logits x_um = λ_uᵀφ_m of the judged
    cells were known without noise, in general position. Λ (U × d) and Φ (d × M) hold d (U + M)
    numbers, but (Λ R⁻¹, R Φ) gives the same logits for each of the d² numbers of an invertible R.
    To determine the rest, up to that R,

    - each user needs d judged pairs: λ_u occurs in that user's equations alone, and fewer than d
      linear equations leave a direction of R^d free;
    - each pair needs d users, by the same argument for φ_m;
    - there must be d (U + M) − d² = d (U + M − d) cells or more: no fewer equations have a
      solution that is isolated;
    - the bipartite graph of the cells must be connected: (Λ, Φ) may be transformed by another R
      in each component, so that users of two components cannot be compared.

    All four are necessary. For d = 1 they are sufficient. For d > 1 they are not in every case
    (a dense block may hold the cells that another block lacks), but a random design that has some
    cells to spare determines the logits almost surely; Király, Theran, Tomioka (2015) give the
    exact conditions. Verdicts are noisy and carry less than a bit each, so a design should exceed
    the counts several times. The base rewards of the fit are linear in text features of width D,
    and for them pairs share strength: they need the users' d pairs, but not d users a pair.

    Args:
        cells: (U, M) bool.
        d: Number of base rewards.
        seen_personas: (U,) bool, personas of the training part; all if None.
        seen_pairs: (M,) bool, pairs of the training part; all if None.
    """
    n_personas, n_pairs = cells.shape
    rows = np.ones(n_personas, np.bool_) if seen_personas is None else seen_personas
    columns = np.ones(n_pairs, np.bool_) if seen_pairs is None else seen_pairs
    train = cells[np.ix_(rows, columns)]
    by_persona, by_pair = train.sum(axis=1), train.sum(axis=0)
    return DesignCheck(
        n_personas=n_personas,
        n_pairs=n_pairs,
        n_cells=int(cells.sum()),
        coverage=float(cells.mean()) if cells.size else 0.0,
        loads=_histogram(cells.sum(axis=1)),
        crowds=_histogram(cells.sum(axis=0)),
        n_components=components(cells)[0],
        n_base_rewards=d,
        n_train_cells=int(train.sum()),
        n_parameters=d * (sum(train.shape) - d),
        n_short_personas=int((by_persona < d).sum()),
        n_short_pairs=int((by_pair < d).sum()),
        n_train_components=components(train)[0],
    )


def check_tables(design: pa.Table, splits: pa.Table, d: int) -> DesignCheck:
    """`check_design` of rows of ``design`` and ``splits``."""
    seen: dict[str, dict[str, bool]] = {"persona": {}, "pair": {}}
    for row in splits.to_pylist():
        seen[row["entity_kind"]][row["entity_id"]] = row["side"] == "seen"
    personas, pairs = index_of(sorted(seen["persona"])), index_of(sorted(seen["pair"]))
    cells = np.zeros((len(personas), len(pairs)), np.bool_)
    rows = rows_of(design["persona_id"], list(personas))
    cells[rows, rows_of(design["pair_id"], list(pairs))] = True
    return check_design(
        cells,
        d,
        np.array([seen["persona"][one] for one in personas]),
        np.array([seen["pair"][one] for one in pairs]),
    )


def _histogram(counts: NDArray[np.int64]) -> dict[int, int]:
    values, numbers = np.unique(counts, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))
