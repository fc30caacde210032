from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

from tasks import _cards as cards
from warehouse.manifest import Manifest


def manifest(dataset: str, *parents: str) -> Manifest:
    return Manifest(
        stage="s",
        code_sha256="0" * 64,
        config={},
        parents=dict.fromkeys(parents, "a" * 12),
        flow_run_id="f",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        libraries={},
        dataset=dataset,
        version="a" * 12,
        version_sha256="a" * 64,
        schema_id="c" * 12,
        content_sha256="d" * 64,
        files=(),
        n_rows=1234,
        n_bytes=10,
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


CHAIN = [
    manifest("prompts"),
    manifest("responses", "prompts"),
    manifest("pairs", "prompts", "responses"),
    manifest("judgments", "prompts", "responses", "pairs"),
]


def test_a_card_links_every_parent_to_its_page_in_the_same_run() -> None:
    text = cards.dataset_card(CHAIN[3], is_reused=True, artifacts={"pairs": "id-1"})
    assert "**reused**" in text
    assert "(../artifact/id-1)" in text
    # A parent published elsewhere is found under its key.
    assert "(../key/prompts)" in text


def test_a_graph_leaves_out_edges_that_a_longer_way_says_already() -> None:
    assert cards.direct_edges(CHAIN) == [
        ("prompts", "responses"),
        ("responses", "pairs"),
        ("pairs", "judgments"),
    ]


def test_a_graph_leaves_out_a_parent_of_an_earlier_run() -> None:
    earlier = replace(CHAIN[1], parents={"prompts": "a" * 12, "responses": "b" * 12})
    assert cards.direct_edges([CHAIN[0], earlier]) == [("prompts", "responses")]


def test_every_dataset_of_a_run_is_a_node_with_a_link() -> None:
    ids = {one.dataset: f"id-{one.dataset}" for one in CHAIN}
    text = cards.lineage_graph(CHAIN, ids)
    for one in CHAIN:
        assert f'click {one.dataset} "../artifact/id-{one.dataset}"' in text
        assert f"[{one.dataset}](../artifact/id-{one.dataset})" in text


def test_keys_are_such_as_prefect_takes() -> None:
    for words in (("pool_responses",), ("win rates", "table"), ("auc", "picture")):
        assert re.fullmatch(r"[a-z0-9-]+", cards.key(*words))
