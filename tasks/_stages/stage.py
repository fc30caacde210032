"""What a stage is: its name, what it reads and writes, its code, its body. It runs nothing itself.

A dataset version is the hash of (stage, stage code, config, parent versions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.types import StagePlan
from warehouse.store import Warehouse

Settle = Callable[
    [Warehouse, dict[str, Any], dict[str, str], str], tuple[dict[str, Any], dict[str, str]]
]


@dataclass(frozen=True)
class Output:
    """Rows (and files, as bytes or as paths to copy from) of one dataset."""

    rows: pa.Table | Iterable[pa.RecordBatch]
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """A stage's view of the warehouse: exactly the versions its plan names."""

    warehouse: Warehouse
    plan: StagePlan

    def read(self, dataset: str, columns: tuple[str, ...] | None = None) -> pa.Table:
        """Rows of a parent dataset, in key order; all columns, or those named."""
        return _read(self.warehouse, dataset, self.plan.parents[dataset], columns)

    def lookup(self, dataset: str, key: str, value: str) -> dict[str, Any]:
        """One column of a parent dataset by another."""
        return _lookup(self.warehouse, dataset, self.plan.parents[dataset], key, value)

    def folder(self, dataset: str) -> Path:
        """The folder of a parent dataset's files."""
        return self.warehouse.folder(dataset, self.plan.parents[dataset])

    @property
    def config(self) -> dict[str, Any]:
        """The stage's configuration, as it entered the version."""
        return self.plan.config


@dataclass(frozen=True)
class Stage:
    """A stage that makes no calls; ``module`` is where its code begins (`tasks._stages.code`).

    ``may_read`` are datasets that are parents where the flow has made them.
    ``settle`` turns what only the warehouse can tell into configuration and parents: given
    warehouse, configuration, parents and code hash, it returns the two that enter the version.
    """

    name: str
    module: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    build: Callable[[Inputs], dict[str, Output]]
    settle: Settle | None = None
    may_read: tuple[str, ...] = ()


def forget_tables() -> None:
    """Drops the tables that shards of one stage share; other stages read others."""
    _read.cache_clear()
    _lookup.cache_clear()


# Versions are immutable, so a table read once stays right while a stage lasts.
@lru_cache(maxsize=32)
def _read(
    warehouse: Warehouse, dataset: str, version: str, columns: tuple[str, ...] | None = None
) -> pa.Table:
    return warehouse.read(dataset, version, columns)


@lru_cache(maxsize=32)
def _lookup(
    warehouse: Warehouse, dataset: str, version: str, key: str, value: str
) -> dict[str, Any]:
    table = _read(warehouse, dataset, version)
    return dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))
