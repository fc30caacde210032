from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.checks import MAX_EXAMPLES, RowChecker, check_rows, conform
from warehouse.errors import CheckFailed
from warehouse.tables import TABLES

JUDGMENTS = TABLES["judgments"]


def changed(rows: pa.Table, row: int, **values: Any) -> pa.Table:
    listed = rows.to_pylist()
    listed[row] |= values
    return pa.Table.from_pylist(listed, JUDGMENTS.schema)


def lines(rows: pa.Table, **parents: pa.ChunkedArray) -> list[str]:
    return [str(fault) for fault in check_rows(JUDGMENTS, rows, parents)]


def test_good_rows_have_no_faults(judgments: Callable[..., pa.Table]) -> None:
    assert lines(judgments(3)) == []


def test_an_empty_dataset_has_no_faults() -> None:
    assert check_rows(JUDGMENTS, JUDGMENTS.schema.empty_table()) == ()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"persona_id": None}, "persona_id is null"),
        ({"persona_id": ""}, "persona_id is empty"),
        ({"presentation_order": "AB"}, "presentation_order is not one of ab/ba"),
        ({"repeat": -1}, "repeat is below 0"),
        ({"prefers_a_prob": 1.5}, "prefers_a_prob is above 1"),
        ({"prefers_a_prob": -0.5}, "prefers_a_prob is below 0"),
        ({"prefers_a_prob": float("nan")}, "prefers_a_prob is not finite"),
        ({"verdict": None}, "verdict and unparsed_reason are both null or both set"),
        ({"unparsed_reason": "empty"}, "verdict and unparsed_reason are both null or both set"),
        ({"request_key": None}, "request_key is null"),
    ],
)
def test_each_fault_is_found_and_named_with_its_key(
    judgments: Callable[..., pa.Table], values: dict[str, Any], problem: str
) -> None:
    found = lines(changed(judgments(), 1, **values))
    assert any(line.startswith(f"{problem} in 1 row (persona_id=") for line in found)


def test_faults_of_all_kinds_are_reported_together(judgments: Callable[..., pa.Table]) -> None:
    rows = judgments()
    rows = pa.concat_tables(
        [changed(changed(rows, 0, request_key=None), 1, prefers_a_prob=2.0), rows.slice(2, 1)],
        promote_options="permissive",
    )
    found = "; ".join(lines(rows))
    assert "request_key is null in 1 row" in found
    assert "prefers_a_prob is above 1 in 1 row" in found
    assert "key (persona_id, pair_id, presentation_order, repeat) is not unique in 2 rows" in found
    assert "(persona_id=concise+polite, pair_id=q2, presentation_order=ab, repeat=0)" in found


def test_all_rows_are_counted_and_three_are_shown(judgments: Callable[..., pa.Table]) -> None:
    rows = judgments(5)
    wrong = rows.set_column(3, "repeat", pa.array(range(-1, -1 - rows.num_rows, -1), pa.int64()))
    (fault,) = check_rows(JUDGMENTS, wrong)
    assert fault.n_rows == rows.num_rows
    assert len(fault.examples) == MAX_EXAMPLES


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_repeated_keys_are_those_a_counter_finds(keys: list[int], data: st.DataObject) -> None:
    table = TABLES["user_weights"]
    rows = pa.table({"persona_id": [str(key) for key in keys], "weights": [[1.0]] * len(keys)})
    cut = data.draw(st.integers(0, len(keys)))
    checker = RowChecker(table)
    for piece in (rows.slice(0, cut), rows.slice(cut)):
        checker.add(conform(table, piece))
    n_repeated = sum(keys.count(key) > 1 for key in keys)
    assert sum(fault.n_rows for fault in checker.faults()) == n_repeated


def test_lists_are_checked_element_by_element() -> None:
    vectors = pa.array(
        [[1.0, 2.0], [float("inf"), float("nan")], [None, 1.0], []], pa.list_(pa.float32())
    )
    rows = pa.table({"response_id": ["a", "b", "c", "d"], "embedding": vectors})
    faults = check_rows(TABLES["embeddings"], rows)
    assert [str(fault) for fault in faults] == [
        "embedding holds a null in 1 row (response_id=c)",
        "embedding holds a value that is not finite in 1 row (response_id=b)",
    ]


def test_foreign_keys_are_looked_up_in_the_parents_given(
    judgments: Callable[..., pa.Table],
) -> None:
    personas = pa.chunked_array([["concise+polite"], ["someone"]])
    parents = {"personas.persona_id": personas, "pairs.pair_id": pa.chunked_array([["q1", "q2"]])}
    (line,) = lines(judgments(), **parents)
    assert line.startswith("persona_id names no personas.persona_id in 4 rows")


def test_a_foreign_key_may_be_found_in_any_of_its_targets() -> None:
    table = TABLES["pool_responses"]
    rows = pa.Table.from_pylist(
        [
            {
                "response_id": name,
                "prompt_id": "p",
                "response_role": "base" if parent is None else "revision",
                "parent_response_id": parent,
                "request_key": "k",
                "response_model": "m",
            }
            for name, parent in [("a", None), ("b", "a"), ("c", "elsewhere"), ("d", "nowhere")]
        ],
        table.schema,
    )
    (fault,) = check_rows(table, rows, {"responses.response_id": pa.chunked_array([["elsewhere"]])})
    assert (fault.column, fault.examples) == ("parent_response_id", ("response_id=d",))


def test_lossless_conversions_keep_every_value() -> None:
    table = TABLES["embeddings"]
    flat = np.arange(6, dtype=np.float32)
    rows = pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), 2),
            "response_id": pa.array(["a", "b", "a"])
            .dictionary_encode()
            .cast(pa.dictionary(pa.int32(), pa.large_string())),
        }
    )
    stored = conform(table, rows)
    assert stored.schema.equals(table.schema, check_metadata=True)
    assert stored.to_pylist() == [
        {"response_id": "a", "embedding": [0.0, 1.0]},
        {"response_id": "b", "embedding": [2.0, 3.0]},
        {"response_id": "a", "embedding": [4.0, 5.0]},
    ]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"response_id": ["a"]}, "column embedding is missing"),
        ({"response_id": [1], "embedding": [[1.0]]}, "column response_id is int64"),
        ({"response_id": ["a"], "embedding": [[1.0]]}, "column embedding is list<item: double>"),
        ({"response_id": ["a"], "embedding": [[]], "x": [1]}, "column x is unknown"),
    ],
)
def test_wrong_columns_are_refused_with_the_right_ones(
    columns: dict[str, list[Any]], problem: str
) -> None:
    with pytest.raises(CheckFailed) as caught:
        conform(TABLES["embeddings"], pa.table(columns))
    assert problem in str(caught.value)
    assert "expected columns response_id, embedding" in str(caught.value)
