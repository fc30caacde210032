"""The benchmark on a small world: what is computed, what is found, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pref_model.protocol import Matrix
from tasks._stages import benchmark
from tasks._stages.benchmark import STAGE, cells_of, missing_cells, run_arm
from tasks._stages.benchmark_matrix import FOLDS, read_matrix, split
from tasks._stages.configs import stage_configs
from tasks._stages.stage import Inputs
from tasks.benchmark_plan import plan_benchmark
from tasks.config import BenchmarkConfig
from tasks.errors import InputRejected
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.worlds import N_PAIRS, N_USERS, put_world

SMALL: dict[str, Any] = {
    "answers": [1, 5, 200],
    "labels": [500, 10**6],
    "fit": {"d": 2, "head_l2": [1.0], "steps": 5},
    "evaluate": {"draws": 1000},
}


@pytest.fixture
def world(bench: Bench) -> Bench:
    put_world(bench)
    return bench


def told(world: Bench, **changes: Any) -> BenchmarkConfig:
    settings = {**SMALL, "seeds": 1, "only": ["classic"], **changes}
    return BenchmarkConfig.model_validate({"warehouse": str(world.warehouse.root), **settings})


def inputs_of(world: Bench, config: BenchmarkConfig) -> Inputs:
    return world.inputs(STAGE, **stage_configs(config)["benchmark"])


def run(world: Bench, config: BenchmarkConfig) -> dict[str, int]:
    """What a flow does: every arm, then the commit; cells computed by arm."""
    inputs = inputs_of(world, config)
    done = {arm: run_arm(inputs, config, arm) for arm in inputs.config["arms"]}
    world.run(STAGE, **inputs.config)
    benchmark.clear_staged(inputs)
    return done


def test_one_more_method_and_one_more_seed_compute_only_that(world: Bench) -> None:
    assert run(world, told(world)) == {"pref": 1, "classic": 1}
    first = {(r["arm"], r["persona_id"], r["n_answers"]): r for r in world.rows("benchmark_cells")}
    assert run(world, told(world, only=["classic", "per_user"])) == {
        "pref": 0, "classic": 0, "per_user": 1,
    }  # fmt: skip
    assert run(world, told(world, seeds=2)) == {"pref": 1, "classic": 1}
    rows = world.rows("benchmark_cells")
    assert {row["seed"] for row in rows} == {0, 1}
    for row in rows:
        if row["seed"] == 0:
            assert row == first[row["arm"], row["persona_id"], row["n_answers"]]


def test_a_killed_benchmark_goes_on_from_its_staged_cells(world: Bench) -> None:
    config = told(world, seeds=2)
    inputs = inputs_of(world, config)
    assert run_arm(inputs, config, "pref") == 2
    assert missing_cells(inputs, "pref") == []
    assert len(missing_cells(inputs, "classic")) == 2
    assert run(world, config) == {"pref": 0, "classic": 2}
    assert not list((world.warehouse.root / ".staging" / "benchmark_cells").glob("*"))
    assert {one["n_missing"] for one in plan_benchmark(config)["arms"]} == {0}


def test_a_cell_is_named_by_what_shapes_it(world: Bench) -> None:
    def keys(config: BenchmarkConfig, arm: str = "pref") -> list[str]:
        return [one.key for one in cells_of(inputs_of(world, config), arm)]

    base = told(world)
    assert keys(told(world, seeds=2))[:1] == keys(base)
    assert keys(told(world, only=["rewards"], processes=4)) == keys(base)
    assert keys(told(world, answers=[1, 5])) != keys(base)
    other = {**SMALL["fit"], "steps": 6}
    assert keys(told(world, fit=other)) != keys(base)
    world.put("preferences", world.rows("preferences")[1:])
    assert keys(base) != keys(told(world, only=None), "classic")


def test_processes_change_no_figure(world: Bench) -> None:
    config = told(world, only=["per_user"], seeds=2)
    run(world, config)
    rows = world.rows("benchmark_cells")
    again = inputs_of(world, config)
    for cell in cells_of(again, "per_user"):
        found = benchmark._run_cell((again, config, cell)).to_pylist()
        assert found == [
            {**row, "auc": pytest.approx(row["auc"], nan_ok=True)}
            for row in rows
            if row["cell_sha256"] == cell.key
        ]


def test_means_are_over_users_and_differences_are_paired(world: Bench) -> None:
    run(world, told(world, seeds=2))
    means = {(row["arm"], row["n_answers"]): row for row in world.rows("benchmark_means")}
    # More answers than pairs to answer about, and more labels than there are, are left out.
    assert set(means) == {(arm, n) for arm in ("pref", "classic") for n in (1, 5)} | {("pref", 60)}
    assert means["pref", 5]["gap_mean"] == 0.0
    assert means["classic", 5]["gap_mean"] == pytest.approx(
        means["classic", 5]["auc_mean"] - means["pref", 5]["auc_mean"]
    )
    assert means["classic", 5]["n_seeds"] == 2
    assert means["classic", 5]["n_users"] == 2 * N_USERS // FOLDS


def test_a_seed_whose_test_answers_all_agree_is_no_number_and_no_fault(world: Bench) -> None:
    config = told(world, seeds=2)
    matrix = read_matrix(inputs_of(world, config))
    one = split(matrix, 0)
    hidden = {(matrix.users[user], matrix.pairs[pair]) for user in one.fresh for pair in one.new}
    rows = world.rows("preferences")
    world.put(
        "preferences",
        [
            {**row, "preference_prob": 1.0, "is_tie": False}
            if (row["persona_id"], row["pair_id"]) in hidden
            else row
            for row in rows
        ],
    )
    run(world, config)
    for row in world.rows("benchmark_means"):
        assert row["n_seeds"] == 1
        assert row["seed_spread"] is None
        assert row["auc_mean"] is not None


def test_labels_that_are_all_there_are_no_cell_of_their_own(world: Bench) -> None:
    found = {one["arm"]: one for one in plan_benchmark(told(world, only=["labels"]))["arms"]}
    assert found["500 labels"]["n_missing"] == 1
    assert found["1,000,000 labels"]["n_missing"] == found["1,000,000 labels"]["n_held"] == 0


def test_five_seeds_make_every_user_new_once_and_no_prompt_is_on_both_sides(world: Bench) -> None:
    matrix: Matrix = read_matrix(inputs_of(world, told(world)))
    shared = matrix._replace(prompt_of_pair=np.arange(N_PAIRS) // 2)
    splits = [split(shared, seed) for seed in range(FOLDS)]
    fresh = np.concatenate([one.fresh for one in splits])
    assert sorted(fresh) == list(range(N_USERS))
    assert not np.array_equal(split(shared, FOLDS).fresh, splits[0].fresh)
    for one in splits:
        assert not set(one.known) & set(one.fresh)
        prompts = [set(shared.prompt_of_pair[part]) for part in (one.seen, one.new)]
        assert not prompts[0] & prompts[1]
        assert len(one.new) == N_PAIRS // 5


def test_what_cannot_be_measured_is_one_line(world: Bench, tmp_path: Any) -> None:
    with pytest.raises(InputRejected, match="only: no arm or group 'vae'; expected groups methods"):
        stage_configs(told(world, only=["vae"]))
    empty = BenchmarkConfig(warehouse=str(tmp_path / "empty"))
    with pytest.raises(InputRejected, match="has no preferences, pairs, embeddings"):
        plan_benchmark(empty)
    world.put("backbones", [], ("preferences",))
    world.put("embeddings", world.rows("embeddings"), ("backbones",))
    with pytest.raises(InputRejected, match="that each seed would hold out"):
        stage_configs(told(world))
