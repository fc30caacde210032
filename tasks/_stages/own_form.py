"""Features of form of a team's responses, computed once and read wherever they are used."""

from __future__ import annotations

import pyarrow as pa

from pref_model.text_features import text_features
from tasks._convert import vector_column
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``text_features``, one row a response."""
    responses = inputs.read("responses").sort_by("response_id")
    found = text_features(responses["response_text"].to_pylist())
    rows = pa.table(
        {
            "response_id": responses["response_id"],
            "text_features": vector_column(found, pa.float32()),
        },
        TABLES["text_features"].schema,
    )
    return {"text_features": Output(rows)}


STAGE = Stage(
    name="form",
    reads=("responses",),
    writes=("text_features",),
    module=__name__,
    build=build,
)
