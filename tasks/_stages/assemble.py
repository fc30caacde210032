"""Judgments to preferences (the mean over a cell's valid orders), and the audit of the judge."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tasks._stages.judge_audit import JUDGED, audit
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES

CELL = ["persona_id", "pair_id"]


def assemble(judgments: pa.Table) -> pa.Table:
    """One row a (persona, pair): P(A preferred) as the mean over the orders with a valid verdict.

    Repeats of an order are averaged first, so that each order weighs the same. A cell without
    any valid verdict keeps its row, with a null preference: unparsed is not a tie.
    """
    by_order = judgments.group_by([*CELL, "presentation_order"]).aggregate(
        [("prefers_a_prob", "mean")]
    )
    cells = by_order.group_by(CELL).aggregate(
        [
            ("prefers_a_prob_mean", "mean"),
            ("prefers_a_prob_mean", "count"),
            ("presentation_order", "count"),
        ]
    )
    value = cells["prefers_a_prob_mean_mean"]
    columns = {
        "persona_id": cells["persona_id"],
        "pair_id": cells["pair_id"],
        "preference_prob": value,
        "n_valid": cells["prefers_a_prob_mean_count"],
        "n_asked": cells["presentation_order_count"],
        "is_tie": pc.fill_null(pc.equal(value, 0.5), False),
    }
    schema = TABLES["preferences"].schema
    table = pa.table({name: columns[name].cast(schema.field(name).type) for name in schema.names})
    return table.cast(schema).sort_by([(name, "ascending") for name in CELL])


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``preferences`` and ``judge_audit``."""
    # Raw replies and request keys are most of the bytes, and nothing here looks at them.
    judgments = inputs.read("judgments", JUDGED)
    text = inputs.lookup("responses", "response_id", "response_text")
    lengths = {
        row["pair_id"]: (
            len(text[row["response_a_id"]] or ""),
            len(text[row["response_b_id"]] or ""),
        )
        for row in inputs.read("pairs").to_pylist()
    }
    return {
        "preferences": Output(assemble(judgments)),
        "judge_audit": Output(audit(judgments, lengths)),
    }


STAGE = Stage(
    name="assemble",
    reads=("responses", "pairs", "judgments"),
    writes=("preferences", "judge_audit"),
    module=__name__,
    build=build,
)
