from __future__ import annotations

import pytest

from tasks._stages import figures
from tasks._stages.rank import STAGE
from tests.tasks.stages import worlds
from tests.tasks.stages.conftest import Bench

CONFIG = {"d": worlds.D, "ties": "half", "seed": 0}


def test_spectrum_and_likelihood_both_find_the_number_of_rewards_of_a_known_world(
    bench: Bench,
) -> None:
    worlds.put_texts(bench)
    worlds.put_preferences(bench, 4 * worlds.true_margins(), seed=3)
    bench.run(STAGE, **CONFIG)
    rows = bench.rows("rank_curve")
    chosen = [row["n_base_rewards"] for row in rows if row["is_likelihood_choice"]]
    assert chosen == [worlds.D]
    assert [row["n_base_rewards"] for row in rows if row["is_used"]] == [worlds.D]
    (above,) = [row["n_base_rewards"] for row in rows if row["is_spectrum_choice"]]
    assert above == sum(row["singular_value"] > row["noise_edge"] for row in rows)
    assert above <= worlds.D
    assert all(row["log_likelihood_low"] < row["log_likelihood_high"] for row in rows[:4])


def test_the_number_in_use_is_always_tried_and_its_answers_draw_a_figure(bench: Bench) -> None:
    worlds.put_texts(bench)
    worlds.put_preferences(bench, worlds.true_margins(), seed=3)
    bench.run(STAGE, **{**CONFIG, "d": 5})
    rows = bench.rows("rank_curve")
    (used,) = [row for row in rows if row["is_used"]]
    assert used["log_likelihood_mean"] is not None
    assert figures.rank(rows) == figures.rank(rows)


@pytest.mark.parametrize("ties", ["half", "drop"])
def test_more_base_rewards_than_pairs_are_not_tried(bench: Bench, ties: str) -> None:
    worlds.put_texts(bench)
    worlds.put_preferences(bench, worlds.true_margins(), seed=3)
    bench.run(STAGE, **{**CONFIG, "d": 100, "ties": ties})
    rows = bench.rows("rank_curve")
    assert not any(row["is_used"] for row in rows)
    assert len(rows) == 12
