"""Asks judges the further questions that check them, and reads certainty where it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from prompts.verdict import Verdict, VerdictMenu, parse_verdict
from tasks._convert import ORDERS, Order
from tasks._llm.types import CallRequest
from tasks._stages.calls import CallStage, Complete
from tasks._stages.check_cells import HUMAN, SECOND_JUDGE, SEPARATOR, CheckCell, check_cells
from tasks._stages.judge import judge_request, read_reply
from tasks._stages.stage import Inputs
from warehouse.tables import TABLES

NOBODY = "Nothing is known of this person."
CERTAINTY = VerdictMenu("CERTAINTY", tuple(str(number) for number in range(101)))


class _Texts(NamedTuple):
    profile: str
    prompt: str
    a: str
    b: str


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks cells [start, stop); two equal responses in one order only, the other being the same."""
    asked: list[tuple[CheckCell, Order, int, Inputs, CallRequest]] = []
    for cell in check_cells(inputs)[start:stop]:
        view = _as(inputs, cell.kind)
        texts = _texts(inputs, cell)
        # One past the repeats of the run's own question, so that it is another draw.
        repeat = int(inputs.config["repeats"]) if cell.kind == "repeat" else 0
        for order in ORDERS[:1] if cell.kind == "identical" else ORDERS:
            call = judge_request(view, *texts, order, repeat)
            asked.append((cell, order, repeat, view, call))
    replies = complete([call for *_, call in asked])
    rows = []
    for (cell, order, repeat, view, call), reply in zip(asked, replies, strict=True):
        rows.append(
            {
                "check_kind": cell.kind,
                "persona_id": cell.persona_id,
                "item_id": cell.item_id,
                "presentation_order": order,
                "repeat": repeat,
                "shown_persona_id": cell.shown_persona_id,
                "request_key": call.key,
                "judge_model": call.model,
                "reply_text": reply.text,
                "certainty": read_certainty(reply.text) if cell.kind == HUMAN else None,
                **read_reply(view, reply, order)._asdict(),
            }
        )
    return pa.Table.from_pylist(rows, TABLES["check_judgments"].schema)


def read_certainty(text: str | None) -> float | None:
    """The whole number from 0 to 100 behind the last ``CERTAINTY:``; None without one."""
    found = parse_verdict(text, CERTAINTY)
    return float(found.option) if isinstance(found, Verdict) else None


def _as(inputs: Inputs, kind: str) -> Inputs:
    """The inputs with the judge and the template of a kind of check."""
    changes: dict[str, Any] = {}
    if kind == SECOND_JUDGE:
        changes["judge_model"] = inputs.config["second_judge_model"]
    if kind == HUMAN:
        changes["template"] = inputs.config["human_template"]
    if not changes:
        return inputs
    plan = inputs.plan.model_copy(update={"config": {**inputs.config, **changes}})
    return replace(inputs, plan=plan)


def _texts(inputs: Inputs, cell: CheckCell) -> _Texts:
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    shown = NOBODY if cell.shown_persona_id is None else profile[cell.shown_persona_id]
    if cell.kind == HUMAN:
        chosen, _, other = cell.item_id.partition(SEPARATOR)
        text = inputs.lookup("opening_responses", "response_id", "response_text")
        opening = inputs.lookup("opening_responses", "response_id", "opening_id")[chosen]
        prompt = inputs.lookup("openings", "opening_id", "prompt_text")[opening]
        return _Texts(shown, prompt, text[chosen], text[other])
    prompt_id = inputs.lookup("pairs", "pair_id", "prompt_id")[cell.item_id]
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")[prompt_id]
    text = inputs.lookup("responses", "response_id", "response_text")
    first = text[inputs.lookup("pairs", "pair_id", "response_a_id")[cell.item_id]]
    second = text[inputs.lookup("pairs", "pair_id", "response_b_id")[cell.item_id]]
    return _Texts(shown, prompt, first, first if cell.kind == "identical" else second)


def _models(inputs: Inputs) -> tuple[str, ...]:
    config = inputs.config
    second = config["second_judge_model"]
    return (config["judge_model"], *([second] if second else []))


def _templates(inputs: Inputs) -> tuple[str, ...]:
    config = inputs.config
    return (config["template"], *([config["human_template"]] if config["human_sample"] else []))


STAGE = CallStage(
    name="check",
    reads=("prompts", "personas", "responses", "pairs", "design"),
    writes=("check_judgments",),
    module=__name__,
    n_cells=lambda inputs: len(check_cells(inputs)),
    calls_per_cell=lambda inputs: len(ORDERS),
    run_cells=run_cells,
    templates=_templates,
    models=_models,
)
# PRISM's own choices are there to compare with.
PRISM_STAGE = replace(STAGE, reads=(*STAGE.reads, "openings", "opening_responses"))
