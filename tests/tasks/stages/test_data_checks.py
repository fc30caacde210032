"""Checks are rows: what a table declares, what the matrix covers, how far it moved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks._runs import RunIds, plan_stage, run_stage
from tasks._stages.data_checks import STAGE, is_worth_showing, told
from tasks.auditing import audit_checks
from tasks.checks import gate
from tasks.config import ChecksConfig, as_json
from tasks.errors import StageFailed
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.worlds import put_world
from warehouse.checks import check_rows, declared_constraints
from warehouse.runs import RunRecord
from warehouse.tables import TABLES

CONFIG = {**as_json(ChecksConfig()), "flow": "attributes"}


def checked(bench: Bench, **changes: Any) -> tuple[str, dict[tuple[str, str, str], dict[str, Any]]]:
    root = str(bench.warehouse.root)
    plan = plan_stage(STAGE, root, {**CONFIG, **changes}, dict(bench.versions))
    [ref] = run_stage(plan, STAGE, RunIds("test", None))
    rows = bench.warehouse.read("data_checks", ref["version"]).to_pylist()
    found = {
        (row["checked_dataset"], row["check_name"], row["checked_columns"]): row for row in rows
    }
    return ref["version"], found


@pytest.fixture
def world(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "w")
    put_world(bench)
    return bench


def end_run(bench: Bench, flow: str = "attributes", *, is_complete: bool = True) -> None:
    now = datetime.now(UTC)
    bench.warehouse.record_run(
        RunRecord(
            run_id=f"run-{len(bench.warehouse.runs())}",
            flow=flow,
            started_at=now,
            finished_at=now,
            datasets=dict(bench.versions),
            is_complete=is_complete,
            config={},
        )
    )


def moved(bench: Bench, by: float) -> None:
    """Commits preferences that are nearer to A than those before."""
    rows = bench.warehouse.read("preferences", bench.versions["preferences"]).to_pylist()
    for row in rows:
        if row["preference_prob"] is not None:
            row["preference_prob"] = min(1.0, row["preference_prob"] + by)
    bench.put("preferences", rows, ("personas", "pairs", "judgments")[:2])


def test_every_declared_constraint_of_every_dataset_is_a_row(world: Bench) -> None:
    version, found = checked(world)
    for dataset in world.versions:
        for kind, columns in declared_constraints(TABLES[dataset]):
            assert found[dataset, kind, columns]["outcome"] == "passed"
    # References to parents are among them.
    assert ("embeddings", "foreign_key", "response_id") in found
    assert gate.fn(str(world.warehouse.root), version) == []


def test_a_fault_has_the_words_of_the_constraint_it_breaks() -> None:
    table = TABLES["judgments"]
    row = {
        "persona_id": "u", "pair_id": "p", "presentation_order": "sideways", "repeat": -1,
        "request_key": None, "judge_model": "m", "verdict": "first", "is_exact_form": True,
        "unparsed_reason": "empty", "prefers_a_prob": 2.0, "prob_origin": "verdict",
        "a_low_prob": None, "a_high_prob": None, "reply_text": None,
    }  # fmt: skip
    free = pa.schema([field.with_nullable(True) for field in table.schema])
    known = {"pairs.pair_id": pa.chunked_array([["q"]])}
    faults = check_rows(table, pa.Table.from_pylist([row, row], free), known)
    broken = {(one.kind, one.column) for one in faults}
    assert broken <= set(declared_constraints(table, known))
    assert {kind for kind, _ in broken} == {
        "key", "not_null", "values", "range", "exclusive", "foreign_key",
    }  # fmt: skip


def test_cells_without_a_verdict_stop_the_run_and_are_named(world: Bench) -> None:
    rows = world.warehouse.read("preferences", world.versions["preferences"]).to_pylist()
    for row in rows[: 2 * len(rows) // 3]:
        row["preference_prob"] = None
    world.put("preferences", rows, ("personas", "pairs"))
    version, found = checked(world)
    row = found["preferences", "coverage", "persona_id, pair_id"]
    assert row["outcome"] == "failed"
    assert row["n_faulty"] == sum(one["preference_prob"] is None for one in rows)
    first = f"{rows[0]['persona_id']}/{rows[0]['pair_id']}"
    with pytest.raises(StageFailed, match=first):
        gate.fn(str(world.warehouse.root), version)
    assert "failed" in {one["outcome"] for one in audit_checks(world.warehouse)}
    # The bound is a setting, and another bound is another version.
    version, found = checked(world, min_coverage=0.1)
    assert found["preferences", "coverage", "persona_id, pair_id"]["outcome"] == "passed"


def test_a_user_without_any_label_is_a_warning(world: Bench) -> None:
    rows = world.warehouse.read("preferences", world.versions["preferences"]).to_pylist()
    lost = rows[0]["persona_id"]
    world.put("preferences", [one for one in rows if one["persona_id"] != lost], ("personas",))
    version, found = checked(world)
    row = found["personas", "coverage", "persona_id"]
    assert (row["outcome"], row["n_faulty"], row["faulty_rows"]) == ("warned", 1, lost)
    [line] = gate.fn(str(world.warehouse.root), version)
    assert lost in line


def test_drift_beyond_its_tolerance_warns_or_stops_as_it_is_set(world: Bench) -> None:
    end_run(world)
    before = world.versions["preferences"]
    moved(world, 0.5)
    version, found = checked(world)
    row = found["preferences", "drift", "preference_prob by pair"]
    assert (row["outcome"], row["previous_version"]) == ("warned", before)
    assert row["value"] > row["tolerance"]
    assert row["n_faulty"] > 0
    assert row["faulty_rows"].split(":")[0] in set(
        world.warehouse.read("pairs", world.versions["pairs"])["pair_id"].to_pylist()
    )
    assert gate.fn(str(world.warehouse.root), version)
    version, found = checked(world, on_drift="stop")
    with pytest.raises(StageFailed, match="preference_prob by pair"):
        gate.fn(str(world.warehouse.root), version)
    version, found = checked(world, preference_drift=0.9)
    assert gate.fn(str(world.warehouse.root), version) == []


def test_the_same_command_compares_with_the_same_run_again(world: Bench) -> None:
    end_run(world)
    moved(world, 0.2)
    first, _ = checked(world)
    end_run(world)
    assert checked(world)[0] == first


@pytest.mark.parametrize("other", ["another flow", "cut off"])
def test_matrices_of_other_flows_and_runs_cut_off_are_compared_with_nothing(
    world: Bench, other: str
) -> None:
    end_run(
        world, "prism" if other == "another flow" else "attributes", is_complete=other != "cut off"
    )
    moved(world, 0.5)
    _, found = checked(world)
    assert not any(check == "drift" for _, check, _ in found)


def test_what_is_shown_is_what_says_more_than_that_all_is_well(world: Bench) -> None:
    _, found = checked(world)
    shown = [row for row in found.values() if is_worth_showing(row)]
    assert {row["check_name"] for row in shown} == {"coverage"}
    assert all("coverage of" in told(row) for row in shown)
