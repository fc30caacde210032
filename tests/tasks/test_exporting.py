"""An export is whole or absent, says what it is, and carries its sources' licences."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks import exporting
from tasks._sources import ADDRESSES, UNKNOWN
from tasks.config import OwnConfig
from tasks.exporting import MATRIX, export_datasets
from tasks.importing import import_own
from tests.tasks.own.data import own_rows, write_own
from warehouse import croissant as croissant_module
from warehouse.croissant import CONFORMS_TO, data_type
from warehouse.errors import DatasetCorrupt, DatasetMissing, StorageFull, WarehouseError
from warehouse.fields import FIELDS
from warehouse.manifest import CallCounts, Provenance
from warehouse.runs import RunRecord
from warehouse.store import Warehouse, open_warehouse
from warehouse.tables import TABLES

START = datetime(2026, 1, 1, tzinfo=UTC)


class Made:
    """A warehouse filled row by row, as a flow's stages would."""

    def __init__(self, root: Path) -> None:
        self.warehouse: Warehouse = open_warehouse(root)
        self.versions: dict[str, str] = {}

    def put(
        self, stage: str, rows: dict[str, list[dict[str, Any]]], *reads: str, **said: Any
    ) -> None:
        provenance = Provenance(
            stage=stage,
            code_sha256=hashlib.sha256(stage.encode()).hexdigest(),
            config=said.get("config", {}),
            parents={name: self.versions[name] for name in reads},
            models=said.get("models", ()),
            calls=said.get("calls", CallCounts()),
            flow_run_id="test",
            started_at=START,
            libraries={},
        )
        for name, some in rows.items():
            table = pa.Table.from_pylist(some, TABLES[name].schema)
            found = self.warehouse.commit(name, provenance, table)
            self.versions[name] = found.version

    def ran(self, flow: str, run_id: str, *, licence: str | None = None, hours: int = 0) -> None:
        moment = START + timedelta(hours=hours)
        record = RunRecord(
            run_id=run_id,
            flow=flow,
            started_at=moment,
            finished_at=moment,
            datasets=dict(self.versions),
            is_complete=True,
            config={"ingest": {"licence": licence}},
        )
        self.warehouse.record_run(record)


def texts(source: str) -> dict[str, list[dict[str, Any]]]:
    return {
        "prompts": [{"prompt_id": "p", "prompt_text": "Why | so?", "prompt_source": source}],
        "personas": [{"persona_id": "u", "persona_kind": "prism", "profile_text": "x"}],
    }


def matrix(made: Made, endpoint: str = "https://api.example.org/v1") -> None:
    """Two responses a prompt and one verdict in both orders."""
    said = {"config": {"endpoint_name": endpoint, "judge_model": "judge-1", "sampling": {}}}
    some = [
        {
            "response_id": f"r{side}",
            "prompt_id": "p",
            "response_role": f"pair_{side}",
            "response_text": side,
        }
        for side in ("a", "b")
    ]
    pair = {"pair_id": "m", "prompt_id": "p", "response_a_id": "ra", "response_b_id": "rb"}
    spent = CallCounts(made=2, prompt_tokens=30, completion_tokens=7, cost_usd=0.25)
    made.put(
        "respond", {"responses": some, "pairs": [pair]}, "prompts", models=("writer-1",),
        calls=spent, **said,
    )  # fmt: skip
    verdicts = [
        {
            "persona_id": "u",
            "pair_id": "m",
            "presentation_order": order,
            "repeat": 0,
            "request_key": order,
            "judge_model": "judge-1",
            "verdict": "first",
            "is_exact_form": True,
            "prefers_a_prob": float(order == "ab"),
            "prob_origin": "verdict",
            "reply_text": "1",
        }
        for order in ("ab", "ba")
    ]
    made.put("judge", {"judgments": verdicts}, "personas", "pairs", models=("judge-1",), **said)
    cell = {"persona_id": "u", "pair_id": "m", "preference_prob": 0.5, "n_valid": 2, "n_asked": 2}
    made.put("assemble", {"preferences": [{**cell, "is_tie": True}]}, "judgments")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    one = Made(tmp_path / "warehouse")
    one.put("ingest", texts("tasks.csv"), config={"prompt_source": "tasks.csv"})
    matrix(one)
    one.ran("attributes", "run-1")
    return one


def front_matter(folder: Path) -> dict[str, Any]:
    _, front, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    assert body.strip()
    return dict(yaml.safe_load(front))


def document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "croissant.json").read_text("utf-8")))


