"""Arrays that travel between the routines of this room; it only checks them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pref_model.errors import BadArray

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Preferences(NamedTuple):
    """Observed cells of the preference matrix A (users by pairs), one entry a cell.

    Attributes:
        user: (N,) int64, row of the user.
        pair: (N,) int64, row of the pair.
        label: (N,) float64 in [0, 1], how far the first response was preferred; 1/2 is a tie.
        weight: (N,) float64 >= 0, how many full observations the cell counts for.
    """

    user: Ints
    pair: Ints
    label: Floats
    weight: Floats


class Interval(NamedTuple):
    """A mean with its confidence interval over n independent units (users)."""

    mean: float
    low: float
    high: float
    n: int


def make_preferences(
    user: npt.ArrayLike,
    pair: npt.ArrayLike,
    label: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    n_users: int | None = None,
    n_pairs: int | None = None,
) -> Preferences:
    """Check four columns and return them as `Preferences`.

    Args:
        user: (N,) integers, 0 <= user < n_users.
        pair: (N,) integers, 0 <= pair < n_pairs.
        label: (N,) in [0, 1], probability that the first response is preferred.
        weight: (N,) >= 0; every cell counts once when left out.
        n_users: Number of users U; unchecked when None.
        n_pairs: Number of pairs M; unchecked when None.

    Raises:
        BadArray: A column has the wrong length, type or range.
    """
    user_array = _index(user, "user", n_users)
    pair_array = _index(pair, "pair", n_pairs)
    label_array = np.asarray(label, dtype=np.float64)
    n_cells = user_array.size
    weight_array = np.ones(n_cells) if weight is None else np.asarray(weight, dtype=np.float64)
    for name, column in (("pair", pair_array), ("label", label_array), ("weight", weight_array)):
        if column.shape != (n_cells,):
            raise BadArray(
                f"preferences: column '{name}' has shape {column.shape}, expected ({n_cells},) "
                "like 'user'; pass one value a cell"
            )
    if not np.all((label_array >= 0.0) & (label_array <= 1.0)):
        bad = label_array[~((label_array >= 0.0) & (label_array <= 1.0))][0]
        raise BadArray(
            f"preferences: found label {bad}, expected a probability in [0, 1]; "
            "leave unobserved cells out"
        )
    if not np.all(np.isfinite(weight_array) & (weight_array >= 0.0)):
        raise BadArray("preferences: found a negative or non-finite weight, expected weight >= 0")
    return Preferences(user_array, pair_array, label_array, weight_array)


def preferences_from_matrix(labels: npt.ArrayLike) -> Preferences:
    """Turn a (U, M) matrix with nan where nobody asked into `Preferences` of weight one."""
    matrix = np.asarray(labels, dtype=np.float64)
    if matrix.ndim != 2:
        raise BadArray(f"labels: found {matrix.ndim} dimensions, expected a (users, pairs) matrix")
    user, pair = np.nonzero(~np.isnan(matrix))
    return make_preferences(
        user, pair, matrix[user, pair], n_users=matrix.shape[0], n_pairs=matrix.shape[1]
    )


def preferences_to_matrix(preferences: Preferences, n_users: int, n_pairs: int) -> Floats:
    """Return the (U, M) matrix of weighted mean labels, nan where nobody asked.

    A cell observed several times becomes its weighted mean; a cell of total weight 0 is nan.
    """
    cell = preferences.user * n_pairs + preferences.pair
    weight = np.bincount(cell, weights=preferences.weight, minlength=n_users * n_pairs)
    total = np.bincount(
        cell, weights=preferences.weight * preferences.label, minlength=n_users * n_pairs
    )
    matrix = np.full(n_users * n_pairs, np.nan)
    np.divide(total, weight, out=matrix, where=weight > 0.0)
    return matrix.reshape(n_users, n_pairs)


def finite_matrix(values: npt.ArrayLike, name: str, columns: int | None = None) -> Floats:
    """Return `values` as a finite float64 matrix, or say in one line what is wrong with it."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or (columns is not None and matrix.shape[1] != columns):
        wanted = "(rows, columns)" if columns is None else f"(rows, {columns})"
        raise BadArray(f"{name}: found shape {matrix.shape}, expected {wanted}")
    if not np.all(np.isfinite(matrix)):
        rows = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        raise BadArray(
            f"{name}: found nan or infinity in {rows.size} rows (first: row {rows[0]}), "
            "expected finite numbers; encode or drop those rows"
        )
    return matrix


def _index(values: npt.ArrayLike, name: str, bound: int | None) -> Ints:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise BadArray(
            f"preferences: column '{name}' is {array.dtype} of shape {array.shape}, "
            "expected a flat column of row numbers"
        )
    result = array.astype(np.int64)
    if result.size and (result.min() < 0 or (bound is not None and result.max() >= bound)):
        raise BadArray(
            f"preferences: column '{name}' runs from {result.min()} to {result.max()}, "
            f"expected 0 to {'M - 1' if bound is None else bound - 1}"
        )
    return result
