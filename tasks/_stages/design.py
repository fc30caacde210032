"""Which personas judge which pairs."""

from __future__ import annotations

import pyarrow as pa

from tasks._seeds import stable_shuffle
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES


def build(inputs: Inputs) -> dict[str, Output]:
    """Every persona for every pair, or a seeded sample of personas for each pair."""
    personas = inputs.read("personas")["persona_id"].to_pylist()
    pairs = inputs.read("pairs")["pair_id"].to_pylist()
    config = inputs.config
    wanted = config["personas_per_pair"] or len(personas)
    judges = {pair: stable_shuffle(config["seed"], pair, personas)[:wanted] for pair in pairs}
    cells = sorted((persona, pair) for pair in pairs for persona in judges[pair])
    rows = pa.table(
        {"persona_id": [one for one, _ in cells], "pair_id": [one for _, one in cells]},
        TABLES["design"].schema,
    )
    return {"design": Output(rows)}


STAGE = Stage(
    name="design",
    reads=("personas", "pairs"),
    writes=("design",),
    module=__name__,
    build=build,
)
