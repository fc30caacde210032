"""PRISM's pairs: a response of the data set against its revision toward a random user.

The revision takes two calls: a critique of the response in the light of the user's profile, then
a rewrite that follows the critique (PERSONA protocol, METHOD section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tasks._llm.types import CallRequest
from tasks._seeds import stable_choice, stable_integer
from tasks._stages.calls import CallStage, Complete
from tasks._stages.priorities import priorities
from tasks._stages.respond import request, response_row
from tasks._stages.stage import Inputs, Output
from warehouse.tables import TABLES

CALLS = 2


def draw_users(seed: int, personas: Sequence[str], prompts: Sequence[str]) -> dict[str, str]:
    """The random user whom each prompt's revision is for, whoever wrote the prompt.

    One persona more takes its share of the prompts and changes no other's.
    """
    least = priorities(seed, "toward", personas, prompts).argmin(axis=0)
    return {prompt: personas[row] for prompt, row in zip(prompts, least, strict=True)}


def base_rows(inputs: Inputs, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """A random response of the data set for each prompt."""
    seed = inputs.config["seed"]
    given: dict[str, list[dict[str, Any]]] = {}
    for row in inputs.read("opening_responses").to_pylist():
        given.setdefault(row["opening_id"], []).append(row)
    rows = []
    for prompt_id in prompts:
        source = stable_choice(seed, given[prompt_id], "base", prompt_id)
        rows.append(
            {
                "response_id": f"{prompt_id}/base",
                "prompt_id": prompt_id,
                "response_role": "base",
                "style": None,
                "parent_response_id": source["response_id"],
                "response_text": source["response_text"],
                "finish_reason": None,
                "request_key": None,
                "response_model": source["response_model"],
                "toward_persona_id": None,
            }
        )
    return rows


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Criticizes and then rewrites the base responses of prompts [start, stop)."""
    config = inputs.config
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    prompts = inputs.read("prompts")["prompt_id"].to_pylist()[start:stop]
    toward = draw_users(config["seed"], inputs.read("personas")["persona_id"].to_pylist(), prompts)
    rows = base_rows(inputs, prompts)
    cells = []
    for base in rows:
        slots = {
            "persona": profile[toward[base["prompt_id"]]],
            "prompt": prompt[base["prompt_id"]],
            "draft": base["response_text"],
        }
        cells.append((base, slots, request(inputs, config["critique_template"], slots)))
    work: list[tuple[dict[str, Any], CallRequest]] = []
    replies = complete([call for *_, call in cells])
    for (base, slots, call), reply in zip(cells, replies, strict=True):
        critique = response_row(reply, call, **_of(base, "critique"))
        rows.append(critique)
        if critique["response_text"] is not None:
            slots = {**slots, "critique": critique["response_text"]}
            work.append((critique, request(inputs, config["rewrite_template"], slots)))
    replies = complete([call for _, call in work])
    for (critique, call), reply in zip(work, replies, strict=True):
        rows.append(response_row(reply, call, **_of(critique, "revision")))
    for row in rows:
        if row["response_role"] != "base":
            row["toward_persona_id"] = toward[row["prompt_id"]]
    rows.sort(key=lambda row: str(row["response_id"]))
    return pa.Table.from_pylist(rows, TABLES["responses"].schema)


def _of(row: dict[str, Any], role: str) -> dict[str, Any]:
    return {
        "prompt_id": row["prompt_id"],
        "role": role,
        "suffix": role,
        "style": None,
        "parent": row["response_id"],
    }


def make_pairs(inputs: Inputs, responses: pa.Table) -> dict[str, Output]:
    """Pairs of the prompts whose revision has a text, and another one than the base.

    Two equal texts would teach nothing and be answered by the judge's position bias alone.
    """
    text: dict[str, dict[str, str | None]] = {}
    for row in responses.to_pylist():
        text.setdefault(row["prompt_id"], {})[row["response_role"]] = row["response_text"]
    rows = []
    for prompt_id, found in sorted(text.items()):
        revision = found.get("revision")
        if revision is None or revision == found["base"]:
            continue
        roles = ["base", "revision"]
        if stable_integer(inputs.config["seed"], "pair-order", prompt_id) % 2:
            roles.reverse()
        rows.append(
            {
                "pair_id": prompt_id,
                "prompt_id": prompt_id,
                "response_a_id": f"{prompt_id}/{roles[0]}",
                "response_b_id": f"{prompt_id}/{roles[1]}",
            }
        )
    return {"pairs": Output(pa.Table.from_pylist(rows, TABLES["pairs"].schema))}


STAGE = CallStage(
    name="revise",
    reads=("prompts", "personas", "opening_responses"),
    writes=("responses", "pairs"),
    module=__name__,
    n_cells=lambda inputs: inputs.read("prompts").num_rows,
    calls_per_cell=lambda inputs: CALLS,
    run_cells=run_cells,
    templates=lambda inputs: (
        inputs.config["critique_template"],
        inputs.config["rewrite_template"],
    ),
    models=lambda inputs: (inputs.config["responder_model"],),
    finish=make_pairs,
)
