"""Stages that make calls: work in shards, each finished shard a file, then one commit.

A shard's replies are in the ledger before its rows are written, and its rows are in a staging
file before it counts as done. A run that is cut off loses neither: the next one reads finished
shards from staging and finished calls from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from tasks._llm.types import CallReply, CallRequest
from tasks._stages.stage import Inputs, Output
from tasks.errors import StageFailed
from tasks.types import CallCount, StagePlan
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from tasks._llm.batch import BatchBuyer
    from tasks._llm.engine import CompletionEngine

Complete = Callable[[Sequence[CallRequest]], list[CallReply]]

_COUNT = b"pref.call_count"


@dataclass(frozen=True)
class CallStage:
    """A stage whose rows come from calls.

    ``n_cells`` counts the units of work; ``run_cells`` turns cells [start, stop) into rows of
    the first dataset in ``writes``; ``finish`` derives the stage's other datasets from them.
    """

    name: str
    module: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    n_cells: Callable[[Inputs], int]
    calls_per_cell: Callable[[Inputs], int]
    run_cells: Callable[[Inputs, int, int, Complete], pa.Table]
    templates: Callable[[Inputs], tuple[str, ...]]
    models: Callable[[Inputs], tuple[str, ...]]
    finish: Callable[[Inputs, pa.Table], dict[str, Output]] = field(default=lambda _i, _t: {})


def cells_in_shard(stage: CallStage, inputs: Inputs, shard_size: int) -> int:
    """Cells in one shard of about ``shard_size`` calls."""
    return max(1, shard_size // max(1, stage.calls_per_cell(inputs)))


def n_shards(stage: CallStage, inputs: Inputs, shard_size: int) -> int:
    """Number of shards the stage's work falls into."""
    return -(-stage.n_cells(inputs) // cells_in_shard(stage, inputs, shard_size))


def staging_version(plan: StagePlan, shard_size: int) -> str:
    """Name of a stage's staging folder; shards of two sizes never mix."""
    return f"{plan.version}-{shard_size}"


def run_shard(
    stage: CallStage,
    inputs: Inputs,
    index: int,
    shard_size: int,
    engine: CompletionEngine | BatchBuyer,
) -> CallCount:
    """Does one shard, or finds it done.

    Args:
        stage: The stage.
        inputs: Its plan and warehouse.
        index: Shard number from 0.
        shard_size: Calls in a shard.
        engine: Makes the calls.

    Returns:
        The shard's count; a shard found in staging counts all its calls as reused.
    """
    staging = staging_version(inputs.plan, shard_size)
    done = inputs.warehouse.shard_schema(stage.name, staging, index)
    if done is not None:
        count = _count_of(done)
        return count.model_copy(
            update={"made": 0, "reused": count.made + count.reused, "spent_usd": 0.0}
        )
    size = cells_in_shard(stage, inputs, shard_size)
    stop = min((index + 1) * size, stage.n_cells(inputs))
    replies: list[CallReply] = []

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        found = engine.complete(requests)
        replies.extend(found)
        return found

    rows = stage.run_cells(inputs, index * size, stop, complete)
    count = count_replies(replies)
    metadata = {_COUNT: count.model_dump_json().encode()}
    inputs.warehouse.write_shard(stage.name, staging, index, rows.replace_schema_metadata(metadata))
    return count


def gather(stage: CallStage, inputs: Inputs, shard_size: int) -> tuple[pa.Table, CallCount]:
    """Rows of all shards in order, and the sum of their counts."""
    staging = staging_version(inputs.plan, shard_size)
    wanted = n_shards(stage, inputs, shard_size)
    found = inputs.warehouse.shard_indices(stage.name, staging)
    if found != tuple(range(wanted)):
        raise StageFailed(
            f"stage {stage.name}: {len(found)} of {wanted} shards are finished; expected all;"
            " run the same command again, finished calls are not bought twice"
        )
    tables = list(inputs.warehouse.read_shards(stage.name, staging))
    total = CallCount()
    for table in tables:
        total = total + _count_of(table.schema)
    if not tables:
        # A stage may have nothing to ask.
        return TABLES[stage.writes[0]].schema.empty_table(), total
    return pa.concat_tables([one.replace_schema_metadata(None) for one in tables]), total


def count_replies(replies: Sequence[CallReply]) -> CallCount:
    """Calls, tokens and money of some replies; a reply without a price makes the money unknown."""
    made = [one for one in replies if not one.is_reused]
    return CallCount(
        made=len(made),
        reused=len(replies) - len(made),
        prompt_tokens=sum(one.prompt_tokens or 0 for one in replies),
        completion_tokens=sum(one.completion_tokens or 0 for one in replies),
        cost_usd=_total(replies),
        spent_usd=_total(made),
    )


def _total(replies: Sequence[CallReply]) -> float | None:
    costs = [one.cost_usd for one in replies]
    return None if None in costs else float(sum(one for one in costs if one is not None))


def _count_of(schema: pa.Schema) -> CallCount:
    return CallCount.model_validate_json(schema.metadata[_COUNT])
