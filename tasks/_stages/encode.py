"""Embeddings of responses: computed once for each encoder and text, then read by every fit."""

from __future__ import annotations

from dataclasses import replace
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
    return {"encoder_id": resolve(config).encoder_id, **config.model_dump(mode="json")}


def encoder_of(inputs: Inputs, encoder_id: str) -> str:
    """Identity of the encoder behind a plan's ``embeddings``: as configured, or trained."""
    made = inputs.warehouse.manifest("embeddings", inputs.plan.parents["embeddings"])
    tuned = made.parents.get("backbones")
    return f"{encoder_id}:tuned={tuned}" if tuned else encoder_id


def resolve(config: EncoderConfig) -> EncoderSpec:
    """The encoder's files and every setting that was left open."""
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
    spec, device = resolve(EncoderConfig(**known)), "cpu"
    if "backbones" in inputs.plan.parents:
        # The trained network reads the same tokens and is pooled as it was in training.
        spec = replace(spec, folder=inputs.folder("backbones") / "backbone")
        device = inputs.plan.how.get("device", device)
    encoder = load_encoder(spec, device)
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
        may_read=("backbones",),
        writes=(target,),
        module=__name__,
        build=lambda inputs: _embed(inputs, source, target),
    )


STAGE = _stage("encode", "responses", "embeddings")
POOL_STAGE = _stage("encode_pool", "pool_responses", "pool_embeddings")
