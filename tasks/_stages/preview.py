"""A stage's requests, rendered as its shards would render them, without making a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from tasks._llm.types import CallReply, CallRequest
from tasks._stages.calls import CallStage, Complete, cells_in_shard
from tasks._stages.stage import Inputs

if TYPE_CHECKING:
    from warehouse.ledger import Ledger


class ShardPreview(NamedTuple):
    """What one shard would ask.

    Attributes:
        missing: Requests without a reply in the ledger, each once.
        n_held: Requests with one.
        n_unknown: Further calls whose prompts depend on replies that are missing.
        rows: The shard's rows, where no reply is missing.
    """

    missing: list[CallRequest]
    n_held: int
    n_unknown: int
    rows: pa.Table | None


class _Unknown(Exception):
    """A reply is needed that has not been bought."""


def preview_shards(
    stage: CallStage, inputs: Inputs, ledger: Ledger | None, shard_size: int
) -> Iterator[ShardPreview]:
    """Renders a stage shard by shard and looks each request up in the ledger.

    Args:
        stage: The stage.
        inputs: Its plan, and parents that can be read.
        ledger: Replies in hand; None if there is no ledger yet.
        shard_size: Calls in a shard.
    """
    size = cells_in_shard(stage, inputs, shard_size)
    n_cells = stage.n_cells(inputs)
    for start in range(0, n_cells, size):
        stop = min(start + size, n_cells)
        asked: list[CallRequest] = []
        rows, n_unknown = None, 0
        try:
            rows = stage.run_cells(inputs, start, stop, _answering(asked, ledger))
        except _Unknown:
            n_unknown = (stop - start) * stage.calls_per_cell(inputs) - len(asked)
        by_key = {call.key: call for call in asked}
        held = ledger.held(by_key) if ledger is not None else set()
        missing = [call for key, call in by_key.items() if key not in held]
        yield ShardPreview(missing, len(held), n_unknown, rows)


def _answering(asked: list[CallRequest], ledger: Ledger | None) -> Complete:
    from tasks._llm.buyer import stored_reply

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        asked.extend(requests)
        keys = [call.key for call in requests]
        replies = ledger.lookup(keys) if ledger is not None else {}
        if len(replies) < len(set(keys)):
            raise _Unknown
        return [stored_reply(replies[key]) for key in keys]

    return complete
