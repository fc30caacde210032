"""The benchmark: every arm on every seed's split, each cell of them computed once and kept.

A cell is an arm on one seed, named by a hash of all that shapes it: the arm's settings and code,
the matrix, the split's code, the seed, the numbers of answers. Its rows are looked for in every
committed version and in staging before it is computed, so that adding an arm or a seed computes
that alone. It asks no model.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks._convert import index_of
from tasks._stages.benchmark_matrix import read_matrix, split
from tasks._stages.code import code_sha256
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import MIN_VALID_ORDERS
from tasks.config import BenchmarkConfig
from tasks.errors import InputRejected
from warehouse.canonical import sha256_json
from warehouse.store import Warehouse
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from pref_model.protocol import Arm, Matrix

DATASET = "benchmark_cells"
# Staging has a folder a cell.
KEY_DIGITS = 24
# Seconds of one cell on a matrix of 84 users and 100 pairs, one core of a busy machine.
SECONDS = {
    "pref": 5.0, "classic": 4.0, "per_user": 4.0, "lore": 10.0, "mrm": 15.0, "pal_a": 25.0,
    "pal_b": 30.0, "vpl": 70.0,
}  # fmt: skip
MEASURED_LABELS = 8231


class Cell(NamedTuple):
    """One arm on one seed."""

    arm: str
    seed: int
    key: str


def chosen_arms(config: BenchmarkConfig) -> dict[str, dict[str, Arm]]:
    """The arms that a configuration asks for, by group; the full method is always among them."""
    from pref_model.arms import FULL, arms

    every = arms(config.fit, config.rewards, config.labels)
    wanted = None if config.only is None else {FULL, *config.only}
    return {
        group: {
            name: arm
            for name, arm in members.items()
            if wanted is None or name in wanted or group in wanted
        }
        for group, members in every.items()
    }


def describe_arms(config: BenchmarkConfig) -> dict[str, dict[str, Any]]:
    """What enters a version of each arm: group, settings, code of its method."""
    found: dict[str, dict[str, Any]] = {}
    for group, members in chosen_arms(config).items():
        for name, arm in members.items():
            method = type(arm.tries[0])
            found[name] = {
                "arm_group": group,
                "method": method.__name__,
                "tries": [_plain(asdict(one)) for one in arm.tries],  # type: ignore[call-overload]
                "n_labels": arm.n_labels,
                "n_base_rewards": getattr(getattr(arm.tries[0], "config", None), "d", None),
                "rule": arm.rule,
                "counts": sorted({*config.answers, *(config.many_answers if arm.is_long else ())}),
                "code_sha256": code_sha256(method.__module__),
            }
    return found


def label_count(inputs: Inputs) -> int:
    """Labels that the matrix has."""
    valid = inputs.read("preferences", ("n_valid",))["n_valid"].to_numpy()
    return int(np.sum(valid >= MIN_VALID_ORDERS))


def cells_of(inputs: Inputs, arm: str) -> list[Cell]:
    """The cells of one arm, in the order of their seeds.

    None where it asks for as many labels as there are, which is the full method.
    """
    wanted = inputs.config["arms"][arm]["n_labels"]
    if wanted is not None and wanted >= label_count(inputs):
        return []
    # The group names a cell for readers and shapes nothing of it.
    about = {k: v for k, v in inputs.config["arms"][arm].items() if k != "arm_group"}
    fixed = {
        "arm": about,
        "protocol": [code_sha256(one) for one in (
            "pref_model.protocol", "tasks._stages.benchmark_matrix",
        )],
        "parents": dict(inputs.plan.parents),
    }  # fmt: skip
    return [
        Cell(arm, seed, sha256_json({**fixed, "seed": seed})[:KEY_DIGITS])
        for seed in range(inputs.config["seeds"])
    ]


def missing_cells(inputs: Inputs, arm: str) -> list[Cell]:
    """Cells of an arm that are neither committed nor staged."""
    held = _committed_keys(inputs.warehouse)
    return [
        one
        for one in cells_of(inputs, arm)
        if one.key not in held and not inputs.warehouse.shard_indices(DATASET, one.key)
    ]


def estimate(inputs: Inputs, arm: str) -> float:
    """Seconds on one core that the missing cells of an arm will take, roughly.

    From times measured on a matrix of 84 users and 100 pairs, in proportion to the labels.
    """
    about = inputs.config["arms"][arm]
    name = arm if arm in SECONDS else "pref"
    n_labels = about["n_labels"] or label_count(inputs)
    return len(missing_cells(inputs, arm)) * SECONDS[name] * n_labels / MEASURED_LABELS


def run_arm(inputs: Inputs, config: BenchmarkConfig, arm: str) -> int:
    """Computes and stages the missing cells of one arm; how many there were."""
    waiting = missing_cells(inputs, arm)
    if not waiting:
        return 0
    work = [(inputs, config, one) for one in waiting]
    if config.processes > 1 and len(work) > 1:
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(config.processes, len(work)), fresh) as pool:
            for cell, rows in zip(waiting, pool.map(_run_cell, work), strict=True):
                inputs.warehouse.write_shard(DATASET, cell.key, 0, rows)
    else:
        for cell, one in zip(waiting, work, strict=True):
            inputs.warehouse.write_shard(DATASET, cell.key, 0, _run_cell(one))
    return len(waiting)


def build(inputs: Inputs) -> dict[str, Output]:
    """Gathers the cells of all arms and takes means over users, differences paired by user."""
    from pref_model.arms import FULL

    matrix = read_matrix(inputs)
    committed = _committed(inputs.warehouse)
    tables: list[pa.Table] = []
    curves: dict[str, _Curve] = {}
    for arm, about in inputs.config["arms"].items():
        mine = [_rows_of(inputs.warehouse, committed, one) for one in cells_of(inputs, arm)]
        for rows in mine:
            group = pa.array([about["arm_group"]] * rows.num_rows, pa.string())
            place = rows.schema.get_field_index("arm_group")
            tables.append(rows.set_column(place, rows.schema.field(place), group))
        if mine:
            curves[arm] = _curve(mine, matrix, inputs)
    cells = pa.concat_tables(tables).select(TABLES[DATASET].columns)
    means = [
        row for arm, curve in curves.items() for row in _means(inputs, arm, curve, curves.get(FULL))
    ]
    keys = [(name, "ascending") for name in TABLES[DATASET].key]
    return {
        DATASET: Output(cells.sort_by(keys).cast(TABLES[DATASET].schema)),
        "benchmark_means": Output(pa.Table.from_pylist(means, TABLES["benchmark_means"].schema)),
    }


def clear_staged(inputs: Inputs) -> None:
    """Deletes staged cells, once they are committed."""
    for arm in inputs.config["arms"]:
        for cell in cells_of(inputs, arm):
            inputs.warehouse.clear_staging(DATASET, cell.key)


def _run_cell(work: tuple[Inputs, BenchmarkConfig, Cell]) -> pa.Table:
    from pref_model.protocol import run_cell
    from tasks._stages.fit import one_thread

    inputs, config, cell = work
    arm = next(members[cell.arm] for members in chosen_arms(config).values() if cell.arm in members)
    matrix = _matrix(inputs.warehouse, tuple(sorted(inputs.plan.parents.items())), inputs)
    one = split(matrix, cell.seed)
    counts = [n for n in inputs.config["arms"][cell.arm]["counts"] if n <= len(one.seen)]
    if not counts:
        raise InputRejected(
            f"answers: {cell.arm} is asked for at {inputs.config['arms'][cell.arm]['counts']} of"
            f" {len(one.seen)} pairs to answer about; expected at least one number up to that"
        )
    with one_thread():
        found = run_cell(arm, matrix, one, cell.seed, counts)
    rows = [
        {
            "arm_group": inputs.config["arms"][cell.arm]["arm_group"],
            "arm": cell.arm,
            "seed": cell.seed,
            "persona_id": matrix.users[user],
            "n_answers": count,
            "auc": None if np.isnan(found[row, column]) else float(found[row, column]),
            "cell_sha256": cell.key,
        }
        for row, user in enumerate(one.fresh)
        for column, count in enumerate(counts)
    ]
    return pa.Table.from_pylist(rows, TABLES[DATASET].schema)


class _Curve(NamedTuple):
    """An arm's figures: numbers of answers, (S, counts) means of seeds, (U, counts) of users."""

    counts: list[int]
    by_seed: NDArray[np.float64]
    by_user: NDArray[np.float64]


