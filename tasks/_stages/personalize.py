"""Best-of-N: a pool for each held-out prompt and each user's choice of it.

A pool holds revisions of the base response toward random traits, plain samples like the base, or
both. What is written for one user alone is `tasks._stages.write`'s; both end in ``selections``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prompts.personas import attribute_personas
from prompts.traits import style_text
from tasks._convert import index_of, vectors
from tasks._llm.types import CallReply
from tasks._seeds import stable_shuffle
from tasks._stages.adapt import METHODS
from tasks._stages.calls import CallStage, Complete
from tasks._stages.respond import request, response_row
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES


def pool_prompts(inputs: Inputs) -> list[dict[str, Any]]:
    """The held-out prompts for which responses are personalized, in id order."""
    splits = inputs.read("splits")
    new = splits.filter(
        pc.and_(pc.equal(splits["entity_kind"], "pair"), pc.equal(splits["side"], "new"))
    )
    prompt_of = inputs.lookup("pairs", "pair_id", "prompt_id")
    ids = sorted({prompt_of[pair] for pair in new["entity_id"].to_pylist()})
    wanted = inputs.config["n_prompts"]
    if wanted is not None:
        ids = sorted(stable_shuffle(inputs.config["seed"], "win-prompts", ids)[:wanted])
    text = inputs.lookup("prompts", "prompt_id", "prompt_text")
    return [{"prompt_id": one, "prompt_text": text[one]} for one in ids]


def pool_styles(seed: int, prompt_id: str, size: int) -> list[tuple[str, str]]:
    """The random pairs of traits that a prompt's revisions are made with, no pair twice in 84."""
    everyone = {one.persona_id: one.traits for one in attribute_personas()}
    order = stable_shuffle(seed, f"pool-{prompt_id}", everyone)
    return [everyone[order[index % len(order)]] for index in range(size)]


def reply_cost(reply: CallReply) -> dict[str, Any]:
    """What a reply took, in columns of its row."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost_usd": reply.cost_usd,
    }


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Answers prompts [start, stop) plainly, then revises the first answer in every style."""
    config = inputs.config
    prompts = pool_prompts(inputs)[start:stop]
    # The base is the first of the plain answers, so that the others are samples like it.
    plain = [
        (one, number, request(inputs, config["base_template"], slots, repeat=number))
        for one in prompts
        for slots in ({"prompt": one["prompt_text"]},)
        for number in range(1 + config["n_samples"])
    ]
    rows: list[dict[str, Any]] = []
    work = []
    replies = complete([call for *_, call in plain])
    for (prompt, sample, call), reply in zip(plain, replies, strict=True):
        prompt_id = prompt["prompt_id"]
        row = response_row(
            reply,
            call,
            prompt_id=prompt_id,
            role="sample" if sample else "base",
            suffix=f"sample-{sample:03d}" if sample else "base",
            style=None,
        )
        rows.append(row | reply_cost(reply))
        base = row
        if sample or base["response_text"] is None:
            continue
        for number, traits in enumerate(
            pool_styles(config["seed"], prompt_id, config["pool_size"])
        ):
            slots = {
                "prompt": prompt["prompt_text"],
                "draft": base["response_text"],
                "style": style_text(traits),
            }
            revision = request(inputs, config["revise_template"], slots)
            work.append((base, number, traits, revision))
    replies = complete([call for *_, call in work])
    for (base, number, traits, call), reply in zip(work, replies, strict=True):
        revised = response_row(
            reply,
            call,
            prompt_id=base["prompt_id"],
            role="revision",
            suffix=f"revision-{number:03d}",
            style="+".join(traits),
            parent=base["response_id"],
        )
        rows.append(revised | reply_cost(reply))
    rows.sort(key=lambda row: str(row["response_id"]))
    return pa.Table.from_pylist(rows, TABLES["pool_responses"].schema)


def rewards(
    inputs: Inputs, method: str, n_answers: int, embeddings: NDArray[np.float64]
) -> tuple[list[str], NDArray[np.float64]]:
    """Rewards of responses for every new user by one method (eq 3).

    Args:
        inputs: A plan that reads ``adapted_weights`` and ``models``.
        method: ``pref``, ``classic`` or ``per_user``.
        n_answers: Answers known of each user.
        embeddings: (R, D) of responses, or (M, D) of differences, which gives margins.

    Returns:
        Persona ids and (U, R) rewards.
    """
    from pref_model.checkpoint import load_model

    table = inputs.read("adapted_weights")
    mine = table.filter(
        pc.and_(pc.equal(table["method"], method), pc.equal(table["n_answers"], n_answers))
    )
    weights = vectors(mine["weights"])
    personas = mine["persona_id"].to_pylist()
    if method == "per_user":
        return personas, weights @ embeddings.T
    model = load_model(inputs.folder("models"), method)
    return personas, weights @ model.pair_features(embeddings).T


