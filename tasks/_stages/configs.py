"""What of a flow's configuration enters each stage's version. It reads files only to hash them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from prompts.catalog import load_template
from tasks._engines import endpoint_name, simulator_settings
from tasks._llm.prices import load_prices
from tasks._stages.encode import describe_encoder
from tasks._stages.estimates import expected
from tasks._stages.ingest import describe_prompts
from tasks._stages.report import describe_page
from tasks.config import AttributesConfig, EncoderConfig, as_json


def stage_configs(
    config: AttributesConfig, encoder: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The configuration of every stage of the attributes chain, by stage name.

    Everything that can change a stage's rows and is not a parent dataset is here: settings,
    models, the endpoint's name, hashes of templates, of the prompt file and of encoder weights.
    How calls are made (`CallSettings`) and where files lie are not.

    Args:
        config: The flow's configuration.
        encoder: What `describe_encoder` says; asked for if None.

    Raises:
        InputRejected, PromptError, ModelError: A file, template or encoder cannot be used.
    """
    seed = {"seed": config.seed}
    responder = {
        "endpoint_name": endpoint_name(config.llm),
        "responder_model": config.llm.responder_model,
        "sampling": config.respond.sampling,
    }
    judge = {
        "endpoint_name": endpoint_name(config.llm),
        "judge_model": config.llm.judge_model,
        **as_json(config.judge),
        **_hash("template", config.judge.template),
    }
    encoder = encoder or _encoder(config.encoder)
    answers = sorted({*config.adapt.answers, config.win.n_answers})
    stages: dict[str, dict[str, Any]] = {
        "ingest": {
            **describe_prompts(config.ingest.prompts),
            "n_prompts": config.ingest.n_prompts,
            "n_personas": config.ingest.n_personas,
            **seed,
        },
        "respond": {
            **responder,
            "template": config.respond.template,
            **_hash("template", config.respond.template),
            **seed,
        },
        "design": {**as_json(config.design), **seed},
        "judge": judge,
        "assemble": {},
        "split": {**as_json(config.split), **seed},
        "encode": encoder,
        "encode_pool": encoder,
        "fit": {**as_json(config)["fit"], "encoder_id": encoder["encoder_id"], **seed},
        "adapt": {**as_json(config.adapt), "answers": answers, **seed},
        "auc": {**as_json(config.evaluate), **seed},
        "pool": {
            **responder,
            **as_json(config.win),
            **_hash("base_template", config.win.base_template),
            **_hash("revise_template", config.win.revise_template),
            **seed,
        },
        "select": {"n_answers": config.win.n_answers},
        "win": judge,
        "win_rates": {**as_json(config.evaluate), "n_answers": config.win.n_answers, **seed},
    }
    stages["report"] = {**describe_page(), **_truth(config), "planned": _planned(config, stages)}
    return stages


def _planned(
    config: AttributesConfig, stages: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What the configuration alone let one expect, to stand beside what it came to."""
    prices = load_prices(Path(config.calls.prices) if config.calls.prices else None)
    return {
        name: expected(name, stages[name], config, prices)._asdict()
        for name in ("respond", "judge", "pool", "win")
    }


def _truth(config: AttributesConfig) -> dict[str, Any]:
    """What the report may say of a simulated judge beyond what was measured."""
    if config.llm.base_url is not None:
        return {"is_simulated": False}
    bias = simulator_settings(config.llm.simulator).position_bias_logit
    return {"is_simulated": True, "true_position_bias_logit": bias}


def _hash(slot: str, template: str) -> dict[str, str]:
    return {f"{slot}_sha256": load_template(template).sha256}


@cache
def _encoder(config: EncoderConfig) -> dict[str, Any]:
    # Hashing the weights takes a moment; they do not change within a run.
    return describe_encoder(config)
