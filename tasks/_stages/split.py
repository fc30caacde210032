"""Seen and new users, seen and new prompts. No prompt is ever on both sides."""

from __future__ import annotations

import pyarrow as pa

from tasks._seeds import stable_shuffle
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES


def held_out(seed: int, purpose: str, ids: list[str], share: float) -> set[str]:
    """A seeded sample of ``share`` of the ids, at least one of them and never all.

    Raises:
        InputRejected: Fewer than two ids.
    """
    if len(ids) < 2:
        raise InputRejected(
            f"split: {len(ids)} {purpose}; expected at least 2, one to learn from and one to hold"
            " out; add data"
        )
    wanted = min(max(round(share * len(ids)), 1), len(ids) - 1)
    return set(stable_shuffle(seed, f"split-{purpose}", ids)[:wanted])


def build(inputs: Inputs) -> dict[str, Output]:
    """Holds out users and prompts; a pair goes where its prompt goes."""
    config = inputs.config
    personas = inputs.read("personas")["persona_id"].to_pylist()
    pairs = inputs.read("pairs")
    prompt_of = dict(zip(pairs["pair_id"].to_pylist(), pairs["prompt_id"].to_pylist(), strict=True))
    new_users = held_out(config["seed"], "users", personas, config["new_user_share"])
    prompts = sorted(set(prompt_of.values()))
    new_prompts = held_out(config["seed"], "prompts", prompts, config["new_pair_share"])
    rows = [("pair", one, prompt_of[one] in new_prompts) for one in sorted(prompt_of)]
    rows += [("persona", one, one in new_users) for one in sorted(personas)]
    table = pa.table(
        {
            "entity_kind": [kind for kind, _, _ in rows],
            "entity_id": [one for _, one, _ in rows],
            "side": ["new" if is_new else "seen" for _, _, is_new in rows],
        },
        TABLES["splits"].schema,
    )
    return {"splits": Output(table)}


STAGE = Stage(
    name="split",
    reads=("personas", "pairs"),
    writes=("splits",),
    module=__name__,
    build=build,
)