def select(inputs: Inputs) -> dict[str, Output]:
    """Each new user's personalized response to each held-out prompt, by each method.

    Every method of `adapt` takes its best revision after each number of answers; ``pref_samples``
    is PReF's best plain sample; what was written for a user, after ``n_answers``, is taken as it
    is.
    """
    base = {
        row["prompt_id"]: row["response_id"]
        for row in inputs.read("pool_responses").to_pylist()
        if row["response_role"] == "base"
    }
    counts = _counts(inputs)
    chosen = [
        (method, *choice)
        for method, role, rewarded in (
            *((method, "revision", method) for method in METHODS),
            ("pref_samples", "sample", "pref"),
        )
        for choice in _best(inputs, role, rewarded, counts)
    ]
    chosen += [
        (row["method"], counts[0], row["toward_persona_id"], row["prompt_id"], row["response_id"])
        for row in inputs.read("personal_responses").to_pylist()
        if row["response_text"] is not None
    ]
    rows = [
        {
            "persona_id": persona,
            "method": method,
            "n_answers": n_answers,
            "prompt_id": prompt,
            "response_id": response,
            "base_response_id": base[prompt],
        }
        for method, n_answers, persona, prompt, response in chosen
    ]
    rows.sort(key=lambda row: tuple(row[name] for name in TABLES["selections"].key))
    return {"selections": Output(pa.Table.from_pylist(rows, TABLES["selections"].schema))}


def _counts(inputs: Inputs) -> list[int]:
    """Numbers of answers to choose after, the one that tables show first.

    A further number that there were too few pairs for is left out, as it is of AUC.
    """
    wanted = inputs.config["n_answers"]
    there = set(inputs.read("adapted_weights")["n_answers"].to_pylist())
    if wanted not in there:
        raise InputRejected(
            f"win.n_answers: {wanted}, and there were not so many pairs to ask a user about;"
            f" expected one of {', '.join(map(str, sorted(there)))}; set win.n_answers"
        )
    return [wanted, *(one for one in inputs.config["also_answers"] if one in there)]


def _best(
    inputs: Inputs, role: str, method: str, counts: Sequence[int]
) -> list[tuple[int, str, str, str]]:
    """Answers, persona, prompt, and the candidate of that role that the reward ranks first."""
    from pref_model.bestofn import best_of_n

    embedded = inputs.read("pool_embeddings")
    ids = embedded["response_id"].to_pylist()
    place = index_of(ids)
    pool: dict[str, list[str]] = {}
    for row in inputs.read("pool_responses").to_pylist():
        if row["response_role"] == role and row["response_id"] in place:
            pool.setdefault(row["prompt_id"], []).append(row["response_id"])
    if not pool:
        return []
    prompts = sorted(pool)
    candidates = np.full((len(prompts), max(map(len, pool.values()))), -1, np.int64)
    for index, prompt in enumerate(prompts):
        candidates[index, : len(pool[prompt])] = [place[one] for one in pool[prompt]]
    embeddings = vectors(embedded["embedding"])
    found = []
    for count in counts:
        personas, scored = rewards(inputs, method, count, embeddings)
        found += [
            (count, persona, prompt, ids[row])
            for persona, rows in zip(personas, best_of_n(scored, candidates), strict=True)
            for prompt, row in zip(prompts, rows, strict=True)
        ]
    return found


POOL_STAGE = CallStage(
    name="pool",
    reads=("prompts", "pairs", "splits"),
    writes=("pool_responses",),
    module=__name__,
    n_cells=lambda inputs: len(pool_prompts(inputs)),
    calls_per_cell=lambda inputs: (
        1 + int(inputs.config["n_samples"]) + int(inputs.config["pool_size"])
    ),
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["base_template"], inputs.config["revise_template"]),
    models=lambda inputs: (inputs.config["responder_model"],),
)
SELECT_STAGE = Stage(
    name="select",
    reads=(
        "pool_responses", "pool_embeddings", "models", "adapted_weights", "personal_responses",
    ),
    writes=("selections",),
    module=__name__,
    build=select,
)  # fmt: skip
