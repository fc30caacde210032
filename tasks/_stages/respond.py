"""Two contrasting responses a prompt, each written in the style of a random pair of traits."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from prompts.catalog import load_template
from prompts.personas import attribute_personas
from prompts.traits import attribute_of, style_text
from tasks._llm.types import CallReply, CallRequest
from tasks._seeds import stable_choice, stable_integer
from tasks._stages.calls import CallStage, Complete
from tasks._stages.stage import Inputs, Output
from warehouse.tables import TABLES

ROLES = ("pair_a", "pair_b")


def draw_styles(seed: int, prompt_id: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The traits of a prompt's two responses.

    The first pair of traits is uniform over the 84; the second is uniform over those that share
    no trait with it and oppose it in at least one attribute, so that every pair has a visible
    contrast for some users. Which of the two becomes response A is a coin toss.

    Args:
        seed: Seed of the run.
        prompt_id: The prompt.

    Returns:
        Traits of response A, traits of response B.
    """
    everyone = [one.traits for one in attribute_personas()]
    first = stable_choice(seed, everyone, "style-1", prompt_id)
    contrasting = [one for one in everyone if _contrasts(first, one)]
    second = stable_choice(seed, contrasting, "style-2", prompt_id)
    if stable_integer(seed, "style-order", prompt_id) % 2:
        return second, first
    return first, second


def _contrasts(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shared_attributes = {attribute_of(t).name for t in a} & {attribute_of(t).name for t in b}
    return bool(shared_attributes) and not set(a) & set(b)


def request(
    inputs: Inputs, template: str, slots: dict[str, str], *, repeat: int = 0
) -> CallRequest:
    """A call to the stage's responder model; a repeat asks for another draw of the same."""
    config = inputs.config
    return CallRequest(
        endpoint_name=config["endpoint_name"],
        model=config["responder_model"],
        messages=tuple(load_template(template).render(**slots)),
        sampling={**config["sampling"], **({"seed": repeat} if repeat else {})},
        repeat=repeat,
    )


def response_row(
    reply: CallReply,
    call: CallRequest,
    *,
    prompt_id: str,
    role: str,
    suffix: str,
    style: str | None,
    parent: str | None = None,
) -> dict[str, Any]:
    """One row of ``responses`` or ``pool_responses``; text is null when the model gave none."""
    text = (reply.text or "").strip()
    return {
        "response_id": f"{prompt_id}/{suffix}",
        "prompt_id": prompt_id,
        "response_role": role,
        "style": style,
        "parent_response_id": parent,
        "response_text": text or None,
        "finish_reason": reply.finish_reason,
        "request_key": call.key,
        "response_model": call.model,
    }


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Writes both responses of prompts [start, stop)."""
    prompts = inputs.read("prompts").slice(start, stop - start).to_pylist()
    config = inputs.config
    work = []
    for prompt in prompts:
        styles = draw_styles(config["seed"], prompt["prompt_id"])
        for role, traits in zip(ROLES, styles, strict=True):
            slots = {"prompt": prompt["prompt_text"], "style": style_text(traits)}
            work.append((prompt, role, traits, request(inputs, config["template"], slots)))
    replies = complete([call for *_, call in work])
    rows = [
        response_row(
            reply,
            call,
            prompt_id=prompt["prompt_id"],
            role=role,
            suffix=role[-1],
            style="+".join(traits),
        )
        for (prompt, role, traits, call), reply in zip(work, replies, strict=True)
    ]
    return pa.Table.from_pylist(rows, TABLES["responses"].schema)


def make_pairs(inputs: Inputs, responses: pa.Table) -> dict[str, Output]:
    """Pairs of the prompts for which both responses have text."""
    usable = responses.filter(pc.is_valid(responses["response_text"])).to_pylist()
    by_prompt: dict[str, dict[str, str]] = {}
    for row in usable:
        by_prompt.setdefault(row["prompt_id"], {})[row["response_role"]] = row["response_id"]
    rows = [
        {
            "pair_id": prompt_id,
            "prompt_id": prompt_id,
            "response_a_id": found["pair_a"],
            "response_b_id": found["pair_b"],
        }
        for prompt_id, found in sorted(by_prompt.items())
        if len(found) == len(ROLES)
    ]
    return {"pairs": Output(pa.Table.from_pylist(rows, TABLES["pairs"].schema))}


STAGE = CallStage(
    name="respond",
    reads=("prompts",),
    writes=("responses", "pairs"),
    module=__name__,
    n_cells=lambda inputs: inputs.read("prompts").num_rows,
    calls_per_cell=lambda inputs: len(ROLES),
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=lambda inputs: (inputs.config["responder_model"],),
    finish=make_pairs,
)
