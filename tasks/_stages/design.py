"""Which personas judge which pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks._stages.balanced import balanced_design
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES


def build(inputs: Inputs) -> dict[str, Output]:
    """Every persona for every pair, or a seeded, balanced choice of personas for each pair."""
    personas = sorted(inputs.read("personas")["persona_id"].to_pylist())
    pairs = sorted(inputs.read("pairs")["pair_id"].to_pylist())
    config = inputs.config
    wanted = min(config["personas_per_pair"] or len(personas), len(personas))
    cells = balanced_design(
        config["seed"], personas, pairs, wanted, is_balanced=config["is_balanced"]
    )
    rows, columns = np.nonzero(cells)
    table = pa.table(
        {
            "persona_id": pa.array(personas, pa.string()).take(rows),
            "pair_id": pa.array(pairs, pa.string()).take(columns),
        },
        TABLES["design"].schema,
    )
    return {"design": Output(table)}


STAGE = Stage(
    name="design",
    reads=("personas", "pairs"),
    writes=("design",),
    module=__name__,
    build=build,
)