def _curve(tables: Sequence[pa.Table], matrix: Matrix, inputs: Inputs) -> _Curve:
    from pref_model.protocol import mean_by_user

    row_of = index_of(matrix.users)
    counts = sorted(set(pa.concat_tables(tables)["n_answers"].to_pylist()))
    column = {count: index for index, count in enumerate(counts)}
    users, values = [], []
    for table in tables:
        found: dict[int, list[float]] = {}
        for row in table.to_pylist():
            mine = found.setdefault(row_of[row["persona_id"]], [np.nan] * len(counts))
            mine[column[row["n_answers"]]] = np.nan if row["auc"] is None else row["auc"]
        if found:
            users.append(np.array(list(found), np.int64))
            values.append(np.array(list(found.values())))
    by_seed = np.stack([_mean(one) for one in values])
    return _Curve(counts, by_seed, mean_by_user(len(matrix.users), users, values))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over rows that have a number; nan where none has, as on a seed of few test pairs."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    mean: NDArray[np.float64] = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _means(
    inputs: Inputs, arm: str, curve: _Curve, full: _Curve | None
) -> Iterator[dict[str, Any]]:
    from pref_model.metrics import cluster_bootstrap_mean

    config, about = inputs.config, inputs.config["arms"][arm]
    how = {"draws": config["draws"], "level": config["level"], "seed": config["seed"]}
    for place, count in enumerate(curve.counts):
        own = cluster_bootstrap_mean(curve.by_user[:, place], **how)
        gap = None
        if full is not None and count in full.counts:
            other = full.by_user[:, full.counts.index(count)]
            gap = cluster_bootstrap_mean(curve.by_user[:, place] - other, **how)
        spread = curve.by_seed[:, place]
        spread = spread[~np.isnan(spread)]
        yield {
            "arm_group": about["arm_group"],
            "arm": arm,
            "n_answers": count,
            "n_base_rewards": about["n_base_rewards"],
            "n_labels": about["n_labels"],
            "auc_mean": own.mean if own.n else None,
            "auc_low": own.low if own.n else None,
            "auc_high": own.high if own.n else None,
            "gap_mean": gap.mean if gap and gap.n else None,
            "gap_low": gap.low if gap and gap.n else None,
            "gap_high": gap.high if gap and gap.n else None,
            "seed_spread": float(spread.std(ddof=1)) if len(spread) > 1 else None,
            "n_users": own.n,
            "n_seeds": len(spread),
        }


