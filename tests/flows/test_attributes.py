"""`pref run attributes` from beginning to end, against a real Prefect server."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Finished, Pref, ask, attributes_words, free_port
from tests.pages import faults_of

METHODS = {"pref", "classic", "per_user"}


@pytest.fixture(scope="module")
def first(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pref, Path, Finished]:
    home = tmp_path_factory.mktemp("run")
    pref = Pref(home, prefect_server)
    warehouse = home / "data"
    return pref, warehouse, pref.attributes(warehouse)


def test_json_is_one_object_with_the_promised_keys(first: tuple[Pref, Path, Finished]) -> None:
    _, warehouse, done = first
    assert done.code == 0, done.err
    found = done.found
    assert {"calls_made", "calls_reused", "cost_usd", "wall_s", "datasets", "judge_audit"} <= set(
        found
    )
    assert set(found["auc"]) == set(found["win_rate"]) == METHODS
    for by_count in found["auc"].values():
        assert {"1", "3", "5"} <= set(by_count)
        assert all(set(one) == {"mean", "low", "high"} for one in by_count.values())
    assert all(set(one) == {"mean", "low", "high"} for one in found["win_rate"].values())
    assert found["is_simulated"] is True
    assert found["judge_audit"]["n_judgments"] == 20 * 12 * 2
    for name, version in found["datasets"].items():
        assert (warehouse / name / f"version={version}" / "manifest.json").is_file()


def test_the_report_is_self_contained_and_says_that_answers_are_simulated(
    first: tuple[Pref, Path, Finished],
) -> None:
    html = Path(first[2].found["report"]).read_text("utf-8")
    assert "Simulated answers" in html
    without_names = html.replace("http://www.w3.org/", "").replace("http://purl.org/", "")
    without_names = without_names.replace("http://creativecommons.org/", "")
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]+\"", without_names)
    assert "url(" not in re.sub(r"url\(#[^)]+\)", "", without_names)
    assert "<script" not in html
    assert faults_of(html) == []


def _stages_told(err: str) -> dict[str, str]:
    """What a run said of each stage: the stage's name to ``cached`` or its seconds"""
    return dict(re.findall(r"^  (\w+) +(cached|[\d.]+ s)  ", err, flags=re.MULTILINE))


