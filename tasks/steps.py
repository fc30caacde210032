"""A stage together with its tasks, as flows name them."""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks._stages.calls import CallStage
from tasks._stages.stage import Stage


class Step(NamedTuple):
    """A stage that makes no calls, and the task that commits it."""

    task: Any
    stage: Stage


class PartStep(NamedTuple):
    """A stage in named parts without calls: the task that does a part, and the one that commits."""

    part: Any
    task: Any
    stage: Stage


class CallStep(NamedTuple):
    """A stage that makes calls: the task that does a shard, and the task that commits the rows."""

    shard: Any
    task: Any
    stage: CallStage
