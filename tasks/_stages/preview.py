"""A stage's requests, rendered as its shards would render them, without making a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from tasks._llm.types import CallReply, CallRequest
from tasks._stages.calls import CallStage, cells_in_shard
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
        cells: Number of each cell with a missing reply, as far as requests are known.
    """

    missing: list[CallRequest]
    n_held: int
    n_unknown: int
    rows: pa.Table | None
    cells: list[int]


class _Unknown(Exception):
    """A reply is needed that has not been bought."""


# How a text begins that stands for a reply still to be bought, and how long it is.
STAND_IN = "[a reply still to be bought: "
_STAND_IN_CHARACTERS = 1200


def preview_shards(
    stage: CallStage,
    inputs: Inputs,
    ledger: Ledger | None,
    shard_size: int,
    *,
    has_stand_ins: bool = False,
) -> Iterator[ShardPreview]:
    """Renders a stage shard by shard and looks each request up in the ledger.

    Args:
        stage: The stage.
        inputs: Its plan, and parents that can be read.
        ledger: Replies in hand; None if there is no ledger yet.
        shard_size: Calls in a shard.
        has_stand_ins: Whether a text of usual length takes the place of a missing reply, so that
            rows are whole and later requests can be counted; else rows end at the first.
    """
    size = cells_in_shard(stage, inputs, shard_size)
    n_cells = stage.n_cells(inputs)
    for start in range(0, n_cells, size):
        stop = min(start + size, n_cells)
        asked: list[CallRequest] = []
        rows, n_unknown = None, 0
        try:
            rows = stage.run_cells(
                inputs, start, stop, partial(_answer, asked, ledger, has_stand_ins)
            )
        except _Unknown:
            n_unknown = (stop - start) * stage.calls_per_cell(inputs) - len(asked)
        by_key = {call.key: call for call in asked}
        held = ledger.held(by_key) if ledger is not None else set()
        missing = [call for key, call in by_key.items() if key not in held]
        per_cell = stage.calls_per_cell(inputs)
        # Only where every cell asks as many calls, all at once, does a call's place tell its cell.
        is_even = not has_stand_ins and len(asked) == (stop - start) * per_cell
        cells = {
            start + place // per_cell
            for place, call in enumerate(asked)
            if is_even and call.key not in held
        }
        yield ShardPreview(missing, len(held), n_unknown, rows, sorted(cells))


def stand_ins_in(call: CallRequest) -> int:
    """How many texts in a request stand for replies still to be bought."""
    return sum(str(message["content"]).count(STAND_IN) for message in call.messages)


def _answer(
    asked: list[CallRequest],
    ledger: Ledger | None,
    has_stand_ins: bool,
    requests: Sequence[CallRequest],
) -> list[CallReply]:
    from tasks._llm.buyer import stored_reply

    asked.extend(requests)
    keys = [call.key for call in requests]
    replies = ledger.lookup(keys) if ledger is not None else {}
    if len(replies) < len(set(keys)) and not has_stand_ins:
        raise _Unknown
    return [stored_reply(replies[key]) if key in replies else _stand_in(key) for key in keys]


def _stand_in(key: str) -> CallReply:
    text = f"{STAND_IN}{key}]".ljust(_STAND_IN_CHARACTERS, ".")
    return CallReply(
        key=key,
        status=200,
        body=b"",
        text=text,
        refusal=None,
        finish_reason=None,
        prompt_tokens=None,
        completion_tokens=None,
        cached_tokens=None,
        cost_usd=None,
        is_reused=True,
    )
