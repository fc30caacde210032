"""From openings to prompts: filters, near-duplicates, ratings, a sample; every step is counted.

The filters ask, in this order: is there a response to work with; is the conversation of a wanted
type; did its author tell the responses apart (scores); is it said before; how controversial does a
rater find it; and in the end a random sample. What the paper took for controversial is not known
(METHOD section 2 gives only the number kept), so each filter is a setting.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from prompts.catalog import load_template
from prompts.verdict import Unparsed, parse_verdict
from tasks._llm.types import CallReply, CallRequest
from tasks._seeds import stable_shuffle
from tasks._stages.calls import CallStage, Complete
from tasks._stages.near_duplicates import merged_into
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES

HAS_RESPONSE = "has a response"
IS_OF_TYPE = "is of a wanted type"
HAS_SPREAD = "its scores differ"
IS_NEW = "is no near-duplicate"
IS_RATED = "has a usable rating"
IS_DIVISIVE = "is rated controversial"
IN_SAMPLE = "is in the sample"


def score_spreads(responses: pa.Table) -> dict[str, float]:
    """Greatest minus smallest score of the responses of each opening with two scores or more."""
    scores: dict[str, list[float]] = {}
    for row in responses.select(["opening_id", "human_score"]).to_pylist():
        if row["human_score"] is not None:
            scores.setdefault(row["opening_id"], []).append(row["human_score"])
    return {one: max(some) - min(some) for one, some in scores.items() if len(some) > 1}


def sift(inputs: Inputs) -> dict[str, Output]:
    """Applies the filters that need no call.

    Where an opening has no scores there is nothing to tell by, so ``min_score_spread`` lets it
    pass. ``is_chosen`` is not asked: it names one response a turn, in a tie at random, and so
    does not say whether responses differ.
    """
    config = inputs.config
    openings = inputs.read("openings").to_pylist()
    responses = inputs.read("opening_responses")
    answered = set(responses["opening_id"].to_pylist())
    spreads = score_spreads(responses)
    least = config["min_score_spread"]
    left_out: dict[str, str] = {}
    for row in openings:
        one = row["opening_id"]
        if one not in answered:
            left_out[one] = HAS_RESPONSE
        elif row["conversation_type"] not in config["conversation_types"]:
            left_out[one] = IS_OF_TYPE
        elif least is not None and spreads.get(one, least) < least:
            left_out[one] = HAS_SPREAD
    texts = {
        row["opening_id"]: row["prompt_text"]
        for row in openings
        if row["opening_id"] not in left_out
    }
    merged = merged_into(texts, config["duplicate_similarity"])
    left_out |= dict.fromkeys(merged, IS_NEW)
    ids = [row["opening_id"] for row in openings]
    rows = pa.table(
        {
            "opening_id": ids,
            "left_out_by": pa.array([left_out.get(one) for one in ids], pa.string()),
            "merged_into_id": pa.array([merged.get(one) for one in ids], pa.string()),
        },
        TABLES["candidates"].schema,
    )
    return {"candidates": Output(rows)}


def _candidates(inputs: Inputs) -> list[str]:
    rows = inputs.read("candidates").to_pylist()
    return [row["opening_id"] for row in rows if row["left_out_by"] is None]


def rate_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks for a rating of candidates [start, stop)."""
    config = inputs.config
    template = load_template(config["template"])
    text = inputs.lookup("openings", "opening_id", "prompt_text")
    ids = _candidates(inputs)[start:stop]
    calls = [
        CallRequest(
            endpoint_name=config["endpoint_name"],
            model=config["judge_model"],
            messages=tuple(template.render(prompt=text[one])),
            sampling=config["sampling"],
        )
        for one in ids
    ]
    rows = []
    for one, call, reply in zip(ids, calls, complete(calls), strict=True):
        rows.append(
            {
                "opening_id": one,
                "request_key": call.key,
                "rating_model": call.model,
                "reply_text": reply.text,
                **_read(reply, config["template"]),
            }
        )
    return pa.Table.from_pylist(rows, TABLES["prompt_ratings"].schema)


