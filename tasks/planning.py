"""What a run would still have to buy, told before any call. It makes none and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pref_model.errors import EncoderMissing
from tasks._engines import endpoint_name
from tasks._llm.prices import PriceTable, load_prices
from tasks._runs import manifests_of, plan_stage, warehouse_at
from tasks._settings import read_environment
from tasks._stages import (
    adapt,
    assemble,
    check,
    check_win,
    design,
    encode,
    evaluate,
    fit,
    ingest,
    interpret,
    judge,
    judge_checks,
    own,
    own_accuracy,
    own_adapt,
    own_fit,
    own_form,
    own_split,
    personalize,
    prism,
    prism_prompts,
    rank,
    respond,
    revise,
    split,
    tune,
    win,
    write,
)
from tasks._stages.calls import CallStage
from tasks._stages.configs import own_source, stage_configs, stage_places
from tasks._stages.design_checks import DesignCheck
from tasks._stages.estimates import (
    USUAL_RESPONSE_TOKENS,
    Extent,
    StageCost,
    attributes_extent,
    expected,
    longest_reply,
    priced,
    prism_extent,
    prompt_tokens,
    with_hours,
)
from tasks._stages.own_files import read_own
from tasks._stages.preview import STAND_IN, preview_shards, stand_ins_in
from tasks._stages.stage import Inputs, Stage
from tasks.changes import N_EXAMPLES, StageChange, change_of
from tasks.config import (
    AnyFlowConfig,
    AttributesConfig,
    FlowConfig,
    OwnConfig,
    PrismConfig,
    Sampling,
)
from tasks.outlook import design_outlook
from warehouse.ledger import Ledger, open_ledger
from warehouse.tables import TABLES

__all__ = ["DesignCheck", "Plan", "StageCost", "endpoint", "plan_run", "prices_as_of"]

# The stages of the flows up to the last call; a test holds them against the flows.
_COMMON: tuple[Stage | CallStage, ...] = (
    assemble.STAGE, split.STAGE, tune.STAGE, encode.STAGE, judge_checks.STAGE, rank.STAGE,
    fit.STAGE, adapt.STAGE, evaluate.AUC_STAGE, interpret.STAGE, interpret.LABEL_STAGE,
    personalize.POOL_STAGE, encode.POOL_STAGE, write.SUMMARIZE_STAGE, write.STAGE,
    personalize.SELECT_STAGE, win.STAGE,
    check_win.STAGE,
)  # fmt: skip
STAGES: tuple[Stage | CallStage, ...] = (
    ingest.STAGE, respond.STAGE, design.STAGE, judge.STAGE, check.STAGE, *_COMMON,
)  # fmt: skip
PRISM_STAGES: tuple[Stage | CallStage, ...] = (
    prism.STAGE, prism_prompts.SIFT_STAGE, prism_prompts.RATE_STAGE, prism_prompts.CHOOSE_STAGE,
    revise.STAGE, design.STAGE, judge.STAGE, check.PRISM_STAGE, *_COMMON,
)  # fmt: skip
OWN_STAGES: tuple[Stage | CallStage, ...] = (
    own.INGEST_STAGE, own.ASSEMBLE_STAGE, own_split.STAGE, encode.STAGE, own_form.STAGE,
    own_fit.STAGE, own_adapt.STAGE, own_accuracy.STAGE,
)  # fmt: skip
# Stages that cost nothing and need no model: built in memory where they are not committed.
FREE = ("ingest", "prism", "sift", "choose", "design", "split")


class Plan(NamedTuple):
    """What a run would still buy, what its design looks like, and what it would make anew.

    ``design`` supposes that every prompt gets its pair; None where prompts are still to be chosen.
    ``changes`` has every stage up to the last that makes calls.
    """

    costs: list[StageCost]
    design: DesignCheck | None
    changes: list[StageChange]


@dataclass(frozen=True)
class _Preview(Inputs):
    """A stage's inputs, some of them not committed but built in memory."""

    tables: dict[str, pa.Table] = field(default_factory=dict)

    def read(self, dataset: str, columns: tuple[str, ...] | None = None) -> pa.Table:
        if dataset not in self.tables:
            return super().read(dataset, columns)
        table = self.tables[dataset]
        return table if columns is None else table.select(list(columns))

    def lookup(self, dataset: str, key: str, value: str) -> dict[str, Any]:
        if dataset not in self.tables:
            return super().lookup(dataset, key, value)
        table = self.tables[dataset]
        return dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))