def test_every_config_of_the_card_names_a_file_that_reads_as_its_rows(
    made: Made, tmp_path: Path
) -> None:
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    configs = front_matter(tmp_path / "out")["configs"]
    names = [one["config_name"] for one in configs]
    assert (
        names
        == list(found["datasets"])
        == [one for one in TABLES if one in set(MATRIX) & set(names)]
    )
    assert [one.get("default", False) for one in configs] == [True] + [False] * (len(names) - 1)
    for one in configs:
        (part,) = one["data_files"]
        assert part["split"] == "train"
        path = tmp_path / "out" / part["path"]
        assert path.is_file()
        rows = made.warehouse.read(one["config_name"], found["datasets"][one["config_name"]])
        assert pq.read_table(path, partitioning=None).equals(rows)
        assert list(pd.read_parquet(path).columns) == rows.column_names
        assert len(pd.read_parquet(path)) == found["rows"][one["config_name"]]
    written = {
        str(path.relative_to(tmp_path / "out"))
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert written == {"README.md", "croissant.json"} | {
        one["data_files"][0]["path"] for one in configs
    }


def test_croissant_describes_every_file_field_and_reference(made: Made, tmp_path: Path) -> None:
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    told = document(tmp_path / "out")
    assert (told["@type"], told["conformsTo"]) == ("sc:Dataset", CONFORMS_TO)
    for name in ("name", "description", "license", "version", "datePublished", "citeAs"):
        assert isinstance(told[name], str)
        assert told[name]
    files = {}
    for one in told["distribution"]:
        data = (tmp_path / "out" / one["contentUrl"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
        assert one["contentSize"] == f"{len(data)} B"
        assert one["@type"] == "cr:FileObject"
        files[one["@id"]] = pq.read_schema(tmp_path / "out" / one["contentUrl"])
    ids = {field["@id"] for records in told["recordSet"] for field in records["field"]}
    assert [records["name"] for records in told["recordSet"]] == list(found["datasets"])
    for records in told["recordSet"]:
        table = TABLES[records["name"]]
        assert [field["@id"] for field in records["field"]] == [
            f"{table.name}/{column}" for column in table.columns
        ]
        keys = records["key"] if isinstance(records["key"], list) else [records["key"]]
        assert [one["@id"] for one in keys] == [f"{table.name}/{column}" for column in table.key]
        for field in records["field"]:
            column = field["source"]["extract"]["column"]
            stored = files[field["source"]["fileObject"]["@id"]].field(column).type
            is_list = pa.types.is_list(stored)
            assert field.get("repeated", False) == is_list
            assert field["dataType"] == data_type(stored.value_type if is_list else stored)
            if "references" in field:
                target = field["references"]["field"]["@id"]
                assert target in ids
                assert not target.startswith(f"{table.name}/")
    by_id = {field["@id"]: field for one in told["recordSet"] for field in one["field"]}
    assert by_id["pairs/prompt_id"]["references"] == {"field": {"@id": "prompts/prompt_id"}}


def test_every_kind_of_field_has_a_croissant_type() -> None:
    for field in FIELDS.values():
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        assert data_type(kind).startswith("sc:")
    with pytest.raises(TypeError):
        data_type(pa.binary())


def test_the_reference_reader_of_croissant_reads_an_export(made: Made, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    read = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    for records in document(tmp_path / "out")["recordSet"]:
        assert next(iter(read.records(record_set=records["@id"])))


def test_what_models_wrote_is_marked_with_models_judge_and_cost(made: Made, tmp_path: Path) -> None:
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    assert (found["is_synthetic"], found["is_simulated"]) == (True, False)
    assert "synthetic" in front_matter(tmp_path / "out")["tags"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    for told in ("`judge-1`", "`writer-1`", "| respond | 2 | 30 | 7 | 0.2500 |", "Model `judge-1`"):
        assert told in card
    assert "**Simulated.**" not in card
    assert "synthetic" in document(tmp_path / "out")["rai:dataCollection"]
    for name, version in found["datasets"].items():
        assert f"| {name} | `{version}` |" in card


def test_simulated_answers_are_called_simulated(tmp_path: Path) -> None:
    made = Made(tmp_path / "warehouse")
    made.put("ingest", texts("starter"), config={"prompt_source": "starter"})
    matrix(made, "simulator-0123")
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    assert found["is_simulated"]
    assert "**Simulated.**" in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert front_matter(tmp_path / "out")["license"] == "apache-2.0"


def test_a_source_without_a_stated_licence_is_unknown_and_never_guessed(
    made: Made, tmp_path: Path
) -> None:
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")
    assert found["sources"] == [{"name": "tasks.csv", "licence": UNKNOWN}]
    assert front_matter(tmp_path / "out")["license"] == UNKNOWN
    assert "Nobody stated a licence." in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_licence_stated_in_a_run_is_carried_and_the_newest_statement_counts(
    made: Made, tmp_path: Path
) -> None:
    made.ran("attributes", "run-2", licence="MIT", hours=1)
    made.ran("attributes", "run-3", licence="CC-BY-4.0", hours=2)
    made.ran("attributes", "run-4", hours=3)
    # What is stated at the export is for sources of which nothing is known.
    found = export_datasets(made.warehouse, [], tmp_path / "out", "a matrix", "CC0-1.0")
    assert found["licence"] == "cc-by-4.0"
    assert document(tmp_path / "out")["license"] == ADDRESSES["cc-by-4.0"]


def test_a_licence_of_one_s_own_is_other_with_its_name(made: Made, tmp_path: Path) -> None:
    export_datasets(made.warehouse, [], tmp_path / "out", "a matrix", "House rules: ask us")
    front = front_matter(tmp_path / "out")
    assert (front["license"], front["license_name"]) == ("other", "house rules: ask us")


def test_prism_s_licence_follows_everything_made_from_it(tmp_path: Path) -> None:
    made = Made(tmp_path / "warehouse")
    rows = texts("prism")
    opening = {
        "opening_id": "c",
        "author_id": "u",
        "conversation_type": "unguided",
        "is_generated": False,
        "prompt_text": "Why | so?",
    }
    response = {
        "response_id": "o",
        "opening_id": "c",
        "response_text": "So.",
        "is_generated": False,
    }
    made.put(
        "prism",
        {
            "personas": rows["personas"],
            "openings": [opening],
            "opening_responses": [response],
        },
    )
    made.put("choose", {"prompts": rows["prompts"]}, "openings", "opening_responses")
    matrix(made)
    for wanted in ([], ["preferences"]):
        target = tmp_path / f"out{len(wanted)}"
        found = export_datasets(made.warehouse, wanted, target, "a matrix", "MIT")
        assert found["licence"] == "cc-by-nc-4.0"
        card = (target / "README.md").read_text("utf-8")
        assert "Nobody may try to find out who the participants are" in card
        assert "arXiv:2404.16019" in document(target)["citeAs"]
    # Participants alone descend from nothing that models wrote.
    found = export_datasets(made.warehouse, ["personas"], tmp_path / "people", "people")
    assert (found["licence"], found["is_synthetic"]) == ("cc-by-4.0", False)


def test_people_s_own_answers_are_no_synthetic_data(tmp_path: Path) -> None:
    data = write_own(tmp_path / "data", own_rows(4))
    raw = {
        "warehouse": str(tmp_path / "w"),
        "ingest": {"data": str(data), "licence": "CC-BY-SA-4.0"},
    }
    import_own(OwnConfig.model_validate(raw))
    found = export_datasets(open_warehouse(tmp_path / "w"), [], tmp_path / "out", "ours")
    assert not found["is_synthetic"]
    assert found["licence"] == "cc-by-sa-4.0"
    assert {"prompts", "personas", "responses", "pairs", "answers"} == set(found["datasets"])
    assert "human-feedback" in front_matter(tmp_path / "out")["tags"]
    assert "No model was called." in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_the_same_versions_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_datasets(made.warehouse, [], tmp_path / name, "a matrix")
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes()


def test_an_empty_folder_is_taken_and_a_filled_one_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_datasets(made.warehouse, ["pairs"], tmp_path / "empty", "pairs")
    before = sorted((tmp_path / "empty").rglob("*"))
    with pytest.raises(WarehouseError, match="a folder with something in it"):
        export_datasets(made.warehouse, ["pairs"], tmp_path / "empty", "pairs")
    assert sorted((tmp_path / "empty").rglob("*")) == before
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(WarehouseError, match="found a file"):
            export_datasets(made.warehouse, ["pairs"], target, "pairs")


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[None]:
    """Nothing is left where an export failed."""
    yield
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.usefixtures("leftovers")
def test_a_full_disk_leaves_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "croissant", full)
    with pytest.raises(StorageFull, match="no space left"):
        export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")


@pytest.mark.usefixtures("leftovers")
def test_changed_bytes_are_not_published(made: Made, tmp_path: Path) -> None:
    path = made.warehouse.file_path("pairs", made.versions["pairs"])
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetCorrupt):
        export_datasets(made.warehouse, [], tmp_path / "out", "a matrix")


@pytest.mark.usefixtures("leftovers")
def test_versions_that_do_not_belong_together_are_refused(made: Made, tmp_path: Path) -> None:
    old = made.versions["prompts"]
    made.put("ingest", {"prompts": texts("b.csv")["prompts"]}, config={"prompt_source": "b.csv"})
    with pytest.raises(WarehouseError, match=f"name prompts={old}"):
        export_datasets(
            made.warehouse, ["pairs", f"prompts={made.versions['prompts']}"], tmp_path / "out", "x"
        )


@pytest.mark.usefixtures("leftovers")
@pytest.mark.parametrize("wanted", ["nothing", "selections", "pairs=0123456789ab", "pairs=x"])
def test_what_is_not_there_cannot_be_exported(made: Made, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing):
        export_datasets(made.warehouse, [wanted], tmp_path / "out", "x")


@pytest.mark.usefixtures("leftovers")
def test_an_empty_warehouse_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="no preference matrix"):
        export_datasets(open_warehouse(tmp_path / "none"), [], tmp_path / "out", "x")


def test_the_context_is_said_term_by_term() -> None:
    context = croissant_module.CONTEXT
    assert context["cr"] == "http://mlcommons.org/croissant/"
    for name in ("field", "recordSet", "extract", "source", "references", "repeated", "key"):
        assert context[name] == f"cr:{name}"
