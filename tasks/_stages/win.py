"""Win rate: each user's own judge compares the personalized with the base response, both orders."""

from __future__ import annotations

import pyarrow as pa

from tasks._convert import ORDERS
from tasks._stages.calls import CallStage, Complete
from tasks._stages.judge import Comparison, compare
from tasks._stages.stage import Inputs
from warehouse.tables import TABLES

CELL = ["persona_id", "prompt_id", "response_id", "base_response_id"]


def comparisons(inputs: Inputs) -> pa.Table:
    """What has to be judged: each chosen response once a user, whichever methods chose it."""
    chosen = inputs.read("selections").select(CELL)
    return chosen.group_by(CELL).aggregate([]).sort_by([(name, "ascending") for name in CELL])


def texts_of(inputs: Inputs) -> dict[str, str]:
    """Text of every response that can be compared, by id."""
    pool = inputs.lookup("pool_responses", "response_id", "response_text")
    return pool | inputs.lookup("personal_responses", "response_id", "response_text")


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks for comparisons [start, stop); A is the personalized response, B the base."""
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    text = texts_of(inputs)
    asked = [
        Comparison(
            cell,
            profile[cell["persona_id"]],
            prompt[cell["prompt_id"]],
            text[cell["response_id"]],
            text[cell["base_response_id"]],
        )
        for cell in comparisons(inputs).slice(start, stop - start).to_pylist()
    ]
    rows = compare(inputs, asked, complete)
    for row in rows:
        row["prefers_personalized_prob"] = row.pop("prefers_a_prob")
    return pa.Table.from_pylist(rows, TABLES["win_judgments"].schema)


STAGE = CallStage(
    name="win",
    reads=("prompts", "personas", "pool_responses", "personal_responses", "selections"),
    writes=("win_judgments",),
    module=__name__,
    n_cells=lambda inputs: comparisons(inputs).num_rows,
    calls_per_cell=lambda inputs: len(ORDERS) * int(inputs.config["repeats"]),
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=lambda inputs: (inputs.config["judge_model"],),
)
