"""What of a flow's configuration enters each stage's version. It reads files only to hash them."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from pref_model.model import FitConfig
from pref_model.text_features import NAMES as TEXT_FEATURES
from prompts.catalog import load_template
from tasks._engines import endpoint_name, simulator_settings
from tasks._llm.prices import load_prices
from tasks._runs import warehouse_at
from tasks._stages.encode import describe_encoder
from tasks._stages.estimates import Extent, attributes_extent, expected, prism_extent
from tasks._stages.ingest import describe_prompts
from tasks._stages.own_files import describe_own
from tasks._stages.own_report import describe_own_page
from tasks._stages.prism_files import describe_prism, prism_folder
from tasks._stages.report import describe_page
from tasks._stages.tune import describe_tuning
from tasks._stages.write import WRITERS
from tasks.config import (
    AnyFlowConfig,
    AttributesConfig,
    BenchmarkConfig,
    EncoderConfig,
    FlowConfig,
    OwnConfig,
    PrismConfig,
    Sampling,
    as_json,
)
from tasks.errors import InputRejected
from warehouse.forgotten import marks

StageConfigs = dict[str, dict[str, Any]]


def stage_configs(config: AnyFlowConfig, encoder: dict[str, Any] | None = None) -> StageConfigs:
    """The configuration of every stage of a chain, by stage name.

    Everything that can change a stage's rows and is not a parent dataset is here: settings,
    models, the endpoint's name, hashes of templates, of input files and of encoder weights.
    How calls are made (`CallSettings`) and where files lie are not.

    Args:
        config: The flow's configuration.
        encoder: What `describe_encoder` says; asked for if None.

    Raises:
        InputRejected, PromptError, ModelError: A file, template or encoder cannot be used.
    """
    if isinstance(config, PrismConfig):
        return _checked(config, "prism", _prism(config, encoder))
    if isinstance(config, AttributesConfig):
        return _checked(config, "attributes", _attributes(config, encoder))
    if isinstance(config, OwnConfig):
        return _checked(config, "own", _own(config, encoder))
    if isinstance(config, BenchmarkConfig):
        return _benchmark(config)
    raise TypeError(f"no flow has the configuration {type(config).__name__}")


def _checked(config: AnyFlowConfig, flow: str, stages: StageConfigs) -> StageConfigs:
    return {**stages, "data_checks": {**as_json(config.checks), "flow": flow}}


def stage_places(config: AnyFlowConfig) -> dict[str, str]:
    """Where inputs from outside the warehouse lie.

    Raises:
        InputRejected: PRISM's files are not there.
    """
    if isinstance(config, PrismConfig):
        folder = _prism_folder(config)
        return {"prism": str(folder)} if folder else {}
    if isinstance(config, AttributesConfig) and config.ingest.prompts:
        return {"prompts": config.ingest.prompts}
    if isinstance(config, OwnConfig) and config.ingest.data:
        return {"own": config.ingest.data}
    return {}


def _attributes(config: AttributesConfig, encoder: dict[str, Any] | None) -> StageConfigs:
    if "system_prompt" in config.win.also:
        raise InputRejected(
            "win.also: system_prompt asked for, but Attributes users wrote none; expected samples,"
            " in_context or summary; leave it out, or use the prism flow"
        )
    seed = {"seed": config.seed}
    own: StageConfigs = {
        "ingest": {
            **describe_prompts(config.ingest.prompts),
            "n_prompts": config.ingest.n_prompts,
            "n_personas": config.ingest.n_personas,
            **_forgotten(config, "attributes"),
            **seed,
        },
        "respond": {
            **_responder(config, config.respond.sampling),
            "template": config.respond.template,
            **_hash("template", config.respond.template),
            **seed,
        },
    }
    stages = own | _common(config, config.respond.sampling, encoder)
    stages["report"] = _report(config, stages, "respond", attributes_extent(config))
    return stages


def _prism(config: PrismConfig, encoder: dict[str, Any] | None) -> StageConfigs:
    seed = {"seed": config.seed}
    ingest = config.ingest
    folder = _prism_folder(config)
    own: StageConfigs = {
        "prism": {
            **(describe_prism(folder) if folder else {}),
            "n_personas": ingest.n_personas,
            "keep_merged": ingest.keep_merged,
            "fill_personas": ingest.fill_personas,
            "fill_openings": ingest.fill_openings,
            "profile_template": ingest.profile_template,
            **_hash("profile_template", ingest.profile_template),
            **_forgotten(config, "prism", "generated"),
            **seed,
        },
        "sift": as_json(config.sift),
        "rate": {
            "endpoint_name": endpoint_name(config.llm),
            "judge_model": config.llm.judge_model,
            **as_json(config.rate),
            **_hash("template", config.rate.template),
        },
        "choose": {
            **as_json(config.sift),
            "min_rating": config.rate.min_rating,
            **as_json(config.choose),
            **seed,
        },
        "revise": {
            **_responder(config, config.revise.sampling),
            **as_json(config.revise),
            **_hash("critique_template", config.revise.critique_template),
            **_hash("rewrite_template", config.revise.rewrite_template),
            **seed,
        },
    }
    stages = own | _common(config, config.revise.sampling, encoder)
    # How many prompts pass the filters, and how many participants there are, is not settled.
    n_prompts, n_personas = config.choose.n_prompts, ingest.n_personas
    extent = prism_extent(config, n_prompts, n_personas) if n_prompts and n_personas else None
    stages["report"] = _report(config, stages, "revise", extent)
    return stages


def _own(config: OwnConfig, encoder: dict[str, Any] | None) -> StageConfigs:
    seed = {"seed": config.seed}
    # Features of form are a stage of their own: the embeddings are the same with or without.
    plain = EncoderConfig(**config.encoder.model_dump(exclude={"text_features"}))
    encoder = encoder or _encoder(plain)
    form = {"text_columns": len(TEXT_FEATURES) if config.encoder.text_features else 0}
    return {
        "ingest_own": own_source(config),
        "assemble_own": {},
        "split_own": {**as_json(config.split), **seed},
        "encode": encoder,
        "form": {},
        "fit_own": {
            **as_json(config)["fit"],
            "encoder_id": encoder["encoder_id"],
            **form,
            **seed,
        },
        "adapt_own": {**as_json(config.adapt), **form, **seed},
        "accuracy": {**as_json(config.evaluate), **form, **seed},
        "report_own": describe_own_page(),
    }


def _benchmark(config: BenchmarkConfig) -> StageConfigs:
    """Arms that are not asked for are not in the version.

    Raises:
        InputRejected: No such arm or group; or the matrix cannot be measured so.
    """
    from pref_model.arms import GROUPS
    from tasks._stages.benchmark import describe_arms

    every = describe_arms(config.model_copy(update={"only": None}))
    unknown = sorted({*(config.only or ())} - {*every, *GROUPS})
    if unknown:
        raise InputRejected(
            f"only: no arm or group {', '.join(map(repr, unknown))}; expected groups"
            f" {', '.join(GROUPS)} or arms such as {', '.join(list(every)[:4])}; see"
            " `pref plan benchmark`"
        )
    _is_fair(config)
    return {
        "benchmark": {
            "arms": describe_arms(config),
            "seeds": config.seeds,
            **as_json(config.evaluate),
            "seed": config.seed,
        }
    }


def _is_fair(config: BenchmarkConfig) -> None:
    """Refuses matrices on which the protocol would not measure what it says.

    Raises:
        InputRejected: Real users' own pairs, or an encoder that was trained on the preferences.
    """
    warehouse = warehouse_at(config.warehouse)
    current = warehouse.current()
    if "preferences" in current:
        stage = warehouse.manifest("preferences", current["preferences"]).stage
        if stage == "assemble_own":
            raise InputRejected(
                f"benchmark: warehouse {config.warehouse} holds a team's own answers; expected a"
                " matrix in which users judge the same pairs; `pref run own` measures those"
            )
    if "embeddings" in current:
        parents = warehouse.manifest("embeddings", current["embeddings"]).parents
        if "backbones" in parents:
            raise InputRejected(
                "benchmark: the embeddings are of an encoder trained on users and pairs that each"
                " seed would hold out; expected one left as it is; run `pref run` with"
                " backbone.is_trained=false"
            )


def own_source(config: OwnConfig) -> dict[str, Any]:
    """Names and hashes of the files, or of those that were imported last.

    Raises:
        InputRejected: Files are missing; or none were given and none imported.
    """
    if config.ingest.data is not None:
        return {**describe_own(config.ingest.data), **_forgotten(config, "own")}
    warehouse = warehouse_at(config.warehouse)
    version = warehouse.current().get("answers")
    if version is None:
        raise InputRejected(
            f"data: none given, and warehouse {config.warehouse} holds none; expected a folder with"
            " prompts, responses and preferences; pass --data, or import it with `pref ingest`"
        )
    return dict(warehouse.manifest("answers", version).config)


def _prism_folder(config: PrismConfig) -> Path | None:
    """Where PRISM's files lie; None where all rows are to be generated."""
    if config.ingest.prism is None:
        if config.ingest.is_filled:
            return None
        raise InputRejected(
            "prism: no data given; expected a folder with PRISM's files or a Hugging Face dataset"
            " id; pass --prism, or ask for made-up data with ingest.fill_personas and"
            " ingest.fill_openings"
        )
    return prism_folder(config.ingest.prism, config.ingest.revision)


