import json

import pytest

from warehouse.errors import DatasetMissing
from warehouse.lineage import lineage_tree, render_lines, to_json
from warehouse.manifest import Manifest
from warehouse.store import Warehouse


def test_the_tree_leads_from_a_split_to_the_prompts(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    versions = {name: manifest.version for name, manifest in chain.items()}
    lines = render_lines(lineage_tree(warehouse, "splits"))
    assert lines == [
        f"splits {versions['splits']}  by split; 4 rows",
        f"└─ preferences {versions['preferences']}  by assemble; 4 rows",
        f"   └─ judgments {versions['judgments']}  by judge; 8 rows; 6 calls made, 2 reused, "
        "$0.2500; models simulated-judge; templates judge_attributes 1 cdcdcdcdcdcd",
        f"      ├─ pairs {versions['pairs']}  by respond; 2 rows",
        f"      │  ├─ prompts {versions['prompts']}  by ingest; 2 rows",
        f"      │  └─ responses {versions['responses']}  by respond; 4 rows",
        f"      │     └─ prompts {versions['prompts']}  by ingest; 2 rows",
        f"      └─ personas {versions['personas']}  by ingest; 2 rows",
    ]


def test_a_shared_ancestor_is_one_node_drawn_once_in_full(
    warehouse: Warehouse, chain: dict[str, Manifest], provenance: object
) -> None:
    from dataclasses import replace

    both = {name: chain[name].version for name in ("pairs", "preferences")}
    base = replace(provenance("again"), parents=both)  # type: ignore[operator]
    rows = warehouse.read("preferences", chain["preferences"].version)
    made = warehouse.commit("preferences", base, rows)
    node = lineage_tree(warehouse, "preferences", made.version)
    pairs, preferences = node.parents
    assert preferences.parents[0].parents[0] is pairs
    lines = render_lines(node)
    assert sum("pairs" in line for line in lines) == 2
    assert sum("(see above)" in line for line in lines) == 1
    assert sum("responses" in line for line in lines) == 1


def test_json_lists_every_ancestor_once_and_children_first(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    flat = json.loads(json.dumps(to_json(lineage_tree(warehouse, "splits"))))
    assert flat["root"] == ["splits", chain["splits"].version]
    names = [one["dataset"] for one in flat["datasets"]]
    assert sorted(names) == sorted(chain)
    for one in flat["datasets"]:
        assert one["parents"] == chain[one["dataset"]].parents
        assert all(names.index(one["dataset"]) < names.index(name) for name in one["parents"])
    judgments = flat["datasets"][names.index("judgments")]
    assert (judgments["cost_usd"], judgments["n_rows"]) == (0.25, 8)


def test_a_dataset_that_is_not_there_gives_one_line(warehouse: Warehouse) -> None:
    with pytest.raises(DatasetMissing, match="dataset auc: no version in warehouse"):
        lineage_tree(warehouse, "auc")
    with pytest.raises(DatasetMissing, match="'x' is not known"):
        lineage_tree(warehouse, "x")


def test_a_missing_ancestor_is_named(warehouse: Warehouse, chain: dict[str, Manifest]) -> None:
    manifest = chain["prompts"]
    folder = warehouse.root / "prompts" / f"version={manifest.version}"
    (folder / "manifest.json").unlink()
    with pytest.raises(DatasetMissing, match=f"dataset prompts {manifest.version}: not in"):
        lineage_tree(warehouse, "splits")
