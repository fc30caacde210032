import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import _parquet
from warehouse._parquet import ROW_GROUP_ROWS
from warehouse.errors import CheckFailed, DatasetCorrupt, DatasetMissing, WarehouseError
from warehouse.manifest import Manifest, Provenance
from warehouse.runs import RunRecord
from warehouse.store import Warehouse, open_warehouse

Prompts = Callable[..., pa.Table]
Provenances = Callable[..., Provenance]
ROOT = Path(__file__).resolve().parents[2]


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_read_is_what_was_committed(
    warehouse: Warehouse, chain: dict[str, Manifest], judgments: Callable[..., pa.Table]
) -> None:
    version = chain["judgments"].version
    expected = judgments().to_pylist()
    assert warehouse.read("judgments", version).to_pylist() == expected
    assert pa.Table.from_batches(warehouse.batches("judgments", version)).to_pylist() == expected
    some = warehouse.read("judgments", version, ["verdict", "pair_id"])
    assert some.to_pylist() == [
        {"verdict": row["verdict"], "pair_id": row["pair_id"]} for row in expected
    ]


def test_a_version_is_a_manifest_and_parquet_that_anyone_can_read(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    manifest = chain["prompts"]
    folder = warehouse.root / "prompts" / f"version={manifest.version}"
    assert everything_in(folder) == ["manifest.json", "part-0.parquet"]
    stored = pq.read_schema(folder / "part-0.parquet").field("prompt_text")
    assert not stored.nullable
    assert b"description" in stored.metadata


def test_manifest_counts_rows_and_bytes(warehouse: Warehouse, chain: dict[str, Manifest]) -> None:
    for manifest in chain.values():
        assert warehouse.manifest(manifest.dataset, manifest.version) == manifest
        assert manifest.n_rows == warehouse.read(manifest.dataset, manifest.version).num_rows
        sizes = [
            warehouse.file_path(manifest.dataset, manifest.version, entry.name).stat().st_size
            for entry in manifest.files
        ]
        assert manifest.n_bytes == sum(sizes)
        warehouse.verify(manifest)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 16))
def test_batching_leaves_no_trace_in_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    n_rows = sum(sizes)
    rows = pa.table(
        {
            "text": [None if index % 5 == 0 else "x" * (index % 7) for index in range(n_rows)],
            "vector": pa.array([[0.5] * (i % 3) for i in range(n_rows)], pa.list_(pa.float32())),
        },
        schema=pa.schema([("text", pa.string()), ("vector", pa.list_(pa.float32()))]),
    )
    pieces, start = [], 0
    for size in sizes:
        pieces.append(rows.slice(start, size))
        start += size
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parquet, "ROW_GROUP_ROWS", group_rows)
        for name, parts in [("whole", [rows]), ("pieces", pieces)]:
            file = _parquet.RowsFile(folder / name, rows.schema)
            for group in _parquet.row_groups(parts):
                file.write(group)
            file.close()
            written.append((folder / name).read_bytes())
    assert written[0] == written[1]
    assert pq.ParquetFile(folder / "whole").num_row_groups == -(-n_rows // group_rows)


def test_row_groups_are_full_whatever_the_batches(
    tmp_path: Path, prompts: Prompts, provenance: Provenances
) -> None:
    rows = prompts(ROW_GROUP_ROWS + 10)
    contents = set()
    for index, size in enumerate([1_000, 77_777, ROW_GROUP_ROWS]):
        warehouse = open_warehouse(tmp_path / str(index))
        done = warehouse.commit("prompts", provenance("ingest"), rows.to_batches(size))
        contents.add(done.content_sha256)
        path = warehouse.file_path("prompts", done.version)
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(one).num_rows for one in range(2)] == [ROW_GROUP_ROWS, 10]
    assert len(contents) == 1