def _read(reply: CallReply, template: str) -> dict[str, str | None]:
    if reply.finish_reason == "content_filter":
        return {"rating": None, "unparsed_reason": "content_filter"}
    menu = load_template(template).menu
    is_truncated = reply.finish_reason == "length"
    parsed = (
        parse_verdict(reply.text or "", menu, is_truncated=is_truncated)
        if menu
        else Unparsed("no_verdict")
    )
    if isinstance(parsed, Unparsed):
        return {"rating": None, "unparsed_reason": parsed.reason}
    return {"rating": parsed.option, "unparsed_reason": None}


def choose(inputs: Inputs) -> dict[str, Output]:
    """Writes ``prompts`` and how many each filter left: ``prompt_funnel``."""
    config = inputs.config
    candidates = inputs.read("candidates").to_pylist()
    left_out = {row["opening_id"]: row["left_out_by"] for row in candidates}
    least = config["min_rating"]
    if least is not None:
        rating = inputs.lookup("prompt_ratings", "opening_id", "rating")
        for one in [one for one, by in left_out.items() if by is None]:
            if rating[one] is None:
                left_out[one] = IS_RATED
            elif int(rating[one]) < least:
                left_out[one] = IS_DIVISIVE
    ids = [one for one, by in left_out.items() if by is None]
    wanted = config["n_prompts"]
    if len(ids) < max(wanted or 0, 2):
        raise InputRejected(
            f"choose.n_prompts: {len(ids)} prompts pass the filters; expected at least"
            f" {max(wanted or 0, 2)}; ask for fewer, or loosen sift and rate (`prompt_funnel` of"
            " an earlier run shows what each leaves out)"
        )
    if wanted is not None:
        sample = set(stable_shuffle(config["seed"], "prompts", ids)[:wanted])
        left_out |= {one: IN_SAMPLE for one in ids if one not in sample}
    text = inputs.lookup("openings", "opening_id", "prompt_text")
    made_up = inputs.lookup("openings", "opening_id", "is_generated")
    chosen = sorted(one for one, by in left_out.items() if by is None)
    prompts = pa.table(
        {
            "prompt_id": chosen,
            "prompt_text": [text[one] for one in chosen],
            "prompt_source": ["generated" if made_up[one] else "prism" for one in chosen],
        },
        TABLES["prompts"].schema,
    )
    return {"prompts": Output(prompts), "prompt_funnel": Output(_funnel(inputs, left_out))}


def _funnel(inputs: Inputs, left_out: dict[str, str | None]) -> pa.Table:
    config = inputs.config
    filters = {
        "is in the data set": None,
        HAS_RESPONSE: None,
        IS_OF_TYPE: config["conversation_types"],
        HAS_SPREAD: config["min_score_spread"],
        IS_NEW: config["duplicate_similarity"],
        IS_RATED: config["min_rating"] is not None,
        IS_DIVISIVE: config["min_rating"],
        IN_SAMPLE: config["n_prompts"],
    }
    reasons = list(left_out.values())
    rows: list[dict[str, Any]] = []
    left = len(reasons)
    for number, (name, setting) in enumerate(filters.items()):
        count = reasons.count(name)
        left -= count
        rows.append(
            {
                "funnel_step": number,
                "filter": name,
                "filter_setting": json.dumps(setting),
                "n_left_out": count,
                "n_left": left,
            }
        )
    return pa.Table.from_pylist(rows, TABLES["prompt_funnel"].schema)


SIFT_STAGE = Stage(
    name="sift",
    reads=("openings", "opening_responses"),
    writes=("candidates",),
    module=__name__,
    build=sift,
)
RATE_STAGE = CallStage(
    name="rate",
    reads=("openings", "candidates"),
    writes=("prompt_ratings",),
    module=__name__,
    # Without a least rating nobody is asked, and the stage writes no rows.
    n_cells=lambda inputs: (
        len(_candidates(inputs)) if inputs.config["min_rating"] is not None else 0
    ),
    calls_per_cell=lambda inputs: 1,
    run_cells=rate_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=lambda inputs: (inputs.config["judge_model"],),
)
CHOOSE_STAGE = Stage(
    name="choose",
    reads=("openings", "candidates", "prompt_ratings"),
    writes=("prompts", "prompt_funnel"),
    module=__name__,
    build=choose,
)
