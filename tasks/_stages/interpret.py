"""What each base reward is about: variance, examples, traits of those who want it, a label.

Labels come from a language model that sees texts only; nothing here changes a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prompts.catalog import load_template
from prompts.label import parse_label
from prompts.traits import ATTRIBUTES, attribute_of, sign
from tasks._convert import index_of, vectors
from tasks._llm.types import CallRequest
from tasks._stages.calls import CallStage, Complete
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES

ENDS = ("top", "bottom")


def build(inputs: Inputs) -> dict[str, Output]:
    """Explained variance, top and bottom responses, and correlations with the true traits.

    A base reward is known up to a constant a prompt, so responses are ranked by how far they lie
    above or below the mean of their prompt's responses.
    """
    from pref_model.basis import explained_variance

    rewards = inputs.read("base_rewards")
    ids = rewards["response_id"].to_pylist()
    values = vectors(rewards["base_rewards"])
    place = index_of(ids)
    users = inputs.read("user_weights")
    weights = vectors(users["weights"])
    seen = {
        row["entity_id"]
        for row in inputs.read("splits").to_pylist()
        if row["entity_kind"] == "pair" and row["side"] == "seen"
    }
    pairs = [row for row in inputs.read("pairs").to_pylist() if row["pair_id"] in seen]
    differences = (
        values[[place[row["response_a_id"]] for row in pairs]]
        - values[[place[row["response_b_id"]] for row in pairs]]
    )
    explained = explained_variance(weights, differences)
    facts = [
        {
            "base_reward": number,
            "explained_share": float(share),
            "weight_mean": float(weights[:, number - 1].mean()),
            "n_users": len(weights),
        }
        for number, share in enumerate(explained, start=1)
    ]
    return {
        "base_reward_facts": _output("base_reward_facts", facts),
        "base_reward_examples": _output("base_reward_examples", _examples(inputs, ids, values)),
        "trait_correlations": _output(
            "trait_correlations",
            correlations(inputs, users["persona_id"].to_pylist(), weights),
        ),
    }


def _output(name: str, rows: list[dict[str, Any]]) -> Output:
    return Output(pa.Table.from_pylist(rows, TABLES[name].schema))


def _examples(inputs: Inputs, ids: list[str], values: NDArray[np.float64]) -> list[dict[str, Any]]:
    prompt_of = inputs.lookup("responses", "response_id", "prompt_id")
    _, group = np.unique([prompt_of[one] for one in ids], return_inverse=True)
    count = np.bincount(group)
    means = np.stack([np.bincount(group, column) / count for column in values.T], axis=1)
    apart = values - means[group]
    n_shown = min(inputs.config["n_examples"], len(ids) // 2)
    rows = []
    for number, column in enumerate(apart.T, start=1):
        order = np.argsort(-column, kind="stable")
        for end, chosen in zip(ENDS, (order[:n_shown], order[::-1][:n_shown]), strict=True):
            rows += [
                {
                    "base_reward": number,
                    "end": end,
                    "place": step,
                    "response_id": ids[row],
                    "deviation_logit": float(column[row]),
                }
                for step, row in enumerate(chosen, start=1)
            ]
    return rows


def correlations(
    inputs: Inputs, personas: list[str], weights: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Correlation over users of each weight with each signed trait; none where none are known.

    A persona counts +1 for an attribute's first trait, -1 for its second, 0 for neither.
    """
    traits = {
        row["persona_id"]: [row[name] for name in ("trait_1", "trait_2") if row[name] is not None]
        for row in inputs.read("personas").to_pylist()
    }
    if not any(traits.values()):
        return []
    names = [one.name for one in ATTRIBUTES]
    truth = np.zeros((len(personas), len(names)))
    for row, persona in enumerate(personas):
        for trait in traits[persona]:
            truth[row, names.index(attribute_of(trait).name)] = sign(trait)
    rows = []
    for number, column in enumerate(weights.T, start=1):
        for name, wanted in zip(names, truth.T, strict=True):
            is_constant = np.ptp(column) == 0.0 or np.ptp(wanted) == 0.0
            found = None if is_constant else float(np.corrcoef(column, wanted)[0, 1])
            rows.append(
                {
                    "base_reward": number,
                    "attribute": name,
                    "correlation": found,
                    "n_users": len(personas),
                }
            )
    return rows


def _n_rewards(inputs: Inputs) -> int:
    return max(inputs.read("base_reward_examples")["base_reward"].to_pylist(), default=0)


def run_cells(inputs: Inputs, start: int, stop: int, complete: Complete) -> pa.Table:
    """Asks for a label of base rewards (start, stop]."""
    config = inputs.config
    template = load_template(config["template"])
    text = inputs.lookup("responses", "response_id", "response_text")
    shown: dict[tuple[int, str], list[str]] = {}
    for row in inputs.read("base_reward_examples").to_pylist():
        shown.setdefault((row["base_reward"], row["end"]), []).append(text[row["response_id"]])
    numbers = range(start + 1, stop + 1)
    calls = [
        CallRequest(
            endpoint_name=config["endpoint_name"],
            model=config["judge_model"],
            messages=tuple(
                template.render(high=_listed(shown[one, "top"]), low=_listed(shown[one, "bottom"]))
            ),
            sampling=config["sampling"],
        )
        for one in numbers
    ]
    rows = []
    for number, call, reply in zip(numbers, calls, complete(calls), strict=True):
        label = parse_label(reply.text, is_truncated=reply.finish_reason == "length")
        is_filtered = reply.finish_reason == "content_filter"
        rows.append(
            {
                "base_reward": number,
                "request_key": call.key,
                "label_model": call.model,
                "label": None if is_filtered else label.text,
                "unparsed_reason": "content_filter" if is_filtered else label.fault,
                "reply_text": reply.text,
            }
        )
    return pa.Table.from_pylist(rows, TABLES["base_reward_labels"].schema)


def _listed(texts: list[str]) -> str:
    return "\n\n".join(f"Response {n}:\n{text}" for n, text in enumerate(texts, start=1))


STAGE = Stage(
    name="interpret",
    reads=("personas", "responses", "pairs", "splits", "base_rewards", "user_weights"),
    writes=("base_reward_facts", "base_reward_examples", "trait_correlations"),
    module=__name__,
    build=build,
)
LABEL_STAGE = CallStage(
    name="label",
    reads=("responses", "base_reward_examples"),
    writes=("base_reward_labels",),
    module=__name__,
    n_cells=_n_rewards,
    calls_per_cell=lambda inputs: 1,
    run_cells=run_cells,
    templates=lambda inputs: (inputs.config["template"],),
    models=lambda inputs: (inputs.config["judge_model"],),
)
