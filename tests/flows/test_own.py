"""`pref ingest` and `pref run own` from beginning to end, against a real Prefect server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flows.conftest import Finished, Pref
from tests.tasks.own.data import own_rows, write_own

SMALL = ("--set", "fit.d=2", "--set", "fit.steps=40", "--set", "adapt.answers=[0,1,2]")


@pytest.fixture(scope="module")
def first(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pref, Path, Finished]:
    home = tmp_path_factory.mktemp("own")
    data = write_own(home / "data", own_rows(15, 6), "csv")
    pref = Pref(home, prefect_server)
    imported = pref.run("ingest", str(data), "-w", "w", "--licence", "CC0-1.0")
    assert imported.code == 0, imported.err
    assert "15 personas" in imported.out
    return pref, home / "w", pref.run("run", "own", "-w", "w", *SMALL, "--json")


def test_what_was_imported_is_trained_on_without_a_call(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, _, done = first
    assert done.code == 0, done.err
    assert done.found["calls_made"] == 0
    assert done.found["start"] == "features"
    assert done.found["facts"]["pairs of several users"] == 0
    assert set(done.found["accuracy"]) == {"pref", "classic", "longer"}
    assert (Path(pref.env["HOME"]) / done.found["report"]).is_file()


def test_a_second_run_from_the_folder_finds_everything(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, _, done = first
    again = pref.run("run", "own", "--data", "data", "-w", "w", *SMALL, "--json")
    assert again.code == 0, again.err
    assert again.found["datasets"] == done.found["datasets"]
    assert again.err.count("cached") == 11


def test_a_plan_says_that_nothing_is_bought(first: tuple[Pref, Path, Finished]) -> None:
    pref, _, _ = first
    planned = pref.run("plan", "own", "-w", "w")
    assert (planned.code, planned.out) == (0, "0 calls: this flow asks no model\n")
    assert json.loads(pref.run("plan", "own", "-w", "w", "--json").out)["stages"] == []


def test_the_warehouse_passes_the_audit_and_answers_questions(
    first: tuple[Pref, Path, Finished],
) -> None:
    pref, _, _ = first
    audited = pref.run("audit", "-w", "w")
    assert audited.code == 0, audited.out
    query = "select part, count(*) as n from cells group by part"
    rows = json.loads(pref.run("sql", query, "-w", "w", "--json").out)
    assert {row["part"] for row in rows} == {"train", "validation", "calibration", "test"}
    assert sum(row["n"] for row in rows) == 90


def test_faulty_data_cost_one_line_and_leave_no_trace(pref: Pref, tmp_path: Path) -> None:
    rows = own_rows(3)
    rows["preferences"][4]["preference"] = 7
    rows["users"].pop()
    data = write_own(tmp_path / "bad", rows)
    for words in (("ingest", str(data)), ("run", "own", "--data", str(data))):
        refused = pref.run(*words, "-w", "w")
        assert refused.code == 2
        assert "not a number from 0 to 1 in 1 row (5)" in refused.line
        assert "a user_id that the users do not have in 4 rows (9, 10, 11, …)" in refused.line
        assert not list((tmp_path / "w").glob("*/version=*"))