def _responder(config: FlowConfig, sampling: Sampling) -> dict[str, Any]:
    return {
        "endpoint_name": endpoint_name(config.llm),
        "responder_model": config.llm.responder_model,
        "sampling": sampling,
    }


def _common(config: FlowConfig, sampling: Sampling, encoder: dict[str, Any] | None) -> StageConfigs:
    """The stages from the design to the win rates, which all flows with a judge share."""
    seed = {"seed": config.seed}
    judge = {
        "endpoint_name": endpoint_name(config.llm),
        "judge_model": config.llm.judge_model,
        **as_json(config.judge),
        **_hash("template", config.judge.template),
    }
    encoder = encoder or _encoder(config.encoder)
    answers = sorted({*config.adapt.answers, config.win.n_answers, *config.win.also_answers})
    prompts = {"n_prompts": config.win.n_prompts, **seed}
    writers = sorted({*config.win.also} & {*WRITERS})
    told = {"also": writers, "n_answers": config.win.n_answers}
    return {
        # Controls are questions of their own: they change no cell of the matrix.
        "design": {**config.design.model_dump(mode="json", exclude={"control_share"}), **seed},
        "check": {
            **judge,
            "control_share": config.design.control_share,
            **config.audit.model_dump(mode="json", exclude={"win_sample"}),
            **_hash("human_template", config.audit.human_template),
            **seed,
        },
        "judge_checks": {"fit": _plain_fit(config), **seed},
        "judge": judge,
        "assemble": {},
        "split": {**as_json(config.split), **seed},
        "encode": encoder,
        "encode_pool": encoder,
        "tune": describe_tuning(encoder, config.fit, config.backbone, config.seed),
        "rank": {"d": config.fit.d, "ties": config.fit.ties, "weights": config.fit.weights, **seed},
        "fit": {**as_json(config)["fit"], "encoder_id": encoder["encoder_id"], **seed},
        "interpret": {"n_examples": config.interpret.n_examples},
        "label": {
            "endpoint_name": endpoint_name(config.llm),
            "judge_model": config.llm.judge_model,
            "sampling": config.interpret.sampling,
            "template": config.interpret.template,
            **_hash("template", config.interpret.template),
        },
        "adapt": {
            **as_json(config.adapt),
            "answers": answers,
            "weights": config.fit.weights,
            **seed,
        },
        "auc": {**as_json(config.evaluate), **seed},
        "pool": {
            **_responder(config, sampling),
            "pool_size": config.win.pool_size,
            "n_samples": config.win.n_samples if "samples" in config.win.also else 0,
            **_win_templates(config, "base_template", "revise_template"),
            **prompts,
        },
        "summarize": {
            **_responder(config, sampling),
            **told,
            **_win_templates(config, "summary_template"),
        },
        "write": {
            **_responder(config, sampling),
            **told,
            **_win_templates(config, "wishes_template", "in_context_template"),
            **prompts,
        },
        "select": {
            "n_answers": config.win.n_answers,
            "also_answers": sorted({*config.win.also_answers} - {config.win.n_answers}),
        },
        "win": judge,
        "check_win": {
            **judge,
            "n_identical": config.win.n_identical,
            "second_judge_model": config.audit.second_judge_model,
            "sample": config.audit.win_sample,
            **seed,
        },
        "win_rates": {**as_json(config.evaluate), **seed},
    }


