"""Embeddings of responses: computed once for each encoder and text, then read by every fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pref_model.encoder_spec import EncoderSpec, resolve_encoder
from tasks._convert import vector_column
from tasks._stages.stage import Inputs, Output, Stage
from tasks.config import EncoderConfig
from warehouse.tables import TABLES


def describe_encoder(config: EncoderConfig) -> dict[str, Any]:
    """What of the encoder enters the version: its settings, and the hash of its weights."""
    return {"encoder_id": _spec(config).encoder_id, **config.model_dump(mode="json")}


def _spec(config: EncoderConfig) -> EncoderSpec:
    return resolve_encoder(config.name, layers=config.layers, max_tokens=config.max_tokens)


def _embed(inputs: Inputs, source: str, target: str) -> dict[str, Output]:
    from pref_model.encoder import load_encoder

    prompt_of = inputs.lookup("prompts", "prompt_id", "prompt_text")
    # A critique is a step on the way to a response, and nobody is shown it.
    rows = [
        row
        for row in inputs.read(source).to_pylist()
        if row["response_text"] is not None and row["response_role"] != "critique"
    ]
    known = {name: inputs.config[name] for name in EncoderConfig.model_fields}
    encoder = load_encoder(_spec(EncoderConfig(**known)))
    encoded = encoder.encode(
        [prompt_of[row["prompt_id"]] for row in rows], [row["response_text"] for row in rows]
    )
    schema = TABLES[target].schema
    embeddings = vector_column(encoded.embeddings.astype(np.float32), pa.float32())
    table = pa.table(
        {"response_id": [row["response_id"] for row in rows], "embedding": embeddings}, schema
    )
    return {target: Output(table.sort_by("response_id"))}


def _stage(name: str, source: str, target: str) -> Stage:
    return Stage(
        name=name,
        reads=("prompts", source),
        writes=(target,),
        module=__name__,
        build=lambda inputs: _embed(inputs, source, target),
    )


STAGE = _stage("encode", "responses", "embeddings")
POOL_STAGE = _stage("encode_pool", "pool_responses", "pool_embeddings")
