"""From a team's files to pair accuracy: what is kept, what is held out, what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pref_model.model import FitConfig
from pref_model.types import make_preferences
from tasks._runs import RunIds, inputs_of, plan_stage, run_stage
from tasks._stages.configs import stage_configs, stage_places
from tasks._stages.own import cells_of, orient, tables_of
from tasks._stages.own_adapt import answer_order
from tasks._stages.own_files import read_own
from tasks._stages.own_fit import STAGE as FIT_STAGE
from tasks._stages.own_fit import shared_share, started
from tasks._stages.own_report import STAGE as REPORT_STAGE
from tasks._stages.own_split import split_own
from tasks._stages.own_world import OwnWorld, load_own_world
from tasks.config import OwnConfig
from tasks.errors import InputRejected
from tasks.planning import OWN_STAGES
from tests.tasks.own.data import own_rows, write_own
from warehouse.audit import audit
from warehouse.store import open_warehouse

SHARES = (0.25, 0.25, 0.5)


def test_a_pair_is_the_same_whichever_response_comes_first() -> None:
    assert orient("x", "y") == orient("y", "x")
    firsts = [orient(f"win{n}", f"lose{n}").response_a_id.startswith("win") for n in range(400)]
    assert 150 < sum(firsts) < 250


def test_answers_follow_the_orientation_of_their_pair(tmp_path: Path) -> None:
    rows = own_rows(6)
    data = read_own(str(write_own(tmp_path, rows)))
    tables = tables_of(data)
    pairs = {row["pair_id"]: row for row in tables["pairs"].to_pylist()}
    for row in tables["answers"].to_pylist():
        _, told = data.answers[row["answer_row"] - 1]
        pair = pairs[row["pair_id"]]
        winner = pair["response_a_id"] if row["answer_prob"] == 1.0 else pair["response_b_id"]
        assert winner == told.response_a_id
        assert row["is_swapped"] == (pair["response_a_id"] != told.response_a_id)


def test_pairs_of_equal_texts_are_left_out(tmp_path: Path) -> None:
    rows = own_rows(2)
    rows["responses"][1]["response_text"] = rows["responses"][0]["response_text"]
    tables = tables_of(read_own(str(write_own(tmp_path, rows))))
    assert (tables["pairs"].num_rows, tables["answers"].num_rows) == (7, 7)


def test_repeated_answers_are_averaged_by_weight_whichever_way_round(tmp_path: Path) -> None:
    rows = own_rows(2)
    first = rows["preferences"][0]
    again = {
        **first,
        "response_a_id": first["response_b_id"],
        "response_b_id": first["response_a_id"],
        "preference": 1.0,
        "weight": 3.0,
        "time": None,
    }
    rows["preferences"].append(again)
    tables = tables_of(read_own(str(write_own(tmp_path, rows))))
    cells = cells_of(tables["answers"]).to_pylist()
    assert len(cells) == 8
    cell = next(one for one in cells if one["n_answers"] == 2)
    assert sorted((cell["preference_prob"], 1 - cell["preference_prob"])) == [0.25, 0.75]
    assert cell["weight"] == 4.0
    assert cell["answered_at"] is None


def cells_and_prompts(
    n_users: int, n_prompts: int, *, is_shared: bool
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    cells = [
        (f"u{user}", f"pair{prompt}" if is_shared else f"pair{user}-{prompt}")
        for user in range(n_users)
        for prompt in range(n_prompts)
    ]
    return cells, {pair: f"prompt of {pair}" for _, pair in cells}


@pytest.mark.parametrize("is_shared", [False, True])
def test_no_prompt_is_on_both_sides_and_held_out_users_have_some_on_either(
    is_shared: bool,
) -> None:
    cells, prompt_of = cells_and_prompts(20, 4, is_shared=is_shared)
    # Two pairs a prompt go together.
    cells += [(user, f"{pair}+") for user, pair in cells]
    prompt_of |= {f"{pair}+": prompt for pair, prompt in prompt_of.items()}
    for seed in range(5):
        found = split_own(seed, cells, prompt_of, *SHARES)
        for pair in prompt_of:
            assert (pair in found.new_pairs) == (f"{pair.rstrip('+')}+" in found.new_pairs)
        assert len(found.new_users) == 5
        for user in found.new_users:
            mine = {pair in found.new_pairs for one, pair in cells if one == user}
            assert mine == {True, False}
        assert found.facts["held-out users without a test pair"] == 0
        assert found.facts["prompts on both sides"] == 0


def test_a_user_s_side_does_not_depend_on_the_order_of_rows() -> None:
    cells, prompt_of = cells_and_prompts(9, 3, is_shared=False)
    assert split_own(3, cells, prompt_of, *SHARES) == split_own(
        3, cells[::-1], dict(reversed(prompt_of.items())), *SHARES
    )


def test_users_with_one_prompt_are_trained_on_before_they_are_held_out() -> None:
    cells, prompt_of = cells_and_prompts(10, 1, is_shared=False)
    more, more_prompts = cells_and_prompts(4, 3, is_shared=False)
    cells += [(f"rich {user}", f"rich {pair}") for user, pair in more]
    prompt_of |= {f"rich {pair}": f"rich {prompt}" for pair, prompt in more_prompts.items()}
    found = split_own(0, cells, prompt_of, *SHARES)
    assert all(user.startswith("rich") for user in found.new_users)


def test_data_about_one_prompt_are_split_by_pair_and_say_so() -> None:
    cells, prompt_of = cells_and_prompts(8, 4, is_shared=True)
    found = split_own(0, cells, dict.fromkeys(prompt_of, "the same"), *SHARES)
    assert found.facts["prompts on both sides"] == 1
    assert 0 < len(found.new_pairs) < 4


@pytest.mark.parametrize(("n_users", "n_prompts"), [(1, 5), (5, 1)])
def test_what_cannot_be_split_is_refused(n_users: int, n_prompts: int) -> None:
    cells, prompt_of = cells_and_prompts(n_users, n_prompts, is_shared=True)
    with pytest.raises(InputRejected, match="split"):
        split_own(0, cells, prompt_of, *SHARES)


def test_without_shared_pairs_the_svd_gives_way_to_features() -> None:
    alone = make_preferences([0, 0, 1, 1], [0, 1, 2, 3], [1, 0, 1, 0])
    dense = make_preferences([0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0])
    assert (shared_share(alone), shared_share(dense)) == (0.0, 1.0)
    assert started(FitConfig(start="svd"), alone).start == "features"
    assert started(FitConfig(start="svd"), dense).start == "svd"
    assert started(FitConfig(start="random"), alone).start == "random"


def world_of(times: list[float]) -> OwnWorld:
    n = len(times)
    return OwnWorld(
        personas=["seen", "new"],
        pairs=[f"pair{number}" for number in range(n)],
        response_a_ids=[],
        response_b_ids=[],
        cells=make_preferences([1] * n, list(range(n)), [1.0] * n),
        answered_at_s=np.array(times),
        differences=np.zeros((n, 1)),
        n_seen_users=1,
        n_seen_pairs=n,
    )


def test_answers_are_learnt_from_by_time_where_asked_for_and_else_by_chance() -> None:
    world = world_of([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    assert answer_order(world, "time", 0)[1].tolist() == [1, 2, 0, 3, 4, 5]
    orders = {tuple(answer_order(world, "random", seed)[1]) for seed in range(9)}
    assert len(orders) > 5
    with pytest.raises(InputRejected, match="1 of 2 answers of held-out users have no time"):
        answer_order(world_of([1.0, np.nan]), "time", 0)


def chain(folder: Path, warehouse: Path, **settings: Any) -> dict[str, str]:
    """Every stage of the flow, without Prefect."""
    raw = {
        "warehouse": str(warehouse),
        "ingest": {"data": str(folder)},
        "fit": FitConfig(d=2, head_l2=(1.0,), steps=60),
        "adapt": {"answers": [0, 1, 2]},
        "evaluate": {"draws": 1000},
        **settings,
    }
    config = OwnConfig.model_validate(raw)
    configs, places = stage_configs(config), stage_places(config)
    datasets: dict[str, str] = {}
    for stage in (*OWN_STAGES, REPORT_STAGE):
        plan = plan_stage(stage, str(warehouse), configs[stage.name], datasets, places)
        for ref in run_stage(plan, stage, RunIds("test", None)):  # type: ignore[arg-type]
            datasets[ref["dataset"]] = ref["version"]
    return datasets


@pytest.fixture(scope="module", params=[False, True], ids=["own pairs", "shared pairs"])
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], bool]:
    home = tmp_path_factory.mktemp("own")
    folder = write_own(home / "data", own_rows(18, 6, is_shared=request.param))
    return home, chain(folder, home / "warehouse"), request.param


def test_the_chain_learns_that_some_like_it_long_and_others_short(
    finished: tuple[Path, dict[str, str], bool],
) -> None:
    home, datasets, _ = finished
    rows = (
        open_warehouse(home / "warehouse")
        .read("accuracy_means", datasets["accuracy_means"])
        .to_pylist()
    )
    found = {(row["method"], row["n_answers"]): row for row in rows}
    assert set(found) == {(m, n) for m in ("pref", "classic", "longer") for n in (0, 1, 2)}
    # Two thirds like it long; nothing that treats all alike gets further.
    assert found["pref", 2]["accuracy_mean"] > found["longer", 2]["accuracy_mean"]
    assert found["pref", 2]["accuracy_mean"] >= found["pref", 0]["accuracy_mean"]
    for row in rows:
        low, high = row["accuracy_low"], row["accuracy_high"]
        assert low <= row["accuracy_mean"] <= high
        assert row["lead_mean"] == pytest.approx(
            row["accuracy_mean"] - found["longer", row["n_answers"]]["accuracy_mean"]
        )


def test_the_model_names_its_start_and_the_report_tells_it(
    finished: tuple[Path, dict[str, str], bool],
) -> None:
    home, datasets, is_shared = finished
    warehouse = open_warehouse(home / "warehouse")
    page = warehouse.file_path("report", datasets["report"], "report.html").read_text("utf-8")
    assert ("started from the features" in page) is not is_shared
    assert ("started from “svd”" in page) is is_shared
    assert "No prompt is on both sides" in page


def test_the_stages_datasets_pass_the_audit(finished: tuple[Path, dict[str, str], bool]) -> None:
    home, _, _ = finished
    assert list(audit(open_warehouse(home / "warehouse"))) == []


def test_test_pairs_are_never_learnt_from(finished: tuple[Path, dict[str, str], bool]) -> None:
    home, datasets, _ = finished
    warehouse = open_warehouse(home / "warehouse")
    sides = {
        row["entity_id"]: row["side"]
        for row in warehouse.read("splits", datasets["splits"]).to_pylist()
    }
    asked = warehouse.read("questions", datasets["questions"]).to_pylist()
    assert asked
    assert all(
        (sides[row["persona_id"]], sides[row["pair_id"]]) == ("new", "seen") for row in asked
    )


def test_a_licence_changes_no_version_and_text_features_do(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "data", own_rows(6))
    base = {"warehouse": str(tmp_path / "w"), "ingest": {"data": str(folder)}}
    plain = stage_configs(OwnConfig.model_validate(base))
    told = {**base, "ingest": {"data": str(folder), "licence": "CC-BY-4.0"}}
    assert stage_configs(OwnConfig.model_validate(told)) == plain
    without = {**base, "encoder": {"text_features": False}}
    other = stage_configs(OwnConfig.model_validate(without))
    assert {name for name in plain if plain[name] != other[name]} == {
        "fit_own",
        "adapt_own",
        "accuracy",
    }
    assert (plain["fit_own"]["text_columns"], other["fit_own"]["text_columns"]) == (16, 0)


def test_what_was_imported_is_found_again_without_its_folder(tmp_path: Path) -> None:
    from tasks.importing import import_own

    folder = write_own(tmp_path / "data", own_rows(6))
    base = {"warehouse": str(tmp_path / "w")}
    with pytest.raises(InputRejected, match="pass --data, or import it"):
        stage_configs(OwnConfig.model_validate(base))
    imported = import_own(OwnConfig.model_validate({**base, "ingest": {"data": str(folder)}}))
    assert not imported["is_reused"]
    assert imported["rows"]["answers"] == 24
    again = import_own(OwnConfig.model_validate({**base, "ingest": {"data": str(folder)}}))
    assert again["is_reused"]
    assert again["datasets"] == imported["datasets"]
    configs = stage_configs(OwnConfig.model_validate(base))
    plan = plan_stage(OWN_STAGES[0], base["warehouse"], configs["ingest_own"], {})
    assert plan.version == imported["datasets"]["answers"]


def test_nothing_is_imported_of_faulty_data(tmp_path: Path) -> None:
    from tasks.importing import import_own

    rows = own_rows(6)
    rows["preferences"][-1]["preference"] = 2
    folder = write_own(tmp_path / "data", rows)
    config = {"warehouse": str(tmp_path / "w"), "ingest": {"data": str(folder)}}
    with pytest.raises(InputRejected):
        import_own(OwnConfig.model_validate(config))
    assert not list((tmp_path / "w").glob("*/version=*"))
    assert open_warehouse(tmp_path / "w").runs() == []


def test_own_users_are_shown_with_what_they_answered_and_told_what_is_not_there(
    finished: tuple[Path, dict[str, str], bool],
) -> None:
    from tasks.showing import user_facts

    home, datasets, _ = finished
    warehouse = open_warehouse(home / "warehouse")
    sides = {
        row["entity_id"]: row["side"]
        for row in warehouse.read("splits", datasets["splits"]).to_pylist()
        if row["entity_kind"] == "persona"
    }
    weights = warehouse.read("adapted_weights", datasets["adapted_weights"]).to_pylist()
    for side, persona in {side: persona for persona, side in sorted(sides.items())}.items():
        found = user_facts(warehouse, persona)
        assert found.is_seen == (side == "seen")
        assert all(one.low < one.weight < one.high for one in found.weights)
        liked = "long" if int(persona[1:]) % 3 else "short"
        assert all(one.preferred.startswith(liked) for one in found.answers)
        assert any("no personalized responses" in note for note in found.notes)
        if side == "new":
            assert [one.weight for one in found.weights] in [row["weights"] for row in weights]


def test_a_second_chain_finds_the_same_versions(
    finished: tuple[Path, dict[str, str], bool],
) -> None:
    home, datasets, _ = finished
    assert chain(home / "data", home / "warehouse") == datasets


def test_the_world_is_the_files_again(finished: tuple[Path, dict[str, str], bool]) -> None:
    home, datasets, _ = finished
    plan = plan_stage(FIT_STAGE, str(home / "warehouse"), {"text_columns": 0}, datasets)
    world = load_own_world(inputs_of(plan))
    data = read_own(str(home / "data"))
    assert world.cells.user.size == len(data.answers)
    for user, pair, label, _ in zip(*world.cells, strict=True):
        winner = world.response_a_ids[pair] if label == 1.0 else world.response_b_ids[pair]
        likes_long = int(world.personas[user].removeprefix("u")) % 3 != 0
        assert winner.endswith("long" if likes_long else "short")