def test_an_empty_dataset_can_be_stored(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    for rows in (prompts().slice(0, 0), []):
        manifest = warehouse.commit("prompts", provenance("ingest"), rows)
        assert manifest.n_rows == 0
        assert warehouse.read("prompts", manifest.version).num_rows == 0


def test_committing_again_keeps_the_first(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    first = warehouse.commit("prompts", provenance("ingest"), prompts())
    again = warehouse.commit(
        "prompts", provenance("ingest", flow_run_id="run-2"), prompts().to_batches(1)
    )
    assert again == first
    assert again.flow_run_id == "run-1"
    assert len(everything_in(warehouse.root / "prompts")) == 3


def test_other_rows_from_the_same_inputs_are_refused(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    first = warehouse.commit("prompts", provenance("ingest"), prompts(2))
    with pytest.raises(DatasetCorrupt) as caught:
        warehouse.commit("prompts", provenance("ingest"), prompts(3))
    assert "(2 rows)" in str(caught.value)
    assert "(3 rows)" in str(caught.value)
    assert warehouse.manifests() == [first]
    assert warehouse.read("prompts", first.version).num_rows == 2


def test_writers_of_the_same_version_at_once_agree_on_one(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    with ThreadPoolExecutor(8) as pool:
        commits = [
            pool.submit(
                warehouse.commit, "prompts", provenance("ingest", flow_run_id=str(run)), prompts()
            )
            for run in range(8)
        ]
        found = {commit.result().flow_run_id for commit in commits}
    assert len(found) == 1
    assert [manifest.flow_run_id for manifest in warehouse.manifests()] == list(found)
    assert len(list((warehouse.root / "prompts").iterdir())) == 1


def test_a_folder_without_manifest_is_neither_read_nor_overwritten(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    done = warehouse.commit("prompts", provenance("ingest"), prompts())
    folder = warehouse.folder("prompts", done.version)
    (folder / "manifest.json").unlink()
    assert warehouse.current() == {}
    with pytest.raises(DatasetCorrupt, match=r"has no manifest\.json.*delete the folder"):
        warehouse.commit("prompts", provenance("ingest"), prompts())


def test_rows_that_break_constraints_are_not_stored(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    rows = pa.concat_tables([prompts(), prompts().slice(0, 1)])
    rows = rows.set_column(1, "prompt_text", pa.array([None, "b", "c"]))
    with pytest.raises(CheckFailed) as caught:
        warehouse.commit("prompts", provenance("ingest"), rows)
    line = str(caught.value)
    assert "prompt_text is null in 1 row (prompt_id=p1)" in line
    assert "key (prompt_id) is not unique in 2 rows (prompt_id=p1)" in line
    assert "\n" not in line
    assert everything_in(warehouse.root / "prompts") == []


def test_foreign_keys_into_parents_are_checked_on_commit(
    warehouse: Warehouse, chain: dict[str, Manifest], provenance: Provenances
) -> None:
    parents = {name: chain[name].version for name in ("personas", "pairs")}
    rows = pa.table({"persona_id": ["concise+polite", "nobody"], "pair_id": ["q1", "q9"]})
    with pytest.raises(CheckFailed) as caught:
        warehouse.commit("design", provenance("design", parents), rows)
    assert "persona_id names no personas.persona_id in 1 row (persona_id=nobody" in str(
        caught.value
    )
    assert "pair_id names no pairs.pair_id in 1 row" in str(caught.value)


def test_a_parent_must_be_in_the_warehouse(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    with pytest.raises(DatasetMissing, match="parent dataset personas 000000000000"):
        warehouse.commit("prompts", provenance("ingest", {"personas": "0" * 12}), prompts())


def test_an_exception_in_the_rows_leaves_nothing(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from prompts(ROW_GROUP_ROWS + 1).to_batches()
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        warehouse.commit("prompts", provenance("ingest"), broken())
    assert everything_in(warehouse.root / "prompts") == []
    assert warehouse.current() == {}


KILLED_WRITER = """
import os, sys
from datetime import UTC, datetime
import pyarrow as pa
from warehouse.manifest import Provenance
from warehouse.store import open_warehouse

def rows():
    n = 70_000
    ids = [str(i) for i in range(n)]
    yield pa.record_batch({"prompt_id": ids, "prompt_text": ids, "prompt_source": ids})
    print("written", flush=True)
    sys.stdin.readline()

provenance = Provenance(stage="ingest", code_sha256="", config={}, parents={}, libraries={},
                        flow_run_id="r", started_at=datetime.now(UTC))
open_warehouse(sys.argv[1]).commit("prompts", provenance, rows())
"""


def test_a_killed_writer_leaves_no_dataset_and_the_next_opening_sweeps(
    tmp_path: Path, prompts: Prompts, provenance: Provenances
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"written\n"
        # While the writer lives, opening must not sweep its work away.
        assert open_warehouse(tmp_path).manifests() == []
        assert len(list((tmp_path / "prompts").glob(".tmp-*"))) == 1
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert len(list((tmp_path / "prompts").glob(".tmp-*"))) == 1
    warehouse = open_warehouse(tmp_path)
    assert everything_in(tmp_path / "prompts") == []
    assert warehouse.manifests() == []
    assert warehouse.commit("prompts", provenance("ingest"), prompts()).n_rows == 2


def test_a_run_killed_while_it_wrote_its_record_leaves_nothing_behind(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    left = runs / ".tmp-r1.json-abc"
    left.write_bytes(b"{")
    assert open_warehouse(tmp_path).runs() == []
    assert not left.exists()


def test_sweeping_waits_while_a_run_holds_the_warehouse(warehouse: Warehouse) -> None:
    left = warehouse.root / "prompts" / ".tmp-left"
    left.mkdir(parents=True)
    with warehouse.lock():
        open_warehouse(warehouse.root)
        assert left.exists()
    open_warehouse(warehouse.root)
    assert not left.exists()


def test_any_flipped_byte_is_found(warehouse: Warehouse, chain: dict[str, Manifest]) -> None:
    manifest = chain["judgments"]
    path = warehouse.file_path("judgments", manifest.version)
    good = path.read_bytes()
    for position in range(0, len(good), 97):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(DatasetCorrupt, match=r"part-0\.parquet has changed bytes"):
            warehouse.verify(manifest)
    path.write_bytes(good)
    warehouse.verify(manifest)


def test_a_file_gone_cut_or_added_is_found(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    manifest = warehouse.commit("prompts", provenance("ingest"), prompts(), {"a/b.bin": b"123"})
    path = warehouse.file_path("prompts", manifest.version, "a/b.bin")
    path.write_bytes(b"12")
    path.with_name("extra").write_bytes(b"")
    with pytest.raises(DatasetCorrupt) as caught:
        warehouse.verify(manifest)
    assert "a/b.bin has 2 bytes instead of 3; a/extra does not belong there" in str(caught.value)
    path.unlink()
    with pytest.raises(DatasetCorrupt, match=r"a/b\.bin is gone"):
        warehouse.folder("prompts", manifest.version)


def test_a_moved_version_is_not_taken_for_another(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    manifest = chain["prompts"]
    folder = warehouse.root / "prompts" / f"version={manifest.version}"
    folder.rename(folder.with_name("version=000000000000"))
    with pytest.raises(DatasetCorrupt, match="expected prompts 000000000000"):
        warehouse.manifest("prompts", "0" * 12)


def test_damaged_parquet_gives_one_line(warehouse: Warehouse, chain: dict[str, Manifest]) -> None:
    version = chain["prompts"].version
    path = warehouse.file_path("prompts", version)
    path.write_bytes(bytes(path.stat().st_size))
    for read in (warehouse.read, lambda *args: list(warehouse.batches(*args))):
        with pytest.raises(DatasetCorrupt) as caught:
            read("prompts", version)
        assert "\n" not in str(caught.value)


def test_files_beside_the_rows_are_kept_and_hashed(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances, tmp_path: Path
) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w" * 3_000_000)
    manifest = warehouse.commit(
        "prompts", provenance("ingest"), prompts(), {"pref/model.bin": source, "a.json": b"{}"}
    )
    assert [entry.name for entry in manifest.files] == [
        "a.json", "part-0.parquet", "pref/model.bin",
    ]  # fmt: skip
    stored = warehouse.file_path("prompts", manifest.version, "pref/model.bin")
    assert stored.read_bytes() == source.read_bytes()
    assert warehouse.folder("prompts", manifest.version) / "pref/model.bin" == stored


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a//b", "", ".hidden", "manifest.json", "part-0.parquet"]
)
def test_a_file_cannot_be_put_elsewhere(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances, name: str
) -> None:
    with pytest.raises(WarehouseError):
        warehouse.commit("prompts", provenance("ingest"), prompts(), {name: b""})
    assert warehouse.manifests() == []


def test_what_is_missing_is_named_with_what_there_is(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    version = chain["prompts"].version
    with pytest.raises(DatasetMissing, match=f"expected one of {version}"):
        warehouse.read("prompts", "0" * 12)
    with pytest.raises(DatasetMissing, match="it has no version yet"):
        warehouse.manifest("auc", "0" * 12)
    with pytest.raises(DatasetMissing, match="no column colour, expected some of prompt_id"):
        warehouse.read("prompts", version, ["colour"])
    with pytest.raises(DatasetMissing, match="no file 'x', expected one of part-0"):
        warehouse.file_path("prompts", version, "x")
    with pytest.raises(DatasetMissing, match="expected 12 hex digits"):
        warehouse.has("prompts", "../../etc")
    with pytest.raises(DatasetMissing, match="is not known"):
        warehouse.has("../etc", version)


def test_long_and_short_versions_name_the_same(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    manifest = chain["prompts"]
    assert warehouse.has("prompts", manifest.version_sha256)
    assert warehouse.manifest("prompts", manifest.version_sha256) == manifest


def test_a_place_that_cannot_be_a_warehouse_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file" / "x", tmp_path / "file"):
        with pytest.raises(WarehouseError) as caught:
            open_warehouse(root)
        assert "expected a" in str(caught.value)
    assert everything_in(tmp_path) == ["file"]


def test_a_reader_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="no such folder"):
        open_warehouse(tmp_path / "typo", create=False)
    assert everything_in(tmp_path) == []


def test_shards_come_back_by_index_with_their_metadata(warehouse: Warehouse) -> None:
    for index in (10, 2, 0):
        rows = pa.table({"x": [index]}).replace_schema_metadata({"count": str(index)})
        warehouse.write_shard("judge", "abc-200", index, rows)
    warehouse.write_shard("judge", "abc-200", 2, pa.table({"x": [22]}))
    (warehouse.staging("judge", "abc-200") / ".tmp-shard-000001.parquet-x").write_bytes(b"half")
    found = [table["x"].to_pylist() for table in warehouse.read_shards("judge", "abc-200")]
    assert found == [[0], [22], [10]]
    assert warehouse.shard_indices("judge", "abc-200") == (0, 2, 10)
    schema = warehouse.shard_schema("judge", "abc-200", 10)
    assert schema is not None
    assert schema.metadata[b"count"] == b"10"
    assert warehouse.shard_schema("judge", "abc-200", 1) is None
    warehouse.clear_staging("judge", "abc-200")
    assert list(warehouse.read_shards("judge", "abc-200")) == []
    assert warehouse.shard_indices("judge", "abc-100") == ()


def test_a_damaged_shard_gives_one_line(warehouse: Warehouse) -> None:
    path = warehouse.write_shard("judge", "abc", 0, pa.table({"x": [1]}))
    path.write_bytes(path.read_bytes()[:-3])
    for read in (
        lambda: list(warehouse.read_shards("judge", "abc")),
        lambda: warehouse.shard_schema("judge", "abc", 0),
    ):
        with pytest.raises(DatasetCorrupt, match="shard-000000"):
            read()


def run_of(manifest: Manifest, run_id: str, is_complete: bool = True) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        flow="attributes",
        started_at=manifest.started_at,
        finished_at=manifest.finished_at,
        datasets={manifest.dataset: manifest.version},
        is_complete=is_complete,
        config={"seed": 0},
    )


def test_current_is_the_newest_run_then_the_newest_manifest(
    warehouse: Warehouse, prompts: Prompts, provenance: Provenances
) -> None:
    made = [
        warehouse.commit("prompts", provenance("ingest", config={"n": n}), prompts(n))
        for n in (1, 2, 3)
    ]
    assert warehouse.current() == {"prompts": made[2].version}
    warehouse.record_run(run_of(made[0], "run-a"))
    assert warehouse.current() == {"prompts": made[0].version}
    warehouse.record_run(run_of(made[1], "run-b", is_complete=False))
    assert warehouse.current() == {"prompts": made[1].version}
    assert [run.run_id for run in warehouse.runs()] == ["run-a", "run-b"]
    # A version that was deleted since is passed over.
    (warehouse.root / "prompts" / f"version={made[1].version}" / "manifest.json").unlink()
    assert warehouse.current() == {"prompts": made[0].version}


def test_a_run_record_comes_back_and_is_replaced_by_a_later_one(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    first = run_of(chain["prompts"], "run-1", is_complete=False)
    warehouse.record_run(first)
    assert warehouse.runs() == [first]
    path = warehouse.record_run(run_of(chain["prompts"], "run-1"))
    assert [run.is_complete for run in warehouse.runs()] == [True]
    path.write_text(path.read_text().replace('"flow"', '"flaw"'))
    with pytest.raises(DatasetCorrupt, match="key 'flow' missing, key 'flaw' unknown"):
        warehouse.runs()
    with pytest.raises(WarehouseError, match=r"run '\.\./x'"):
        warehouse.record_run(run_of(chain["prompts"], "../x"))


def test_manifests_are_listed_oldest_first(
    warehouse: Warehouse, chain: dict[str, Manifest]
) -> None:
    listed = warehouse.manifests()
    assert {manifest.dataset: manifest for manifest in listed} == chain
    assert warehouse.manifests("pairs") == [chain["pairs"]]
    times = [manifest.finished_at for manifest in listed]
    assert len(set(times)) == len(times)


@pytest.mark.slow
def test_large_datasets_stream_in_bounded_memory(tmp_path: Path) -> None:
    # 40 groups of 16 MB each: holding them all would pass the address space allowed.
    script = f"""
import resource, sys
from datetime import UTC, datetime
import pyarrow as pa
from warehouse.manifest import Provenance
from warehouse.store import open_warehouse
import warehouse.views, warehouse.lineage

def rows():
    for start in range(0, 40 * 65_536, 8_192):
        ids = pa.array([str(i) for i in range(start, start + 8_192)])
        text = pa.array(["%0250d" % i for i in range(start, start + 8_192)])
        yield pa.record_batch({{"prompt_id": ids, "prompt_text": text, "prompt_source": ids}})

w = open_warehouse({str(tmp_path)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
p = Provenance(stage="ingest", code_sha256="", config={{}}, parents={{}}, libraries={{}},
               flow_run_id="r", started_at=datetime.now(UTC))
w.commit("prompts", p, rows())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 400, f"{done.stdout} MB of 690 MB of rows"
