"""A small warehouse with a chain of datasets whose every row is known."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from warehouse.manifest import CallCounts, Manifest, Provenance, TemplateUse
from warehouse.store import Warehouse, open_warehouse

START = datetime(2030, 1, 1, tzinfo=UTC)
PERSONAS = ("concise+polite", "formal+humorous")
PAIRS = ("q1", "q2")


def make_provenance(
    stage: str, parents: dict[str, str] | None = None, **changes: Any
) -> Provenance:
    values: dict[str, Any] = {
        "stage": stage,
        "code_sha256": "ab" * 32,
        "config": {"seed": 0},
        "parents": parents or {},
        "flow_run_id": "run-1",
        "started_at": START,
        "libraries": {"pyarrow": pa.__version__},
    }
    return Provenance(**(values | changes))


def judgment_rows(n_repeats: int = 1) -> pa.Table:
    rows = [
        {
            "persona_id": persona,
            "pair_id": pair,
            "presentation_order": order,
            "repeat": repeat,
            "request_key": f"{persona}/{pair}/{order}/{repeat}",
            "judge_model": "simulated-judge",
            "verdict": None if (pair, order) == ("q2", "ba") else "first",
            "is_exact_form": (pair, order) != ("q2", "ba"),
            "unparsed_reason": "off_menu" if (pair, order) == ("q2", "ba") else None,
            "prefers_a_prob": None if (pair, order) == ("q2", "ba") else float(order == "ab"),
            "prob_origin": None if (pair, order) == ("q2", "ba") else "verdict",
            "a_low_prob": None,
            "a_high_prob": None,
            "reply_text": "VERDICT: 1",
        }
        for persona in PERSONAS
        for pair in PAIRS
        for order in ("ab", "ba")
        for repeat in range(n_repeats)
    ]
    return pa.Table.from_pylist(rows)


def prompt_rows(n: int = 2) -> pa.Table:
    return pa.table(
        {
            "prompt_id": [f"p{index + 1}" for index in range(n)],
            "prompt_text": [f"Tell me about {index + 1}." for index in range(n)],
            "prompt_source": ["test"] * n,
        }
    )


def commit_chain(warehouse: Warehouse) -> dict[str, Manifest]:
    """Commit prompts to splits, two personas by two pairs."""
    done: dict[str, Manifest] = {}

    def commit(name: str, stage: str, parents: list[str], rows: pa.Table, **changes: Any) -> None:
        versions = {parent: done[parent].version for parent in parents}
        done[name] = warehouse.commit(name, make_provenance(stage, versions, **changes), rows)

    commit("prompts", "ingest", [], prompt_rows())
    commit(
        "personas",
        "ingest",
        [],
        pa.table(
            {
                "persona_id": PERSONAS,
                "persona_kind": ["attributes"] * 2,
                "trait_1": ["concise", "formal"],
                "trait_2": ["polite", "humorous"],
                "profile_text": ["short and kind", "stiff and funny"],
                "system_text": [None, None],
            }
        ),
    )
    ids = ["p1/a", "p1/b", "p2/a", "p2/b"]
    commit(
        "responses",
        "respond",
        ["prompts"],
        pa.table(
            {
                "response_id": ids,
                "prompt_id": ["p1", "p1", "p2", "p2"],
                "response_role": ["pair_a", "pair_b"] * 2,
                "style": ["concise+polite"] * 4,
                "parent_response_id": pa.nulls(4),
                "response_text": ["one", "two", "three", "four"],
                "finish_reason": ["stop"] * 4,
                "request_key": ids,
                "response_model": ["simulated-responder"] * 4,
                "toward_persona_id": pa.nulls(4),
            }
        ),
    )
    commit(
        "pairs",
        "respond",
        ["prompts", "responses"],
        pa.table(
            {
                "pair_id": PAIRS,
                "prompt_id": ["p1", "p2"],
                "response_a_id": ids[::2],
                "response_b_id": ids[1::2],
            }
        ),
    )
    commit(
        "judgments",
        "judge",
        ["personas", "pairs"],
        judgment_rows(),
        calls=CallCounts(6, 2, 100, 10, 0.25, 0.2),
        models=("simulated-judge",),
        templates=(TemplateUse("judge_attributes", "1", "cd" * 32),),
    )
    commit(
        "preferences",
        "assemble",
        ["judgments"],
        pa.table(
            {
                "persona_id": [persona for persona in PERSONAS for _ in PAIRS],
                "pair_id": list(PAIRS) * 2,
                "preference_prob": [0.5, 1.0, 0.5, None],
                "n_valid": [2, 1, 2, 0],
                "n_asked": [2, 2, 2, 2],
                "is_tie": [True, False, True, False],
            }
        ),
    )
    commit(
        "splits",
        "split",
        ["preferences"],
        pa.table(
            {
                "entity_kind": ["persona", "persona", "pair", "pair"],
                "entity_id": [*PERSONAS, *PAIRS],
                "side": ["seen", "new", "seen", "new"],
            }
        ),
    )
    return done


def ticking_clock() -> Callable[[], datetime]:
    ticks = count(1)
    return lambda: START + timedelta(seconds=next(ticks))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return open_warehouse(tmp_path / "data", clock=ticking_clock())


@pytest.fixture
def provenance() -> Callable[..., Provenance]:
    return make_provenance


@pytest.fixture
def prompts() -> Callable[..., pa.Table]:
    return prompt_rows


@pytest.fixture
def judgments() -> Callable[..., pa.Table]:
    return judgment_rows


@pytest.fixture
def chain(warehouse: Warehouse) -> dict[str, Manifest]:
    return commit_chain(warehouse)
