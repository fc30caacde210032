from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from warehouse.cleaning import clean, unreferenced
from warehouse.errors import DatasetMissing, WarehouseBusy
from warehouse.forward import uses
from warehouse.manifest import Manifest
from warehouse.runs import RunRecord
from warehouse.store import Warehouse

START = datetime(2026, 1, 1, tzinfo=UTC)


def record(
    run_id: str, day: int, datasets: dict[str, str], *, is_complete: bool = True
) -> RunRecord:
    began = START + timedelta(days=day)
    return RunRecord(
        run_id=run_id,
        flow="attributes",
        started_at=began,
        finished_at=began + timedelta(hours=1),
        datasets=datasets,
        is_complete=is_complete,
        config={},
    )


def named(found: list[Any]) -> list[str]:
    return [one.manifest.dataset for one in found]


def test_what_is_built_on_a_dataset_comes_after_it(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    found = uses(warehouse, "pairs")
    assert named(found) == ["pairs", "judgments", "preferences", "splits"]
    assert found[1].via == ("pairs",)
    assert named(uses(warehouse, "splits")) == ["splits"]


@pytest.mark.parametrize("what", ["template:judge_attributes", "model:simulated-judge"])
def test_what_a_template_or_judge_went_into_is_found_by_its_manifests(
    warehouse: Warehouse, chain: dict[str, Manifest], what: str
) -> None:
    assert named(uses(warehouse, what)) == ["judgments", "preferences", "splits"]
    assert uses(warehouse, what + "x") == []


def test_a_call_and_a_persona_lead_to_the_rows_that_name_them(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    judgments = warehouse.read("judgments", chain["judgments"].version)
    key = judgments["request_key"][0].as_py()
    by_call = {one.manifest.dataset: one.n_rows for one in uses(warehouse, f"call:{key}")}
    assert by_call == {"judgments": 1, "preferences": None, "splits": None}
    persona = judgments["persona_id"][0].as_py()
    by_persona = {one.manifest.dataset: one.n_rows for one in uses(warehouse, f"persona:{persona}")}
    assert by_persona["personas"] == 1
    assert by_persona["judgments"] == judgments["persona_id"].to_pylist().count(persona)
    assert "responses" not in by_persona


def test_an_unknown_kind_is_refused_with_those_there_are(warehouse: Warehouse) -> None:
    with pytest.raises(DatasetMissing, match="'judge' is no kind"):
        uses(warehouse, "judge:gpt-4o")


def test_only_what_no_kept_run_and_no_kept_version_needs_is_removed(
    warehouse: Warehouse, chain: dict[str, Manifest], provenance: Any
) -> None:
    versions = {name: one.version for name, one in chain.items()}
    warehouse.record_run(record("r1", 1, versions))
    assert unreferenced(warehouse, 1) == []
    # A second run of the same prompts and people, with newer preferences and split.
    rows = warehouse.read("preferences", versions["preferences"])
    base = replace(provenance("assemble"), parents={"judgments": versions["judgments"]})
    newer = warehouse.commit("preferences", replace(base, config={"x": 1}), rows)
    splits = warehouse.read("splits", versions["splits"])
    again = warehouse.commit(
        "splits", replace(provenance("split"), parents={"preferences": newer.version}), splits
    )
    second = {**versions, "preferences": newer.version, "splits": again.version}
    warehouse.record_run(record("r2", 2, second))
    gone = {(one.dataset, one.version) for one in unreferenced(warehouse, 1)}
    assert gone == {("preferences", versions["preferences"]), ("splits", versions["splits"])}
    assert unreferenced(warehouse, 2) == []
    # A run that broke off later is as recent as the last complete one, and keeps what it named.
    warehouse.record_run(record("r3", 3, {"splits": versions["splits"]}, is_complete=False))
    assert unreferenced(warehouse, 1) == []


def test_removal_waits_for_no_run_and_leaves_nothing_half_there(
    warehouse: Warehouse, chain: dict[str, Manifest], provenance: Any
) -> None:
    prompts = warehouse.read("prompts", chain["prompts"].version)
    lost = warehouse.commit("prompts", replace(provenance("ingest"), config={"n": 9}), prompts)
    versions = {name: one.version for name, one in chain.items()}
    warehouse.record_run(record("r1", 1, versions))
    with warehouse.lock(), pytest.raises(WarehouseBusy):
        clean(warehouse, 1)
    assert warehouse.has("prompts", lost.version)
    assert [one.version for one in clean(warehouse, 1)] == [lost.version]
    assert not warehouse.has("prompts", lost.version)
    assert {path.name for path in (warehouse.root / "prompts").iterdir()} == {
        f"version={versions['prompts']}"
    }
    assert clean(warehouse, 1) == []