def plan_run(config: AnyFlowConfig) -> Plan:
    """Calls, tokens and money of every stage that makes calls, and the design.

    Requests are rendered and looked up in the ledger wherever their texts are known; otherwise
    their number follows from the configuration and their length is estimated.

    Raises:
        InputRejected, PromptError, ModelError, WarehouseError: As a run would.
    """
    if isinstance(config, OwnConfig):
        return _plan_own(config)
    if not isinstance(config, FlowConfig):
        raise TypeError(f"no flow has the configuration {type(config).__name__}")
    configs = stage_configs(config, _encoder(config))
    warehouse = warehouse_at(config.warehouse)
    places = stage_places(config)
    prices = load_prices(Path(config.calls.prices) if config.calls.prices else None)
    ledger = _ledger(config)
    known: set[str] = set()
    versions: dict[str, str] = {}
    tables: dict[str, pa.Table] = {}
    found: list[StageCost] = []
    changes: list[StageChange] = []
    current = warehouse.current()
    for stage in PRISM_STAGES if isinstance(config, PrismConfig) else STAGES:
        if stage is tune.STAGE and not config.backbone.is_trained:
            continue
        plan = plan_stage(stage, config.warehouse, configs[stage.name], versions, places)
        inputs = _Preview(warehouse, plan, tables)
        versions |= dict.fromkeys(stage.writes, plan.version)
        committed = manifests_of(plan, stage)
        is_ready = set(stage.reads) <= known
        missing: tuple[int, list[str]] | None = (0, []) if committed else None
        if committed:
            known |= set(stage.writes)
            if isinstance(stage, CallStage):
                calls = committed[0].calls
                held = calls.made + calls.reused
                found.append(priced(stage.name, inputs.config, prices, [], held=held))
        elif isinstance(stage, CallStage):
            if is_ready:
                cost, rows, cells = _rendered(stage, inputs, prices, ledger, config)
                missing = _missing(stage, inputs, cost.calls, cells, rows)
                tables |= rows
                known |= set(rows)
            else:
                extent = _extent(config, inputs, versions, known)
                cost = expected(stage.name, inputs.config, config, extent, prices, _texts(tables))
            found.append(with_hours(cost, config.calls))
        elif stage.name in FREE and is_ready:
            tables |= {name: _table(output.rows) for name, output in stage.build(inputs).items()}
            known |= set(stage.writes)
        changes.append(
            change_of(
                stage,
                plan,
                warehouse,
                current.get(stage.writes[0]),
                is_made=bool(committed),
                missing=missing,
            )
        )
    if ledger is not None:
        ledger.close()
    prompts, personas = (_column(inputs, versions, known, one) for one in ("prompts", "personas"))
    outlook = design_outlook(config, personas, prompts) if prompts and personas else None
    return Plan(found, outlook, changes)


def _missing(
    stage: CallStage,
    inputs: _Preview,
    n_calls: int,
    cells: Sequence[int],
    rows: Mapping[str, pa.Table],
) -> tuple[int, list[str]] | None:
    """How many cells of a stage lack a reply, and the names of a few; None where not known."""
    if not n_calls:
        return 0, []
    written = rows.get(stage.writes[0])
    if written is not None and "response_text" in written.column_names:
        prompts = {
            row["prompt_id"]
            for row in written.select(["prompt_id", "response_text"]).to_pylist()
            if (row["response_text"] or "").startswith(STAND_IN)
        }
        return len(prompts), sorted(prompts)[:N_EXAMPLES]
    if not cells:
        return None
    if stage.name != judge.STAGE.name:
        return len(cells), [f"number {one}" for one in cells[:N_EXAMPLES]]
    key = TABLES["design"].key
    some = inputs.read("design").take(list(cells[:N_EXAMPLES])).to_pylist()
    return len(cells), ["/".join(row[name] for name in key) for row in some]


def _plan_own(config: OwnConfig) -> Plan:
    """No stage of the own-data flow makes a call; the data are checked as a run would."""
    own_source(config)
    if config.ingest.data is not None:
        read_own(config.ingest.data)
    return Plan([], None, [])


def _column(
    inputs: _Preview, versions: Mapping[str, str], known: set[str], dataset: str, column: str = ""
) -> list[Any]:
    """A column of a dataset, its key if none is named; empty where the dataset is not known."""
    if dataset not in known:
        return []
    name = column or TABLES[dataset].key[0]
    rows = inputs.tables.get(dataset)
    if rows is None:
        rows = inputs.warehouse.read(dataset, versions[dataset], [name])
    return list(rows[name].to_pylist())