def _committed_keys(warehouse: Warehouse) -> set[str]:
    keys: set[str] = set()
    for one in warehouse.manifests(DATASET):
        keys |= set(pc.unique(_key_column(warehouse, one.version)).to_pylist())
    return keys


# Versions are immutable.
@lru_cache(maxsize=64)
def _key_column(warehouse: Warehouse, version: str) -> pa.ChunkedArray:
    return warehouse.read(DATASET, version, ["cell_sha256"])["cell_sha256"]


def _committed(warehouse: Warehouse) -> dict[str, pa.Table]:
    """Rows of every committed cell by its key."""
    found: dict[str, pa.Table] = {}
    for one in warehouse.manifests(DATASET):
        table = warehouse.read(DATASET, one.version)
        for key in set(table["cell_sha256"].to_pylist()) - set(found):
            found[key] = table.filter(pc.equal(table["cell_sha256"], key))
    return found


def _rows_of(warehouse: Warehouse, committed: Mapping[str, pa.Table], cell: Cell) -> pa.Table:
    if cell.key in committed:
        return committed[cell.key]
    staged = list(warehouse.read_shards(DATASET, cell.key))
    return staged[0] if staged else TABLES[DATASET].schema.empty_table()


# A process meets one matrix; the arrays are the same for every cell of it.
_held: dict[tuple[tuple[str, str], ...], Any] = {}


def _matrix(warehouse: Warehouse, parents: tuple[tuple[str, str], ...], inputs: Inputs) -> Matrix:
    if parents not in _held:
        _held.clear()
        _held[parents] = read_matrix(inputs)
    found: Matrix = _held[parents]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


STAGE = Stage(
    name="benchmark",
    reads=("preferences", "pairs", "embeddings"),
    writes=(DATASET, "benchmark_means"),
    module=__name__,
    build=build,
)
