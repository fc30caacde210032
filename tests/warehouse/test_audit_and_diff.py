from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse.audit import Finding, audit
from warehouse.diff import diff
from warehouse.manifest import Provenance, TemplateUse
from warehouse.store import Warehouse, open_warehouse
from warehouse.tables import TABLES


def put(
    warehouse: Warehouse,
    dataset: str,
    rows: list[dict[str, Any]],
    parents: dict[str, str] | None = None,
    **config: Any,
) -> str:
    provenance = Provenance(
        stage="test",
        code_sha256="0" * 64,
        config={"dataset": dataset, **config},
        parents=parents or {},
        flow_run_id="test",
        started_at=datetime.now(UTC),
        libraries={},
        templates=(TemplateUse("judge", str(config.get("template", 1)), "a" * 64),),
    )
    table = pa.Table.from_pylist(rows, TABLES[dataset].schema)
    return warehouse.commit(dataset, provenance, table).version


def prompts(*ids: str) -> list[dict[str, Any]]:
    return [{"prompt_id": one, "prompt_text": f"About {one}?", "prompt_source": "t"} for one in ids]


def response(prompt: str, name: str) -> dict[str, Any]:
    return {
        "response_id": f"{prompt}/{name}",
        "prompt_id": prompt,
        "response_role": f"pair_{name}",
        "style": None,
        "parent_response_id": None,
        "response_text": f"text {name}",
        "finish_reason": "stop",
        "request_key": f"key-{prompt}-{name}",
        "response_model": "m",
    }


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Warehouse, dict[str, str]]:
    warehouse = open_warehouse(tmp_path / "w")
    ids = ("p1", "p2")
    versions = {"prompts": put(warehouse, "prompts", prompts(*ids))}
    texts = [response(one, name) for one in ids for name in ("a", "b")]
    versions["responses"] = put(warehouse, "responses", texts, dict(versions))
    pairs = [
        {
            "pair_id": f"{one}/{k}",
            "prompt_id": one,
            "response_a_id": f"{one}/a",
            "response_b_id": f"{one}/b",
        }
        for one in ids
        for k in range(2)
    ]
    versions["pairs"] = put(warehouse, "pairs", pairs, dict(versions))
    return warehouse, versions


def found(warehouse: Warehouse, **ledger: Any) -> list[Finding]:
    return list(audit(warehouse, **ledger))


def test_an_untouched_warehouse_has_no_findings(filled: tuple[Warehouse, dict[str, str]]) -> None:
    assert found(filled[0], held=set) == []


@pytest.mark.parametrize("dataset", ["prompts", "responses", "pairs"])
@pytest.mark.parametrize("name", ["part-0.parquet", "manifest.json"])
def test_a_single_flipped_bit_is_found(
    filled: tuple[Warehouse, dict[str, str]], dataset: str, name: str
) -> None:
    warehouse, versions = filled
    path = warehouse.root / dataset / f"version={versions[dataset]}" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert dataset in {one.dataset for one in found(warehouse)}


def test_a_deleted_row_is_found(filled: tuple[Warehouse, dict[str, str]]) -> None:
    warehouse, versions = filled
    path = warehouse.root / "pairs" / f"version={versions['pairs']}" / "part-0.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert [one.dataset for one in found(warehouse)] == ["pairs"]


def test_a_missing_parent_is_found(filled: tuple[Warehouse, dict[str, str]]) -> None:
    warehouse, versions = filled
    folder = warehouse.root / "prompts" / f"version={versions['prompts']}"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    told = found(warehouse)
    assert {one.dataset for one in told} == {"responses", "pairs"}
    assert all("parent prompts" in one.problem for one in told)


def test_a_call_that_the_ledger_lacks_is_found(filled: tuple[Warehouse, dict[str, str]]) -> None:
    told = found(filled[0], held=lambda keys: set(keys) - {"key-p1-a"})
    assert len(told) == 1
    assert "1 of 4 calls are not in the ledger" in told[0].problem


@pytest.mark.parametrize("is_leaking", [False, True])
def test_a_prompt_on_both_sides_is_found(
    filled: tuple[Warehouse, dict[str, str]], is_leaking: bool
) -> None:
    warehouse, versions = filled
    sides = {"p1/0": "seen", "p1/1": "new" if is_leaking else "seen", "p2/0": "new", "p2/1": "new"}
    rows = [{"entity_kind": "pair", "entity_id": one, "side": side} for one, side in sides.items()]
    put(warehouse, "splits", rows, {"pairs": versions["pairs"]})
    told = [one for one in found(warehouse) if "both sides" in one.problem]
    assert bool(told) is is_leaking


def test_a_difference_counts_rows_by_key_and_names_its_causes(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "w")
    older = put(warehouse, "prompts", prompts("a", "b", "c"), seed=0)
    changed = [{**one, "prompt_text": "Other?"} for one in prompts("b")]
    newer = put(warehouse, "prompts", [*changed, *prompts("c", "d")], seed=1, template=2)
    told = diff(warehouse, "prompts", older, newer)
    assert (told.n_added, told.n_removed, told.n_changed) == (1, 1, 1)
    assert told.examples == {"added": ["d"], "removed": ["a"], "changed": ["b"]}
    causes = {name: (before, after) for name, before, after in told.causes}
    assert causes["config seed"] == ("0", "1")
    assert causes["template judge"][0] != causes["template judge"][1]
    back = diff(warehouse, "prompts", newer, older)
    assert (back.n_added, back.n_removed, back.n_changed) == (1, 1, 1)


def test_a_version_does_not_differ_from_itself(tmp_path: Path) -> None:
    warehouse = open_warehouse(tmp_path / "w")
    only = put(warehouse, "prompts", prompts("a", "b"))
    told = diff(warehouse, "prompts", only, only)
    assert (told.n_added, told.n_removed, told.n_changed, told.causes) == (0, 0, 0, [])
