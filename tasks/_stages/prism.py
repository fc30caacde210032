"""The ingest of PRISM: its participants as personas, its openings, their first responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from prompts.profiles import prism_profile, prism_system_text
from tasks._seeds import stable_shuffle
from tasks._stages.prism_files import PrismData, read_prism
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.tables import TABLES


def persona_rows(data: PrismData, template: str, *, keep_merged: bool) -> list[dict[str, Any]]:
    """One persona for each participant whose survey tells anything of the person.

    Args:
        data: PRISM's rows.
        template: Name of the profile template.
        keep_merged: Whether to keep rows marked ``x_maybe_merged``, as a partial copy of PRISM
            marks those that are likely to be several people.
    """
    rows = []
    for one in data.survey:
        profile = prism_profile(one, template)
        if profile is None or (one.get("x_maybe_merged") is True and not keep_merged):
            continue
        rows.append(
            {
                "persona_id": one["user_id"],
                "persona_kind": "prism",
                "trait_1": None,
                "trait_2": None,
                "profile_text": profile,
                "system_text": prism_system_text(one),
            }
        )
    return rows


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``personas``, ``openings`` and ``opening_responses``."""
    config = inputs.config
    data = read_prism(Path(inputs.plan.places["prism"]))
    everyone = persona_rows(data, config["profile_template"], keep_merged=config["keep_merged"])
    ids = [row["persona_id"] for row in everyone]
    wanted = config["n_personas"] or len(ids)
    if len(ids) < max(wanted, 1):
        raise InputRejected(
            f"prism: {len(ids)} participants have a profile; expected at least ingest.n_personas ="
            f" {max(wanted, 1)}; ask for fewer, or use a fuller copy of the data"
        )
    chosen = set(stable_shuffle(config["seed"], "personas", ids)[:wanted])
    openings = [
        {
            "opening_id": one.conversation_id,
            "author_id": one.user_id,
            "conversation_type": one.conversation_type,
            "prompt_text": one.prompt.strip(),
        }
        for one in data.openings
    ]
    responses = [
        {
            "response_id": one.utterance_id,
            "opening_id": one.conversation_id,
            "response_text": one.text,
            "response_model": one.model,
            "human_score": one.score,
            "is_chosen": one.is_chosen,
        }
        for one in data.responses
    ]
    rows = {
        "personas": [row for row in everyone if row["persona_id"] in chosen],
        "openings": openings,
        "opening_responses": responses,
    }
    return {
        name: Output(pa.Table.from_pylist(some, TABLES[name].schema)) for name, some in rows.items()
    }


STAGE = Stage(
    name="prism",
    reads=(),
    writes=("personas", "openings", "opening_responses"),
    module=__name__,
    build=build,
)
