"""`pref run prism` from beginning to end, on the sample of PRISM, against a real Prefect server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.flows.conftest import Finished, Pref
from tests.tasks.stages.prism_rows import write_prism

SAMPLE = SHARED / "data" / "prism"
SMALL = (
    "ingest.n_personas=20",
    "rate.min_rating=3",
    "design.control_share=0.2",
    'audit.second_judge_model="simulated-judge-b"',
    "audit.sample=40",
    "audit.human_sample=20",
    'sift.conversation_types=["controversy guided"]',
    "choose.n_prompts=12",
    "design.personas_per_pair=10",
    "win.pool_size=4",
    "win.n_answers=3",
    "win.also_answers=[1]",
    'win.also=["samples", "in_context", "summary", "system_prompt"]',
    "win.n_samples=2",
    "adapt.answers=[1,3]",
    "fit.d=2",
    "fit.steps=50",
    "calls.shard_size=60",
)


def words(verb: str, prism: Path, warehouse: Path, *more: str) -> list[str]:
    settings = [word for one in SMALL for word in ("--set", one)]
    where = ("--prism", str(prism), "--warehouse", str(warehouse))
    return [verb, "prism", *where, *settings, "--json", *more]


@pytest.fixture(scope="module")
def first(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pref, Path, Finished]:
    if not SAMPLE.is_dir():
        pytest.skip("the sample of PRISM is not beside this checkout")
    home = tmp_path_factory.mktemp("prism")
    pref = Pref(home, prefect_server)
    return pref, home / "data", pref.run(*words("run", SAMPLE, home / "data"))


def test_the_flow_ends_with_the_numbers_of_all_flows(first: tuple[Pref, Path, Finished]) -> None:
    pref, warehouse, done = first
    assert done.code == 0, done.err
    # A revision that changes nothing makes no pair, and the simulator may write one.
    n_pairs = done.found["judge_audit"]["n_judgments"] / (10 * 2)
    assert n_pairs in (10, 11, 12)
    assert set(done.found["auc"]) == {"pref", "classic", "per_user"}
    ways = {"pref_samples", "in_context", "summary"}
    query = """select count(*) as n from personas join splits on entity_id = persona_id
        where side = 'new' and system_text is not null"""
    where = ("--warehouse", str(warehouse), "--json")
    (wrote,) = json.loads(pref.run("sql", query, *where).out)
    # Who wrote no system prompt has none to be personalized by.
    ways |= {"system_prompt"} if wrote["n"] else set()
    assert set(done.found["win_rate"]) == {*done.found["auc"], *ways}
    # What is written is written after one number of answers; choices of the pool after each.
    by_answers = done.found["win_rate_by_answers"]
    assert {one for one in by_answers if set(by_answers[one]) == {"1", "3"}} == {
        *done.found["auc"],
        "pref_samples",
    }
    assert {"prompt_funnel", "openings", "candidates"} <= set(done.found["datasets"])
    assert Path(done.found["report"]).is_file()


def test_a_second_run_makes_no_call_and_gives_the_same_versions(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, done = first
    again = pref.run(*words("run", SAMPLE, warehouse))
    assert again.code == 0, again.err
    assert again.found["calls_made"] == 0
    assert again.found["datasets"] == done.found["datasets"]


def test_every_version_passes_the_audit_and_the_matrix_is_sparse(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, _ = first
    audited = pref.run("audit", "--warehouse", str(warehouse), "--json")
    assert audited.code == 0, audited.out
    query = "select count(*) as n, min(c) as low, max(c) as high from (select persona_id, count(*)"
    query += " as c from design group by persona_id)"
    found = json.loads(pref.run("sql", query, "--warehouse", str(warehouse), "--json").out)
    assert found[0]["n"] == 20
    assert found[0]["high"] - found[0]["low"] <= 1
    query = "select * from prompt_funnel"
    funnel = json.loads(pref.run("sql", query, "--warehouse", str(warehouse), "--json").out)
    assert len(funnel) > 1


def test_a_plan_shows_the_calls_and_the_design_before_anything_is_bought(
    pref: Pref, tmp_path: Path
) -> None:
    prism = write_prism(tmp_path / "prism")
    few = ("--set", "choose.n_prompts=null", "--set", "ingest.n_personas=6")
    kinds = json.dumps(["unguided", "values guided", "controversy guided"])
    more = (
        *few,
        "--set",
        "design.personas_per_pair=4",
        "--set",
        f"sift.conversation_types={kinds}",
    )
    unrated = ("--set", "rate.min_rating=null")
    done = pref.run(*words("plan", prism, tmp_path / "data", *more, *unrated))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    calls = {one["stage"]: one["calls"] for one in found["stages"]}
    # Five prompts, two calls each; four of six users judge each pair in both orders.
    assert (calls["rate"], calls["revise"], calls["judge"]) == (0, 10, 5 * 4 * 2)
    assert found["design"]["n_cells"] == 20
    assert set(found["design"]["loads"]) == {"3", "4"}
    assert found["design"]["n_components"] == 1
    assert found["design"]["can_identify"] is True
    rated = json.loads(pref.run(*words("plan", prism, tmp_path / "data", *more)).out)
    assert {one["stage"]: one["calls"] for one in rated["stages"]}["rate"] == 5
    assert rated["design"] is None
