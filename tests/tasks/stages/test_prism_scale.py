"""The benchmark of the tenfold matrix makes what the stages take."""

from __future__ import annotations

from pathlib import Path

from benchmarks.prism_scale import PER_PAIR, make, use


def test_the_made_matrix_assembles_and_splits(tmp_path: Path) -> None:
    n_personas, n_pairs = 60, 30
    made = make(tmp_path / "data", n_personas, n_pairs)
    assert made["n_judgments"] == 2 * PER_PAIR * n_pairs
    found = use(tmp_path / "data")
    assert found["n_preferences"] == PER_PAIR * n_pairs
    assert sum(one["n"] for one in found["cells"]) <= PER_PAIR * n_pairs
    assert {one["part"] for one in found["cells"]} == {"train", "validation", "calibration", "test"}