def test_a_second_run_makes_no_call_and_gives_the_same_versions(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, done = first
    again = pref.attributes(warehouse)
    assert again.code == 0, again.err
    assert again.found["calls_made"] == 0
    assert again.found["calls_reused"] == done.found["calls_made"] + done.found["calls_reused"]
    assert again.found["datasets"] == done.found["datasets"]
    stages = _stages_told(again.err)
    assert list(stages) == list(_stages_told(done.err))
    assert set(stages.values()) == {"cached"}


def test_a_deleted_dataset_is_made_again_from_the_ledger(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, done = first
    folder = warehouse / "judgments" / f"version={done.found['datasets']['judgments']}"
    before = (folder / "part-0.parquet").read_bytes()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    again = pref.attributes(warehouse)
    assert again.code == 0, again.err
    assert again.found["calls_made"] == 0
    assert (folder / "part-0.parquet").read_bytes() == before


def plan(pref: Pref, warehouse: Path, *words: str) -> dict[str, dict[str, Any]]:
    words = ("plan", *attributes_words(warehouse, *words)[1:])
    done = pref.run(*words)
    assert done.code == 0, done.err
    return {one["stage"]: one for one in json.loads(done.out)["stages"]}


def test_a_plan_counts_the_calls_that_the_run_then_makes(
    first: tuple[Pref, Path, Finished], tmp_path: Path
) -> None:
    pref, warehouse, done = first
    before = plan(pref, tmp_path / "new")
    assert before["respond"]["calls"] == 24
    assert before["judge"]["calls"] == 480
    assert before["label"]["calls"] == 8
    # Held-out prompts and users: a fifth of 12 and of 20; where methods agree, fewer calls.
    assert before["pool"]["calls"] == 2 * 5
    # Three methods, of which two may choose anew after two answers.
    assert before["win"]["calls"] == 4 * 2 * (3 + 2) * 2
    assert sum(one["calls"] for one in before.values()) >= done.found["calls_made"]
    after = plan(pref, warehouse)
    assert sum(one["calls"] for one in after.values()) == 0
    assert sum(one["held"] for one in after.values()) == done.found["calls_made"]
    assert not (tmp_path / "new" / "ledger.sqlite").exists()


def test_a_plan_subtracts_what_the_ledger_holds_of_a_changed_request(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, _ = first
    more = plan(pref, warehouse, "--set", "judge.repeats=2")
    assert (more["judge"]["calls"], more["judge"]["held"]) == (480, 480)


def test_changing_the_judge_s_template_setting_reuses_the_responses(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, done = first
    other = pref.attributes(warehouse, "--set", "judge.sampling.max_tokens=16")
    before, after = done.found["datasets"], other.found["datasets"]
    assert before["responses"] == after["responses"]
    assert before["judgments"] != after["judgments"]
    assert other.found["calls_made"] > 0


def test_prefect_recorded_every_task_run_and_shows_stages_by_name(
    first: tuple[Pref, Path, Finished], prefect_server: str
) -> None:
    every = ask(prefect_server, "flow_runs", {"sort": "START_TIME_ASC"})
    # The server is everyone's; these runs are the ones on our warehouse.
    runs = [one for one in every if f'"{first[1]}"' in json.dumps(one["parameters"])]
    attributes = next(one for one in runs if one["name"].count(":") == 0)
    chosen = {"flow_runs": {"id": {"any_": [attributes["id"]]}}, "limit": 200}
    names = [one["name"] for one in ask(prefect_server, "task_runs", chosen)]
    assert {"ingest", "fit", "adapt", "auc", "report"} <= set(names)
    shards = next(one for one in runs if one["name"].startswith("judge:"))
    assert shards["name"] == "judge: 12 shards"
    chosen = {"flow_runs": {"id": {"any_": [shards["id"]]}}, "limit": 200}
    assert len(ask(prefect_server, "task_runs", chosen)) == 12


def test_every_dataset_has_an_artifact_under_a_stable_key(
    first: tuple[Pref, Path, Finished], prefect_server: str
) -> None:
    keys = {one["key"] for one in ask(prefect_server, "artifacts/latest", {"limit": 200})}
    wanted = {name.replace("_", "-") for name in first[2].found["datasets"]}
    assert wanted <= keys
    assert {"judge-audit-table", "auc-means-table", "win-rates-table", "report-picture"} <= keys


def test_datasets_sql_and_lineage_read_the_run(first: tuple[Pref, Path, Finished]) -> None:
    pref, warehouse, done = first
    where = ("--warehouse", str(warehouse))
    listed = json.loads(pref.run("datasets", *where, "--json").out)
    assert {one["dataset"] for one in listed} == set(done.found["datasets"])
    query = "select part, count(*) as n from cells group by part order by part"
    rows = json.loads(pref.run("sql", query, *where, "--json").out)
    assert sum(one["n"] for one in rows) == 20 * 12
    assert [one["part"] for one in rows] == ["calibration", "test", "train", "validation"]
    tree = pref.run("lineage", "models", *where)
    assert tree.code == 0
    for name in ("models", "preferences", "judgments", "pairs", "prompts"):
        assert name in tree.out


def test_an_endpoint_that_refuses_the_key_costs_one_line(pref: Pref, tmp_path: Path) -> None:
    port = free_port()
    simulator = pref.start(
        "simulate", "--port", str(port), "--set", "api_key=sk-right-key-0123456789"
    )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        wait_for(f"{url}/models")
        done = pref.attributes(
            tmp_path / "data", "--llm-base-url", url, OPENAI_API_KEY="sk-planted-wrong-0123456789"
        )
        assert done.code == 2
        assert "key" in done.line
        assert "Traceback" not in done.err
        assert "planted" not in done.out + done.err
        unknown = pref.attributes(
            tmp_path / "data",
            *("--llm-base-url", url, "--responder-model", "no-such-model"),
            OPENAI_API_KEY="sk-right-key-0123456789",
        )
        assert unknown.code == 2
        assert "no-such-model" in unknown.line
    finally:
        simulator.terminate()
        simulator.communicate(timeout=20)


def test_an_endpoint_that_is_not_there_costs_one_line(pref: Pref, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = pref.attributes(tmp_path / "data", "--llm-base-url", url)
    assert done.code == 2
    assert url in done.line
    assert "Traceback" not in done.err
    assert not list((tmp_path / "data").glob("responses/version=*"))


def test_a_second_run_on_the_same_warehouse_is_turned_away(pref: Pref, tmp_path: Path) -> None:
    from warehouse.store import open_warehouse

    with open_warehouse(tmp_path / "data").lock():
        done = pref.attributes(tmp_path / "data")
    assert done.code == 2
    assert "in use by process" in done.line


def wait_for(url: str) -> None:
    import time

    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


@pytest.mark.slow
def test_a_retrain_keeps_the_basis_of_the_model_before_it_and_is_found_again(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, warehouse, _ = first
    # Twelve prompts are too few to fix eight base rewards.
    done = pref.attributes(warehouse, "--set", "fit.d=3")
    before = done.found["datasets"]["models"]
    words = ("--align-to", "previous", "--set", "fit.d=3", "--set", "fit.user_l2=0.5")
    retrained = pref.attributes(warehouse, *words)
    assert retrained.code == 0, retrained.err
    aligned = retrained.found["alignment"]
    assert done.found["alignment"] is None
    assert aligned["aligned_to_version"] == before
    assert aligned["n_users"] == 16
    assert 0 <= aligned["alignment_error_share"] < 1
    html = Path(retrained.found["report"]).read_text("utf-8")
    assert f"models <code>{before}</code>" in html
    again = pref.attributes(warehouse, *words)
    assert again.found["datasets"] == retrained.found["datasets"]
    assert pref.run("audit", "--warehouse", str(warehouse)).code == 0


def test_a_held_out_user_is_shown_with_base_and_personalized_responses(
    first: tuple[Pref, Path, Finished], tmp_path: Path
) -> None:
    pref, warehouse, _ = first
    words = ("--warehouse", str(warehouse), "--json")
    query = "select entity_id from splits where entity_kind = 'persona' and side = 'new'"
    persona = json.loads(pref.run("sql", query, *words).out)[0]["entity_id"]
    page = tmp_path / "user.html"
    done = pref.run("show", persona, *words, "--html", str(page))
    assert done.code == 0, done.err
    found = done.found
    assert found["is_simulated"]
    assert found["n_answers"] == 5
    assert any(one["label"] for one in found["weights"])
    assert 1 <= len(found["examples"]) <= 3
    assert all(one["base"] and one["personalized"] for one in found["examples"])
    assert {one["win"] for one in found["examples"]} <= {0.0, 0.5, 1.0, None}
    assert "Simulated answers" in page.read_text("utf-8")


@pytest.mark.slow
def test_a_benchmark_asks_nobody_and_its_figures_join_the_report(
    first: tuple[Pref, Path, Finished], prefect_server: str, tmp_path: Path
) -> None:
    pref, warehouse, _ = first
    there = ("--warehouse", str(warehouse))
    small = (
        "--seeds", "2", "--set", "labels=[100]", "--set", "rewards=[1,2]", "--set", "fit.steps=5",
        "--set", "fit.d=3", "--only", "classic", "--only", "per_user", "--only", "rewards",
        "--only", "labels", "--only", "questions", "--only", "no L2 at all",
    )  # fmt: skip
    bare = pref.run("report", "--to", str(tmp_path / "bare"), *there)
    assert bare.code == 0, bare.err
    assert "pref benchmark" in bare.out
    plan = pref.run("plan", "benchmark", *there, *small, "--json")
    assert plan.code == 0, plan.err
    assert {one["n_held"] for one in plan.found["arms"]} == {0}
    done = pref.run("benchmark", *there, *small, "--json")
    assert done.code == 0, done.err
    assert done.found["calls_made"] == 0
    keys = {one["key"] for one in ask(prefect_server, "artifacts/latest", {"limit": 200})}
    assert "benchmark-progress" in keys
    after = pref.run("plan", "benchmark", *there, *small, "--json").found["arms"]
    assert {one["n_missing"] for one in after} == {0}
    full = pref.run("report", "--to", str(tmp_path / "full"), *there, "--json")
    assert full.code == 0, full.err
    folder = tmp_path / "full"
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {
        "fig2-auc", "fig2-win-rates", "fig3-ablations", "fig3-base-rewards", "fig3-questions",
        "fig4-labels", "fig5-base-rewards", "fig7-spectrum", "fig8-win-rate-by-user",
        "fig9-model-per-user", "table1-methods", "win-rates",
    }  # fmt: skip
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder / f"{name}.csv").read_text("utf-8").splitlines()) > 1
    lineage = json.loads((folder / "lineage.json").read_text("utf-8"))
    versions = {**full.found["datasets"], **done.found["datasets"]}
    for one in lineage.values():
        assert one["datasets"].items() <= versions.items()
    html = (folder / "report.html").read_text("utf-8")
    assert html.count("(published)") >= 4
    assert faults_of(html) == []
