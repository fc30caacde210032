from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from prompts.verdict import Unparsed, Verdict
from tasks._convert import (
    ORDERS,
    differences_of,
    label_matrix,
    presented,
    read_verdict,
    rows_of,
    vector_column,
    vectors,
)
from tasks._llm.replies import SoftVerdict


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("winner", ["A", "B"])
def test_a_verdict_for_the_text_of_a_reads_as_a_in_both_orders(order: str, winner: str) -> None:
    shown = presented("text of A", "text of B", order)  # type: ignore[arg-type]
    option = next(number for number in "12" if shown[f"response_{number}"].endswith(winner))
    reading = read_verdict(Verdict(option, True), order)  # type: ignore[arg-type]
    assert reading.prefers_a_prob == (1.0 if winner == "A" else 0.0)


def test_the_same_option_in_the_other_order_is_the_other_response() -> None:
    ab, ba = (read_verdict(Verdict("1", True), order) for order in ORDERS)
    assert ab.prefers_a_prob == 1.0 - float(ba.prefers_a_prob or 0.0)
    assert ab.verdict == ba.verdict == "first"


@pytest.mark.parametrize("order", ORDERS)
def test_an_unparsed_reply_prefers_nobody(order: str) -> None:
    reading = read_verdict(Unparsed("off_menu"), order)  # type: ignore[arg-type]
    assert reading == (None, False, "off_menu", None, None, None, None)


def test_a_soft_verdict_is_a_probability_of_a_in_either_order() -> None:
    soft = SoftVerdict(0.8, 0.8, 0.8, "logprobs")
    ab, ba = (read_verdict(Verdict("1", True), order, soft) for order in ORDERS)
    assert ab.prefers_a_prob == pytest.approx(0.8)
    assert ba.prefers_a_prob == pytest.approx(0.2)
    assert ab.prob_origin == ba.prob_origin == "logprobs"
    assert (ab.a_low_prob, ab.a_high_prob) == (None, None)


def test_a_missing_rival_leaves_a_range_and_not_a_certainty() -> None:
    soft = SoftVerdict(1.0, 0.7, 1.0, "logprobs_bound")
    ab, ba = (read_verdict(Verdict("1", True), order, soft) for order in ORDERS)
    assert ab.prefers_a_prob == pytest.approx(0.85)
    assert (ab.a_low_prob, ab.a_high_prob) == (0.7, 1.0)
    assert ba.prefers_a_prob == pytest.approx(0.15)
    assert (ba.a_low_prob, ba.a_high_prob) == pytest.approx((0.0, 0.3))


def test_labels_are_placed_by_id_and_unknown_ids_are_left_out() -> None:
    rows = pa.table(
        {
            "persona_id": ["u2", "u1", "u1", "stranger"],
            "pair_id": ["p1", "p2", "p1", "p1"],
            "preference_prob": [1.0, 0.5, None, 0.0],
            "n_valid": [2, 2, 0, 2],
        }
    )
    matrix = label_matrix(rows, ["u1", "u2"], ["p1", "p2"], min_valid=2)
    np.testing.assert_array_equal(matrix, [[np.nan, 0.5], [1.0, np.nan]])


def test_a_cell_with_one_valid_order_is_no_label_when_both_are_wanted() -> None:
    rows = pa.table(
        {"persona_id": ["u"], "pair_id": ["p"], "preference_prob": [1.0], "n_valid": [1]}
    )
    assert np.isnan(label_matrix(rows, ["u"], ["p"], min_valid=2)).all()
    assert label_matrix(rows, ["u"], ["p"], min_valid=1) == 1.0


def test_vectors_come_back_as_they_were_stored() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    column = pa.chunked_array([vector_column(matrix, pa.float32())])
    np.testing.assert_array_equal(vectors(column), matrix)
    np.testing.assert_array_equal(vectors(column.slice(1, 2)), matrix[1:3])


def test_rows_of_an_id_that_is_not_there_is_minus_one() -> None:
    assert rows_of(pa.chunked_array([["b", "zz", "a"]]), ["a", "b"]).tolist() == [1, -1, 0]


@pytest.mark.parametrize("cuts", [(), (4,), (1, 5, 8)])
def test_differences_are_those_of_the_wide_vectors_bit_for_bit(cuts: tuple[int, ...]) -> None:
    vectors_32 = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    whole = vector_column(vectors_32, pa.float32())
    parts = np.split(np.arange(9), cuts)
    column = pa.chunked_array([whole.slice(part[0], len(part)) for part in parts])
    first, second = [8, 0, 3, 3], [1, 0, 7, 2]
    wide = vectors(column)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, vectors_32)
    found = differences_of(column, first, second)
    np.testing.assert_array_equal(found, wide[first] - wide[second])
