"""The ingest of PRISM: its participants as personas, its openings, their first responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from prompts.profiles import prism_profile, prism_system_text
from tasks._seeds import stable_shuffle
from tasks._stages.prism_files import PrismData, read_prism
from tasks._stages.prism_population import filled, is_generated
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.forgotten import is_forgotten
from warehouse.tables import TABLES


def persona_rows(data: PrismData, template: str) -> list[dict[str, Any]]:
    """One persona for each participant whose survey tells anything of the person.

    Args:
        data: PRISM's rows.
        template: Name of the profile template.
    """
    rows = []
    for one in data.survey:
        profile = prism_profile(one, template)
        if profile is None:
            continue
        rows.append(
            {
                "persona_id": one["user_id"],
                "persona_kind": "generated" if is_generated(one["user_id"]) else "prism",
                "trait_1": None,
                "trait_2": None,
                "profile_text": profile,
                "system_text": prism_system_text(one),
            }
        )
    return rows


def _data(inputs: Inputs) -> PrismData:
    """PRISM's rows, filled up with generated ones where that is asked for.

    A partial copy of PRISM marks rows that are likely to be several people (``x_maybe_merged``);
    they are left out unless ``keep_merged``.
    """
    config, places = inputs.config, inputs.plan.places
    data = read_prism(Path(places["prism"])) if "prism" in places else PrismData([], [], [])
    kept = [
        one for one in data.survey if one.get("x_maybe_merged") is not True or config["keep_merged"]
    ]
    everything = filled(
        data._replace(survey=kept),
        config["seed"],
        config["fill_personas"],
        config["fill_openings"],
    )
    return without(everything, config.get("forgotten", ()))


def without(data: PrismData, marks: Sequence[str]) -> PrismData:
    """The data less some participants, their openings and the responses to these.

    Args:
        data: PRISM's rows.
        marks: Who is left out, as `warehouse.forgotten` writes it.
    """
    if not marks:
        return data
    openings = [one for one in data.openings if not is_forgotten(one.user_id, marks)]
    kept = {one.conversation_id for one in openings}
    return PrismData(
        [one for one in data.survey if not is_forgotten(one["user_id"], marks)],
        openings,
        [one for one in data.responses if one.conversation_id in kept],
    )


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``personas``, ``openings`` and ``opening_responses``."""
    config = inputs.config
    data = _data(inputs)
    everyone = persona_rows(data, config["profile_template"])
    ids = [row["persona_id"] for row in everyone]
    wanted = config["n_personas"] or len(ids)
    if config.get("forgotten"):
        # Who asked for all of them is not to be stopped because one of them is to be left out.
        wanted = min(wanted, len(ids))
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
            "is_generated": is_generated(one.conversation_id),
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
            "is_generated": is_generated(one.utterance_id),
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
