import numpy as np
import pytest

from pref_model.errors import BadArray, ModelError
from pref_model.types import (
    finite_matrix,
    make_preferences,
    preferences_from_matrix,
    preferences_to_matrix,
)


def test_matrix_survives_the_round_trip_through_columns():
    labels = np.array([[0.0, np.nan, 0.5], [1.0, 0.25, np.nan]])
    cells = preferences_from_matrix(labels)
    np.testing.assert_array_equal(preferences_to_matrix(cells, 2, 3), labels)


def test_repeated_cells_are_averaged_by_weight_and_weight_zero_is_unobserved():
    cells = make_preferences([0, 0, 0], [0, 0, 1], [1.0, 0.0, 1.0], [3.0, 1.0, 0.0])
    matrix = preferences_to_matrix(cells, 1, 2)
    assert matrix[0, 0] == 0.75
    assert np.isnan(matrix[0, 1])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (([0], [0], [1.5], None), "label 1.5"),
        (([0], [0], [np.nan], None), "leave unobserved"),
        (([0], [0, 1], [1.0], None), "'pair' has shape"),
        (([0.5], [0], [1.0], None), "'user' is float64"),
        (([7], [0], [1.0], None), "expected 0 to 1"),
        (([-1], [0], [1.0], None), "-1"),
        (([0], [0], [1.0], [-1.0]), "weight"),
    ],
)
def test_bad_columns_are_told_in_one_line(columns, words):
    with pytest.raises(BadArray, match=words) as caught:
        make_preferences(*columns, n_users=2, n_pairs=2)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ModelError)
    assert caught.value.exit_code == 2


def test_no_preferences_at_all_are_a_valid_empty_table():
    assert make_preferences([], [], []).user.dtype == np.int64


def test_nan_embedding_names_its_first_row():
    values = np.zeros((3, 2))
    values[1, 1] = np.nan
    with pytest.raises(BadArray, match="first: row 1"):
        finite_matrix(values, "embeddings")
