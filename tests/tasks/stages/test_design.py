"""Designs are balanced, connected, stable, and honest about what they can teach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._stages import design
from tasks._stages.balanced import balanced_design, components
from tasks._stages.design_checks import check_design, check_tables
from tasks._stages.priorities import priorities
from tests.tasks.stages.conftest import Bench


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n_personas = draw(st.integers(1, 25))
    per_pair = draw(st.integers(1, n_personas))
    return n_personas, draw(st.integers(1, 25)), per_pair, draw(st.integers(0, 10**6))


@settings(max_examples=150, deadline=None)
@given(sizes())
def test_loads_are_even_and_the_graph_is_connected_wherever_arithmetic_allows(
    size: tuple[int, int, int, int],
) -> None:
    n_personas, n_pairs, per_pair, seed = size
    cells = balanced_design(seed, names("u", n_personas), names("p", n_pairs), per_pair)
    assert (cells.sum(axis=0) == per_pair).all()
    loads = cells.sum(axis=1)
    assert loads.max() - loads.min() <= 1
    if n_pairs * per_pair >= n_personas + n_pairs - 1:
        assert components(cells)[0] == 1


@settings(max_examples=50, deadline=None)
@given(sizes())
def test_the_order_of_ids_changes_nothing(size: tuple[int, int, int, int]) -> None:
    n_personas, n_pairs, per_pair, seed = size
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n_personas), rng.permutation(n_pairs)
    users, pairs = names("u", n_personas), names("p", n_pairs)
    cells = balanced_design(seed, users, pairs, per_pair)
    shuffled = balanced_design(
        seed, [users[one] for one in rows], [pairs[one] for one in columns], per_pair
    )
    assert (shuffled == cells[np.ix_(rows, columns)]).all()


def test_prism_s_size_is_even_connected_and_another_for_another_seed() -> None:
    users, pairs = names("user", 1500), names("c", 2262)
    cells = balanced_design(0, users, pairs, 50)
    assert set(cells.sum(axis=1)) == {75, 76}
    assert components(cells)[0] == 1
    other = balanced_design(1, users, pairs, 50)
    # Two random designs share one cell in thirty: 113,100 · 50 / 1,500, give or take 61.
    assert abs((cells & other).sum() - 3770) < 400
    more = balanced_design(0, users, [*pairs, "c9999"], 50)
    assert (more[:, :-1] & ~cells).sum() < 0.005 * cells.sum()


def test_without_balance_a_new_pair_or_persona_touches_no_other_cell() -> None:
    users, pairs = names("u", 60), names("p", 80)
    cells = balanced_design(0, users, pairs, 7, is_balanced=False)
    more = balanced_design(0, users, [*pairs, "new"], 7, is_balanced=False)
    assert (more[:, :-1] == cells).all()
    joined = balanced_design(0, [*users, "new"], pairs, 7, is_balanced=False)
    # A new persona only takes places.
    assert not (joined[:-1] & ~cells).any()


def test_every_persona_is_as_likely_as_another_in_every_pair() -> None:
    drawn = sum(
        balanced_design(seed, names("u", 6), names("p", 4), 3).astype(int) for seed in range(600)
    )
    # 300 expected, standard deviation 12.
    assert np.abs(drawn - 300).max() < 60


def test_two_islands_are_joined_by_a_swap_that_keeps_all_loads() -> None:
    from tasks._stages.balanced import _connect

    cells = np.zeros((6, 6), bool)
    cells[:3, :3] = cells[3:, 3:] = True
    before = cells.copy()
    _connect(cells, priorities(0, "x", names("u", 6), names("p", 6)))
    assert components(before)[0] == 2
    assert components(cells)[0] == 1
    assert (cells.sum(axis=0) == before.sum(axis=0)).all()
    assert (cells.sum(axis=1) == before.sum(axis=1)).all()
    assert (cells != before).sum() == 4


def test_priorities_are_uniform_and_depend_on_both_ids() -> None:
    keys = priorities(0, "x", names("u", 200), names("p", 200)).astype(float) / 2.0**64
    assert len(np.unique(keys)) == keys.size
    assert abs(keys.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(keys)[np.triu_indices(200, 1)].mean()) < 0.01
    assert (priorities(1, "x", ["a"], ["b"]) != priorities(0, "x", ["a"], ["b"])).all()
    assert (priorities(0, "x", ["a"], ["b"]) != priorities(0, "x", ["b"], ["a"])).all()


def jacobian_rank(cells: np.ndarray, d: int, seed: int = 0) -> int:
    """Rank of the derivative of the judged logits at a random point: the exact local answer."""
    rng = np.random.default_rng(seed)
    n_personas, n_pairs = cells.shape
    weights, features = rng.normal(size=(n_personas, d)), rng.normal(size=(n_pairs, d))
    rows = []
    for persona, pair in zip(*np.nonzero(cells), strict=True):
        row = np.zeros((n_personas + n_pairs, d))
        row[persona], row[n_personas + pair] = features[pair], weights[persona]
        rows.append(row.ravel())
    return int(np.linalg.matrix_rank(np.array(rows))) if rows else 0


@settings(max_examples=60, deadline=None)
@given(sizes(), st.integers(1, 3))
def test_where_counting_says_no_the_derivative_says_no(
    size: tuple[int, int, int, int], d: int
) -> None:
    n_personas, n_pairs, per_pair, seed = size
    if min(n_personas, n_pairs) < d:
        return
    cells = balanced_design(seed, names("u", n_personas), names("p", n_pairs), per_pair)
    found = check_design(cells, d)
    full = d * (n_personas + n_pairs - d)
    assert found.n_parameters == full
    if not found.can_identify:
        assert jacobian_rank(cells, d) < full
    elif d == 1:
        assert jacobian_rank(cells, d) == full


@pytest.mark.parametrize("d", [2, 3])
def test_random_designs_with_cells_to_spare_are_identified(d: int) -> None:
    for seed in range(5):
        cells = balanced_design(seed, names("u", 20), names("p", 24), 3 * d)
        assert check_design(cells, d).can_identify
        assert jacobian_rank(cells, d) == d * (44 - d)


def test_the_check_counts_the_training_part_apart() -> None:
    cells = np.ones((4, 5), bool)
    seen_personas = np.array([True, True, True, False])
    seen_pairs = np.array([True, True, True, True, False])
    found = check_design(cells, 2, seen_personas, seen_pairs)
    assert (found.n_cells, found.coverage, found.n_train_cells) == (20, 1.0, 12)
    assert (found.loads, found.crowds) == ({5: 4}, {4: 5})
    assert (found.n_short_personas, found.n_short_pairs) == (0, 0)
    assert found.can_identify
    assert not check_design(cells, 4, seen_personas, seen_pairs).can_identify


PERSONAS = [
    {
        "persona_id": f"u{number}",
        "persona_kind": "prism",
        "profile_text": "someone",
    }
    for number in range(7)
]
PAIRS = [
    {
        "pair_id": f"c{number}",
        "prompt_id": f"c{number}",
        "response_a_id": f"c{number}/base",
        "response_b_id": f"c{number}/revision",
    }
    for number in range(9)
]


@pytest.mark.parametrize(("per_pair", "n_cells"), [(3, 27), (None, 63), (50, 63)])
def test_the_stage_writes_the_design_in_key_order(
    bench: Bench, per_pair: int | None, n_cells: int
) -> None:
    bench.put("personas", PERSONAS)
    bench.put("pairs", PAIRS)
    inputs = bench.inputs(design.STAGE, seed=0, personas_per_pair=per_pair, is_balanced=True)
    rows = design.build(inputs)["design"].rows
    assert rows.num_rows == n_cells  # type: ignore[union-attr]
    found = rows.to_pylist()  # type: ignore[union-attr]
    assert found == sorted(found, key=lambda row: (row["persona_id"], row["pair_id"]))
    sides = [("persona", one["persona_id"]) for one in PERSONAS]
    sides += [("pair", one["pair_id"]) for one in PAIRS]
    bench.put(
        "splits",
        [{"entity_kind": kind, "entity_id": one, "side": "seen"} for kind, one in sides],
    )
    splits = bench.warehouse.read("splits", bench.versions["splits"])
    checked = check_tables(rows, splits, 2)
    assert (checked.n_cells, checked.n_train_cells) == (n_cells, n_cells)
