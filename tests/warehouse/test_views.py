from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from warehouse.errors import DatasetMissing, QueryRejected
from warehouse.manifest import Manifest, Provenance
from warehouse.store import Warehouse, open_warehouse
from warehouse.views import connect, query


def rows_of(warehouse: Warehouse, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in query(warehouse, sql).to_pylist()]


def test_each_dataset_is_a_view_with_its_rows(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    for name, manifest in chain.items():
        stored = warehouse.read(name, manifest.version)
        found = query(warehouse, f"SELECT * FROM {name}")
        assert found.to_pylist() == stored.to_pylist()
        assert found.schema.names == stored.schema.names


def test_cells_name_the_part_of_every_cell(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    assert rows_of(warehouse, "SELECT persona_id, pair_id, part FROM cells ORDER BY ALL") == [
        ("concise+polite", "q1", "train"),
        ("concise+polite", "q2", "validation"),
        ("formal+humorous", "q1", "calibration"),
        ("formal+humorous", "q2", "test"),
    ]
    everything = "SELECT preference_prob IS NULL, is_tie, n_valid FROM cells WHERE part = 'test'"
    assert rows_of(warehouse, everything) == [(True, False, 0)]


def test_a_cell_without_a_side_takes_no_part(
    warehouse: Warehouse, chain: dict[str, Manifest], provenance: Callable[..., Provenance]
) -> None:
    some = warehouse.read("splits", chain["splits"].version).slice(0, 3)
    warehouse.commit("splits", provenance("split", {}), some)
    assert rows_of(warehouse, "SELECT DISTINCT pair_id FROM cells") == [("q1",)]


def test_a_chosen_version_replaces_the_current_one(
    warehouse: Warehouse, provenance: Callable[..., Provenance], prompts: Callable[..., pa.Table]
) -> None:
    old, new = (
        warehouse.commit("prompts", provenance("ingest", config={"n": n}), prompts(n))
        for n in (1, 2)
    )
    count = "SELECT count(*) AS n FROM prompts"
    assert query(warehouse, count).to_pylist() == [{"n": 2}]
    assert query(warehouse, count, {"prompts": old.version}).to_pylist() == [{"n": 1}]
    assert query(warehouse, count, {"prompts": new.version}).to_pylist() == [{"n": 2}]
    with pytest.raises(DatasetMissing):
        query(warehouse, count, {"prompts": "0" * 12})


def test_paths_with_odd_letters_are_read(
    tmp_path: Path, provenance: Callable[..., Provenance], prompts: Callable[..., pa.Table]
) -> None:
    warehouse = open_warehouse(tmp_path / "it's [a] *?{b}=c %20 é")
    warehouse.commit("prompts", provenance("ingest"), prompts())
    assert rows_of(warehouse, "SELECT count(*) FROM prompts") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "selec 1",
        "SELECT colour FROM prompts",
        "SELECT * FROM nothing",
        "SELECT 'x'::INT",
        "SELECT * FROM prompts WHERE",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "DROP VIEW prompts",
        "CREATE TABLE t AS SELECT 1",
        "SELECT error('a\nb')",
    ],
)
def test_bad_sql_gives_one_line(warehouse: Warehouse, chain: dict[str, Manifest], sql: str) -> None:
    with pytest.raises(QueryRejected) as caught:
        query(warehouse, sql)
    line = str(caught.value)
    assert line.startswith("SQL: ")
    assert "expected one SELECT" in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


def test_an_unknown_view_is_answered_with_the_known_ones(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    with pytest.raises(QueryRejected, match="views cells, judgments, pairs, personas"):
        query(warehouse, "SELECT * FROM nothing")


def test_an_empty_warehouse_can_be_asked(warehouse: Warehouse) -> None:
    assert query(warehouse, "SELECT 1 AS one").to_pylist() == [{"one": 1}]
    with pytest.raises(QueryRejected, match="none yet"):
        query(warehouse, "SELECT * FROM prompts")


ESCAPES = [
    "COPY (SELECT 1) TO '{target}'",
    "COPY (SELECT 1) TO '{stored}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPORT DATABASE '{target}'",
    "ATTACH '{target}'",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM glob('/*')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET python_enable_replacements = true",
    "RESET enable_external_access",
    "INSTALL httpfs",
    "LOAD '{target}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'",
    "SELECT * FROM local_rows",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_sql_can_neither_write_nor_read_other_files(
    warehouse: Warehouse, chain: dict[str, Manifest], tmp_path: Path, sql: str
) -> None:
    local_rows = pa.table({"x": [1]})
    secret, target = tmp_path / "secret.csv", tmp_path / "target"
    secret.write_text("a,b\n1,2\n")
    stored = warehouse.file_path("prompts", chain["prompts"].version)
    filled = sql.format(secret=secret, target=target, stored=stored)
    with pytest.raises(QueryRejected):
        query(warehouse, filled)
    with connect(warehouse) as connection, pytest.raises(duckdb.Error):
        connection.execute(filled).fetchall()
    assert local_rows.num_rows == 1
    assert not target.exists()
    for manifest in chain.values():
        warehouse.verify(manifest)


@pytest.mark.parametrize(
    "sql", ["DESCRIBE prompts", "SHOW TABLES", "EXPLAIN SELECT 1", "FROM pairs"]
)
def test_looking_around_is_allowed(
    warehouse: Warehouse, chain: dict[str, Manifest], sql: str
) -> None:
    assert query(warehouse, sql).num_rows > 0
