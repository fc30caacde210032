"""From a figure or a user's weights to exactly the calls behind them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.warehouse.conftest import PERSONAS, make_provenance
from warehouse.behind import calls_behind, start_of
from warehouse.errors import DatasetMissing
from warehouse.lineage import lineage_tree
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES


def put(
    warehouse: Warehouse,
    chain: dict[str, Manifest],
    name: str,
    rows: list[dict[str, Any]],
    *reads: str,
) -> None:
    parents = {one: chain[one].version for one in reads}
    table = pa.Table.from_pylist(rows, TABLES[name].schema)
    chain[name] = warehouse.commit(name, make_provenance(f"make {name}", parents), table)


@pytest.fixture
def trained(warehouse: Warehouse, chain: dict[str, Manifest]) -> dict[str, Manifest]:
    weights = [{"persona_id": PERSONAS[0], "weights": [1.0]}]
    put(warehouse, chain, "user_weights", weights, "personas", "pairs", "responses", "preferences")
    means = [{"method": "pref", "n_answers": 1, "auc_mean": 0.9, "n_users": 1}]
    put(warehouse, chain, "auc_means", means, "preferences")
    numbers = [{"figure": "auc", "key": "pref@1", "value": 0.9}]
    put(warehouse, chain, "report", numbers, "auc_means", "user_weights")
    return chain


def behind(warehouse: Warehouse, what: str) -> dict[str, tuple[set[str], set[str]]]:
    start = start_of(warehouse, what)
    tree = lineage_tree(warehouse, start.dataset, start.version)
    return {
        one.manifest.dataset: (set(one.request_keys), set(one.of_person))
        for one in calls_behind(warehouse, tree, start.person)
    }


def test_a_users_weights_lead_to_that_users_calls_and_to_all_behind_the_model(
    warehouse: Warehouse, trained: dict[str, Manifest]
) -> None:
    found = behind(warehouse, f"weights:{PERSONAS[0]}")
    rows = warehouse.read("judgments", trained["judgments"].version).to_pylist()
    every, mine = found["judgments"]
    assert every == {row["request_key"] for row in rows}
    assert mine == {row["request_key"] for row in rows if row["persona_id"] == PERSONAS[0]}
    texts = {"p1/a", "p1/b", "p2/a", "p2/b"}
    assert found["responses"] == (texts, texts)


def test_a_figure_leads_to_the_calls_of_the_dataset_that_holds_it(
    warehouse: Warehouse, trained: dict[str, Manifest]
) -> None:
    found = behind(warehouse, "figure:auc")
    assert start_of(warehouse, "figure:auc").dataset == "auc_means"
    assert set(found) == {"judgments", "responses"}
    assert all(mine == set() for _, mine in found.values())


@pytest.mark.parametrize("what", ["figure:nothing", "weights:nobody"])
def test_what_is_not_there_is_refused_in_one_line(
    warehouse: Warehouse, trained: dict[str, Manifest], what: str
) -> None:
    with pytest.raises(DatasetMissing, match="expected"):
        start_of(warehouse, what)


def test_a_dataset_is_taken_as_it_is_named(warehouse: Warehouse) -> None:
    assert start_of(warehouse, "pairs", "a" * 12) == ("pairs", "a" * 12, None)
