"""Role-play judging: each persona sees each of its pairs in both orders, and the order is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from prompts.catalog import load_template
from prompts.verdict import parse_verdict
from tasks._convert import ORDERS, Order, Reading, presented, read_verdict, unparsed
from tasks._llm.replies import read_soft_verdict
from tasks._llm.types import CallReply, CallRequest
from tasks._stages.calls import CallStage, Complete
from tasks._stages.stage import Inputs
from warehouse.tables import TABLES

# As many as the field's endpoints agree to; `judge.sampling` can ask for another number.
_LOGPROBS = {"logprobs": True, "top_logprobs": 5}


def judge_request(
    inputs: Inputs, persona: str, prompt: str, text_a: str, text_b: str, order: Order, repeat: int
) -> CallRequest:
    """The call that asks one persona about two texts in one order."""
    config = inputs.config
    slots = {"persona": persona, "prompt": prompt, **presented(text_a, text_b, order)}
    return CallRequest(
        endpoint_name=config["endpoint_name"],
        model=config["judge_model"],
        messages=tuple(load_template(config["template"]).render(**slots)),
        # A repeat asks for another draw, so a server that takes seeds is given another one.
        sampling={
            **(_LOGPROBS if config["is_soft"] else {}),
            **config["sampling"],
            **({"seed": repeat} if repeat else {}),
        },
        repeat=repeat,
    )


def read_reply(inputs: Inputs, reply: CallReply, order: Order) -> Reading:
    """The verdict in a reply, with the reason where there is none."""
    menu = load_template(inputs.config["template"]).menu
    if reply.finish_reason == "content_filter":
        return unparsed("content_filter")
    if reply.refusal and not reply.text:
        return unparsed("refused")
    if menu is None:
        return unparsed("no_verdict")
    is_truncated = reply.finish_reason == "length"
    parsed = parse_verdict(reply.text or "", menu, is_truncated=is_truncated)
    soft = None
    if inputs.config["is_soft"]:
        # Options are positions in the menu, and the first one is the response shown first.
        soft = read_soft_verdict(reply.body, menu.options)
    return read_verdict(parsed, order, soft)


class Comparison(NamedTuple):
    """Two texts that one persona is to compare, and the columns that name the cell."""

    cell: dict[str, Any]
    persona: str
    prompt: str
    text_a: str
    text_b: str


def compare(
    inputs: Inputs, comparisons: Iterable[Comparison], complete: Complete
) -> list[dict[str, Any]]:
    """Asks for every comparison in both orders, every repeat; one row a reply, in key order."""
    work: list[tuple[Comparison, Order, int, CallRequest]] = []
    for one in comparisons:
        for order in ORDERS:
            for repeat in range(inputs.config["repeats"]):
                call = judge_request(
                    inputs, one.persona, one.prompt, one.text_a, one.text_b, order, repeat
                )
                work.append((one, order, repeat, call))
    replies = complete([call for *_, call in work])
    return [
        {
            **one.cell,
            "presentation_order": order,
            "repeat": repeat,
            "request_key": call.key,
            "judge_model": call.model,
            "reply_text": reply.text,
            **read_reply(inputs, reply, order)._asdict(),
        }
        for (one, order, repeat, call), reply in zip(work, replies, strict=True)
    ]


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks for cells [start, stop) of the design."""
    profile = inputs.lookup("personas", "persona_id", "profile_text")
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    text = inputs.lookup("responses", "response_id", "response_text")
    prompt_of = inputs.lookup("pairs", "pair_id", "prompt_id")
    first = inputs.lookup("pairs", "pair_id", "response_a_id")
    second = inputs.lookup("pairs", "pair_id", "response_b_id")
    comparisons = [
        Comparison(
            cell,
            profile[cell["persona_id"]],
            prompt[prompt_of[cell["pair_id"]]],
            text[first[cell["pair_id"]]],
            text[second[cell["pair_id"]]],
        )
        for cell in inputs.read("design").slice(start, stop - start).to_pylist()
    ]
    rows = compare(inputs, comparisons, complete)
    return pa.Table.from_pylist(rows, TABLES["judgments"].schema)


STAGE = CallStage(
    name="judge",
    reads=("prompts", "personas", "responses", "pairs", "design"),
    writes=("judgments",),
    module=__name__,
    n_cells=lambda inputs: inputs.read("design").num_rows,
    calls_per_cell=lambda inputs: len(ORDERS) * int(inputs.config["repeats"]),
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=lambda inputs: (inputs.config["judge_model"],),
)