def _extent(
    config: FlowConfig, inputs: _Preview, versions: Mapping[str, str], known: set[str]
) -> Extent:
    if isinstance(config, AttributesConfig):
        return attributes_extent(config)
    if not isinstance(config, PrismConfig):
        raise TypeError(f"no flow has the configuration {type(config).__name__}")
    left = _column(inputs, versions, known, "candidates", "left_out_by").count(None)
    n_prompts = len(_column(inputs, versions, known, "prompts"))
    # Until prompts are rated, all candidates may be left, or as many as are wanted.
    n_prompts = n_prompts or min(left, config.choose.n_prompts or left)
    n_personas = len(_column(inputs, versions, known, "personas"))
    return prism_extent(config, n_prompts, n_personas)


def _encoder(config: FlowConfig) -> dict[str, Any]:
    """The encoder's identity, or a stand-in: its weights need not be here to count calls."""
    try:
        return encode.describe_encoder(config.encoder)
    except EncoderMissing:
        return {"encoder_id": f"not here: {config.encoder.name}"}


def _ledger(config: FlowConfig) -> Ledger | None:
    url = read_environment().ledger_url
    path = warehouse_at(config.warehouse).root / "ledger.sqlite"
    if url is None and not path.is_file():
        return None
    return open_ledger(url or str(path))


def _texts(tables: Mapping[str, pa.Table]) -> list[str]:
    return list(tables["prompts"]["prompt_text"].to_pylist()) if "prompts" in tables else []


def _table(rows: pa.Table | Iterable[pa.RecordBatch]) -> pa.Table:
    return rows if isinstance(rows, pa.Table) else pa.Table.from_batches(rows)


def _rendered(
    stage: CallStage,
    inputs: Inputs,
    prices: PriceTable,
    ledger: Ledger | None,
    config: FlowConfig,
) -> tuple[StageCost, dict[str, pa.Table], list[int]]:
    """Renders a stage's requests as its shards would, and looks each up in the ledger.

    Returns:
        The cost; the stage's datasets where they can be known; the cells that lack a reply. Where
        a stage that writes texts has some of its replies, stand-ins take the place of the others,
        so that what follows from those in hand is not counted as new.
    """
    settings = config.calls
    shards = list(preview_shards(stage, inputs, ledger, settings.shard_size))
    cells = [number for shard in shards for number in shard.cells]
    held = sum(shard.n_held for shard in shards)
    is_partial = any(shard.missing for shard in shards) and held > 0
    if is_partial and "responder_model" in inputs.config:
        size = settings.shard_size
        shards = list(preview_shards(stage, inputs, ledger, size, has_stand_ins=True))
        held = sum(shard.n_held for shard in shards)
    missing = [call for shard in shards for call in shard.missing]
    unknown = sum(shard.n_unknown for shard in shards)
    stand_ins = sum(map(stand_ins_in, missing))
    lengths = [prompt_tokens(call.messages) for call in missing]
    usual = round(sum(lengths) / len(lengths)) + USUAL_RESPONSE_TOKENS if lengths else 0
    longest = longest_reply(_response_sampling(config))
    longer = (unknown + stand_ins) * (longest - USUAL_RESPONSE_TOKENS)
    lengths += [usual] * unknown
    cost = priced(
        stage.name,
        inputs.config,
        prices,
        lengths,
        held=held,
        longer=longer,
        is_exact=not unknown and not stand_ins,
        is_batch=settings.mode == "batch",
    )
    tables = [shard.rows for shard in shards if shard.rows is not None]
    if len(tables) < len(shards):
        return cost, {}, cells
    rows = pa.concat_tables(tables) if tables else TABLES[stage.writes[0]].schema.empty_table()
    derived = {name: _table(one.rows) for name, one in stage.finish(inputs, rows).items()}
    return cost, {stage.writes[0]: rows, **derived}, cells


def _response_sampling(config: FlowConfig) -> Sampling:
    """How the texts are sampled that later requests show."""
    if isinstance(config, AttributesConfig):
        return config.respond.sampling
    return config.revise.sampling if isinstance(config, PrismConfig) else {}


def prices_as_of(config: FlowConfig) -> str:
    """The date of the price table a plan was made with."""
    return load_prices(Path(config.calls.prices) if config.calls.prices else None).as_of


def endpoint(config: FlowConfig) -> str:
    """Which endpoint would be asked."""
    return endpoint_name(config.llm)
