"""Judgments to preferences (the mean over a cell's valid orders), and the audit of the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

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


def audit(judgments: pa.Table) -> pa.Table:
    """The judge's record, overall and by persona: parse rates, consistency, position bias."""
    frame = judgments.select(
        [*CELL, "presentation_order", "repeat", "verdict", "is_exact_form"]
    ).to_pandas()
    rows = [_audit_row("overall", "all", frame)]
    rows += [_audit_row("persona", str(one), part) for one, part in frame.groupby("persona_id")]
    return pa.Table.from_pylist(rows, TABLES["judge_audit"].schema)


def _audit_row(kind: str, name: str, frame: pd.DataFrame) -> dict[str, Any]:
    from pref_model.agreement import audit_orders

    parsed = frame["verdict"].notna()
    n_exact = int((parsed & frame["is_exact_form"]).sum())
    n_unparsed = int((~parsed).sum())
    valid = frame[parsed].assign(first_won=lambda one: one["verdict"] == "first")
    wide = valid.pivot(
        index=[*CELL, "repeat"], columns="presentation_order", values="first_won"
    ).reindex(columns=["ab", "ba"])
    both = wide.dropna()
    found = audit_orders(both["ab"].to_numpy(dtype=bool), both["ba"].to_numpy(dtype=bool))
    return {
        "slice_kind": kind,
        "slice_id": name,
        "n_judgments": len(frame),
        "n_exact": n_exact,
        "n_tolerated": int(parsed.sum()) - n_exact,
        "n_unparsed": n_unparsed,
        "unparsed_share": n_unparsed / len(frame) if len(frame) else None,
        "n_complete": found.n_complete,
        "n_consistent": found.n_consistent,
        "consistent_share": _known(found.n_consistent / max(found.n_complete, 1), found.n_complete),
        "first_share": _finite(found.first_share.share),
        "first_share_low": _finite(found.first_share.low),
        "first_share_high": _finite(found.first_share.high),
        "position_bias_logit": _finite(found.position_bias_logit.share),
        "position_bias_low_logit": _finite(found.position_bias_logit.low),
        "position_bias_high_logit": _finite(found.position_bias_logit.high),
    }


def _known(value: float, n: int) -> float | None:
    return value if n else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``preferences`` and ``judge_audit``."""
    judgments = inputs.read("judgments")
    return {"preferences": Output(assemble(judgments)), "judge_audit": Output(audit(judgments))}


STAGE = Stage(
    name="assemble",
    reads=("judgments",),
    writes=("preferences", "judge_audit"),
    module=__name__,
    build=build,
)