def _plain_fit(config: FlowConfig) -> dict[str, Any]:
    """The settings of a fit less those that only the flow's own fit has."""
    fit: dict[str, Any] = as_json(config)["fit"]
    return {one.name: fit[one.name] for one in fields(FitConfig)}


def _report(
    config: FlowConfig, stages: StageConfigs, writer: str, extent: Extent | None
) -> dict[str, Any]:
    planned = _planned(config, stages, writer, extent) if extent else {}
    answers = {"n_answers": config.win.n_answers}
    return {**describe_page(), **_truth(config), **answers, "planned": planned}


def _planned(
    config: FlowConfig, stages: StageConfigs, writer: str, extent: Extent
) -> dict[str, dict[str, Any]]:
    """What the configuration alone let one expect, to stand beside what it came to."""
    prices = load_prices(Path(config.calls.prices) if config.calls.prices else None)
    return {
        name: expected(name, stages[name], config, extent, prices)._asdict()
        for name in (writer, "judge", "label", "pool", "summarize", "write", "win", "check_win")
    }


def _truth(config: FlowConfig) -> dict[str, Any]:
    """What the report may say of a simulated judge beyond what was measured."""
    if config.llm.base_url is not None:
        return {"is_simulated": False}
    bias = simulator_settings(config.llm.simulator).position_bias_logit
    return {"is_simulated": True, "true_position_bias_logit": bias}


def _forgotten(config: AnyFlowConfig, *kinds: str) -> dict[str, list[str]]:
    """Marks of the people whom an ingest has to leave out; no entry where there are none."""
    found = marks(warehouse_at(config.warehouse), kinds)
    return {"forgotten": found} if found else {}


def _win_templates(config: FlowConfig, *slots: str) -> dict[str, str]:
    names = {slot: str(getattr(config.win, slot)) for slot in slots}
    hashes = [_hash(slot, name) for slot, name in names.items()]
    return {**names, **{key: value for one in hashes for key, value in one.items()}}


def _hash(slot: str, template: str) -> dict[str, str]:
    return {f"{slot}_sha256": load_template(template).sha256}


@cache
def _encoder(config: EncoderConfig) -> dict[str, Any]:
    # Hashing the weights takes a moment; they do not change within a run.
    return describe_encoder(config)
