"""Responses written for one user: by the user's own words, by choices in context, by a summary.

One interface for all ways to personalize: they end as rows of ``selections``, a base response and
the personalized one beside it. Best-of-N chooses from a pool (`tasks._stages.personalize`); what is
written here is chosen as it is. Calls, tokens and money stand beside every text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from prompts.examples import Choice, examples_text
from tasks._llm.types import CallReply, CallRequest
from tasks._stages.calls import CallStage, Complete
from tasks._stages.personalize import pool_prompts, reply_cost
from tasks._stages.respond import request
from tasks._stages.stage import Inputs
from warehouse.tables import TABLES

SYSTEM_PROMPT, IN_CONTEXT, SUMMARY = "system_prompt", "in_context", "summary"
WRITERS = (IN_CONTEXT, SUMMARY, SYSTEM_PROMPT)
_TEMPLATES = {
    IN_CONTEXT: "in_context_template",
    SUMMARY: "wishes_template",
    SYSTEM_PROMPT: "wishes_template",
}


class WriteCell(NamedTuple):
    """One response to write: how, for whom, to what."""

    method: str
    persona_id: str
    prompt_id: str


def new_personas(inputs: Inputs) -> list[str]:
    """The held-out users, in id order."""
    splits = inputs.read("splits")
    new = splits.filter(
        pc.and_(pc.equal(splits["entity_kind"], "persona"), pc.equal(splits["side"], "new"))
    )
    return sorted(new["entity_id"].to_pylist())


def examples_of(inputs: Inputs) -> dict[str, str]:
    """Each new user's first answers as a prompt shows them; ties, and users without, left out."""
    text = inputs.lookup("responses", "response_id", "response_text")
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    pairs = {row["pair_id"]: row for row in inputs.read("pairs").to_pylist()}
    choices: dict[str, list[Choice]] = {}
    for row in inputs.read("questions").to_pylist():
        if row["step"] > inputs.config["n_answers"] or row["answer_prob"] == 0.5:
            continue
        pair = pairs[row["pair_id"]]
        sides = [text[pair["response_a_id"]], text[pair["response_b_id"]]]
        if row["answer_prob"] < 0.5:
            sides.reverse()
        choices.setdefault(row["persona_id"], []).append(Choice(prompt[pair["prompt_id"]], *sides))
    return {persona: examples_text(found) for persona, found in choices.items()}


def summary_cells(inputs: Inputs) -> list[str]:
    """Users whose answers are to be summed up."""
    if SUMMARY not in inputs.config["also"]:
        return []
    known = examples_of(inputs)
    return [one for one in new_personas(inputs) if one in known]


def run_summaries(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Has the answers of users [start, stop) put into words."""
    examples = examples_of(inputs)
    template = inputs.config["summary_template"]
    work = [
        (persona, request(inputs, template, {"examples": examples[persona]}))
        for persona in summary_cells(inputs)[start:stop]
    ]
    replies = complete([call for _, call in work])
    rows = [
        {
            "persona_id": persona,
            "n_answers": inputs.config["n_answers"],
            "summary_text": (reply.text or "").strip() or None,
            **_written(call, reply),
        }
        for (persona, call), reply in zip(work, replies, strict=True)
    ]
    return pa.Table.from_pylist(rows, TABLES["taste_summaries"].schema)


def told_of(inputs: Inputs, method: str) -> dict[str, dict[str, str]]:
    """What a method tells the writer of each user, as slots; without users it knows nothing of."""
    if method == IN_CONTEXT:
        return {one: {"examples": text} for one, text in examples_of(inputs).items()}
    if method == SUMMARY:
        wishes = inputs.lookup("taste_summaries", "persona_id", "summary_text")
    else:
        wishes = inputs.lookup("personas", "persona_id", "system_text")
    return {one: {"wishes": text} for one, text in wishes.items() if text is not None}


def base_of(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """The base response of each prompt that has one with text."""
    return {
        row["prompt_id"]: row
        for row in inputs.read("pool_responses").to_pylist()
        if row["response_role"] == "base" and row["response_text"] is not None
    }


def write_cells(inputs: Inputs) -> list[WriteCell]:
    """All responses to write, by method, user and prompt."""
    prompts = sorted(base_of(inputs)) if set(WRITERS) & set(inputs.config["also"]) else []
    cells = []
    for method in WRITERS if prompts else ():
        if method in inputs.config["also"]:
            known = told_of(inputs, method)
            users = [one for one in new_personas(inputs) if one in known]
            cells += [WriteCell(method, user, prompt) for user in users for prompt in prompts]
    return cells


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Writes responses [start, stop)."""
    config = inputs.config
    base = base_of(inputs)
    text = {one["prompt_id"]: one["prompt_text"] for one in pool_prompts(inputs)}
    cells = write_cells(inputs)[start:stop]
    told = {method: told_of(inputs, method) for method in {one.method for one in cells}}
    work = [
        (
            one,
            request(
                inputs,
                config[_TEMPLATES[one.method]],
                {"prompt": text[one.prompt_id], **told[one.method][one.persona_id]},
            ),
        )
        for one in cells
    ]
    replies = complete([call for _, call in work])
    rows = [
        {
            "response_id": f"{one.prompt_id}/{one.method}/{one.persona_id}",
            "method": one.method,
            "n_answers": config["n_answers"],
            "toward_persona_id": one.persona_id,
            "prompt_id": one.prompt_id,
            "parent_response_id": base[one.prompt_id]["response_id"],
            "response_text": (reply.text or "").strip() or None,
            **_written(call, reply),
        }
        for (one, call), reply in zip(work, replies, strict=True)
    ]
    rows.sort(key=lambda row: str(row["response_id"]))
    return pa.Table.from_pylist(rows, TABLES["personal_responses"].schema)


def _written(call: CallRequest, reply: CallReply) -> dict[str, Any]:
    return {
        "finish_reason": reply.finish_reason,
        "request_key": call.key,
        "response_model": call.model,
        **reply_cost(reply),
    }


SUMMARIZE_STAGE = CallStage(
    name="summarize",
    reads=("prompts", "responses", "pairs", "splits", "questions"),
    writes=("taste_summaries",),
    module=__name__,
    n_cells=lambda inputs: len(summary_cells(inputs)),
    calls_per_cell=lambda _inputs: 1,
    run_cells=run_summaries,
    templates=lambda inputs: (inputs.config["summary_template"],),
    models=lambda inputs: (inputs.config["responder_model"],),
)
STAGE = CallStage(
    name="write",
    reads=(
        "prompts", "personas", "responses", "pairs", "splits", "questions", "pool_responses",
        "taste_summaries",
    ),
    writes=("personal_responses",),
    module=__name__,
    n_cells=lambda inputs: len(write_cells(inputs)),
    calls_per_cell=lambda _inputs: 1,
    run_cells=run_cells,
    templates=lambda inputs: (
        inputs.config["wishes_template"],
        inputs.config["in_context_template"],
    ),
    models=lambda inputs: (inputs.config["responder_model"],),
)  # fmt: skip
