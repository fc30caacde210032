"""Further questions that check the judge of win rates: equal responses, and a second judge.

* ``identical``: the base response against itself, so that only the position can decide. The two
  orders are the same question, so the second is asked as a repeat, another draw; over both the
  win rate must come out near 50 %.
* ``second_judge``: another model on a sample of the comparisons, from every gap of length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks._convert import ORDERS, Order
from tasks._llm.types import CallRequest
from tasks._seeds import stable_integer
from tasks._stages.calls import CallStage, Complete
from tasks._stages.check_cells import SECOND_JUDGE, stratified
from tasks._stages.judge import judge_request, read_reply
from tasks._stages.judge_audit import gap_of_lengths
from tasks._stages.stage import Inputs
from tasks._stages.win import CELL, comparisons, texts_of
from warehouse.tables import TABLES

IDENTICAL = "identical"


class WinCheck(NamedTuple):
    """One question: its kind, and the columns that name the comparison."""

    kind: str
    cell: dict[str, Any]


def win_checks(inputs: Inputs) -> list[WinCheck]:
    """All questions, drawn by hash of seed and ids: those of equal responses, then the others."""
    config = inputs.config
    rows = comparisons(inputs).to_pylist()

    def draw(purpose: str, row: dict[str, Any]) -> int:
        return stable_integer(config["seed"], purpose, *(row[name] for name in CELL))

    bases = {(row["persona_id"], row["prompt_id"]): row["base_response_id"] for row in rows}
    equal = [dict(zip(CELL, (*place, base, base), strict=True)) for place, base in bases.items()]
    equal.sort(key=lambda row: draw("win identical", row))
    found = [WinCheck(IDENTICAL, row) for row in equal[: config["n_identical"]]]
    if config["second_judge_model"] and rows:
        text = texts_of(inputs)
        lengths = [
            np.array([len(text[row[name]]) for row in rows])
            for name in ("response_id", "base_response_id")
        ]
        keys = np.array([draw("win second judge", row) for row in rows], np.uint64)
        chosen = stratified(keys, gap_of_lengths(*lengths), config["sample"])
        found += [WinCheck(SECOND_JUDGE, rows[at]) for at in chosen]
    return found


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks questions [start, stop) in both orders."""
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    text = texts_of(inputs)
    asked: list[tuple[WinCheck, Order, int, Inputs, CallRequest]] = []
    for check in win_checks(inputs)[start:stop]:
        view = _as(inputs, check.kind)
        cell = check.cell
        for number, order in enumerate(ORDERS):
            repeat = number if check.kind == IDENTICAL else 0
            call = judge_request(
                view,
                profile[cell["persona_id"]],
                prompt[cell["prompt_id"]],
                text[cell["response_id"]],
                text[cell["base_response_id"]],
                order,
                repeat,
            )
            asked.append((check, order, repeat, view, call))
    replies = complete([call for *_, call in asked])
    rows = []
    for (check, order, repeat, view, call), reply in zip(asked, replies, strict=True):
        reading = read_reply(view, reply, order)._asdict()
        rows.append(
            {
                "check_kind": check.kind,
                **check.cell,
                "presentation_order": order,
                "repeat": repeat,
                "request_key": call.key,
                "judge_model": call.model,
                "reply_text": reply.text,
                "prefers_personalized_prob": reading.pop("prefers_a_prob"),
                **reading,
            }
        )
    return pa.Table.from_pylist(rows, TABLES["win_check_judgments"].schema)


def _as(inputs: Inputs, kind: str) -> Inputs:
    if kind != SECOND_JUDGE:
        return inputs
    second = {"judge_model": inputs.config["second_judge_model"]}
    plan = inputs.plan.model_copy(update={"config": {**inputs.config, **second}})
    return replace(inputs, plan=plan)


def _models(inputs: Inputs) -> tuple[str, ...]:
    second = inputs.config["second_judge_model"]
    return (inputs.config["judge_model"], *([second] if second else []))


STAGE = CallStage(
    name="check_win",
    reads=("prompts", "personas", "pool_responses", "personal_responses", "selections"),
    writes=("win_check_judgments",),
    module=__name__,
    n_cells=lambda inputs: len(win_checks(inputs)),
    calls_per_cell=lambda inputs: len(ORDERS),
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=_models,
)
