import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.forgetting import forget
from tests.s3 import s3_server
from warehouse.errors import DatasetCorrupt, DatasetMissing, WarehouseError
from warehouse.forget import affected, find_person
from warehouse.forgotten import is_forgotten, marks
from warehouse.manifest import Provenance
from warehouse.remote import Remote
from warehouse.store import Warehouse, open_warehouse
from warehouse.tables import TABLES
from warehouse.views import query

Machines = Callable[[str], Warehouse]
Provenances = Callable[..., Provenance]
Prompts = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as env:
        yield env


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
    return f"{request.param}://team/{uuid.uuid4().hex}"


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Machines:
    """A warehouse at one URL as machines see it, each with a folder of its own."""

    def at(name: str) -> Warehouse:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Warehouse(folder, remote=Remote(url))

    return at


def stored(url: str) -> list[str]:
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root) for path in files.find(root))


def same(warehouse: Warehouse, version: str, rows: pa.Table) -> bool:
    found = warehouse.read("prompts", version).to_pylist()
    return bool(found == rows.to_pylist())


def test_what_one_machine_commits_another_reads(
    machine: Machines, url: str, provenance: Provenances, prompts: Prompts
) -> None:
    made = machine("one").commit("prompts", provenance("ingest"), prompts(), {"more/a.txt": b"a"})
    other = machine("other")
    assert other.has("prompts", made.version)
    assert other.manifests() == [made]
    assert other.current() == {"prompts": made.version}
    assert not list(other.root.glob("prompts/version=*"))
    assert same(other, made.version, prompts())
    assert other.file_path("prompts", made.version, "more/a.txt").read_bytes() == b"a"
    other.verify(made)
    assert query(other, "select count(*) as n from prompts").to_pylist() == [
        {"n": prompts().num_rows}
    ]
    content = f"/prompts/version={made.version}/content={made.content_sha256}"
    assert stored(url) == [
        f"{content}/more/a.txt",
        f"{content}/part-0.parquet",
        f"/prompts/version={made.version}/manifest.json",
    ]


def test_of_two_writers_of_one_version_the_first_stands(
    machine: Machines, provenance: Provenances, prompts: Prompts
) -> None:
    first = machine("one").commit("prompts", provenance("ingest"), prompts())
    other = machine("other")
    # It did not know of the first when it began.
    later = other.commit("prompts", provenance("ingest"), prompts())
    assert later == first == other.manifest("prompts", first.version)
    other.verify(first)
    changed = prompts().slice(0, prompts().num_rows - 1)
    with pytest.raises(DatasetCorrupt, match="expected the same from the same inputs"):
        machine("third").commit("prompts", provenance("ingest"), changed)
    assert same(machine("fourth"), first.version, prompts())


def test_a_version_whose_writer_dies_before_the_manifest_is_not_there(
    machine: Machines,
    provenance: Provenances,
    prompts: Prompts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = machine("one")

    def dies(*_: object, **__: object) -> None:
        raise OSError("the line was cut")

    with monkeypatch.context() as patch:
        patch.setattr(one._remote._files, "pipe_file", dies)  # type: ignore[union-attr]
        with pytest.raises(WarehouseError, match=r"cannot be written \(the line was cut\)"):
            one.commit("prompts", provenance("ingest"), prompts())
    assert one.manifests() == machine("other").manifests() == []
    assert not list(one.root.glob("prompts/*"))
    made = machine("other").commit("prompts", provenance("ingest"), prompts())
    assert same(one, made.version, prompts())


def test_a_changed_byte_in_storage_is_found_when_it_is_fetched(
    machine: Machines, url: str, provenance: Provenances, prompts: Prompts
) -> None:
    import fsspec

    made = machine("one").commit("prompts", provenance("ingest"), prompts())
    files, root = fsspec.core.url_to_fs(url)
    [path] = files.glob(f"{root}/prompts/version=*/content=*/part-0.parquet")
    data = bytearray(files.cat_file(path))
    data[len(data) // 2] ^= 1
    files.pipe_file(path, bytes(data))
    other = machine("other")
    with pytest.raises(DatasetCorrupt, match=f"at {url}; part-0.parquet has changed bytes"):
        other.read("prompts", made.version)
    assert not list(other.root.glob("prompts/*"))


def test_shards_and_runs_are_shared_and_removal_is_for_all(
    machine: Machines, provenance: Provenances, prompts: Prompts
) -> None:
    one, other = machine("one"), machine("other")
    rows = pa.table({"n": [1, 2]})
    one.write_shard("judge", "abc-200", 1, rows)
    other.write_shard("judge", "abc-200", 0, rows.slice(0, 1))
    assert one.shard_indices("judge", "abc-200") == (0, 1)
    assert [part.num_rows for part in other.read_shards("judge", "abc-200")] == [1, 2]
    one.clear_staging("judge", "abc-200")
    assert machine("third").shard_indices("judge", "abc-200") == ()
    made = one.commit("prompts", provenance("ingest"), prompts())
    other.read("prompts", made.version)
    one.remove(made)
    assert not other.has("prompts", made.version)
    assert other.manifests() == []


def test_a_url_that_nothing_opens_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WarehouseError, match=r"nowhere://x/y: cannot be opened") as caught:
        open_warehouse("nowhere://x/y")
    assert "\n" not in str(caught.value)


def test_a_url_has_a_folder_of_copies_under_home(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = open_warehouse("memory://a/b")
    assert found.location == "memory://a/b"
    assert found.root.parent == tmp_path / ".cache" / "pref" / "warehouses"
    assert open_warehouse("memory://a/c").root != found.root
    with pytest.raises(DatasetMissing, match="not in warehouse memory://a/b"):
        found.manifest("prompts", "0" * 12)


def test_who_was_forgotten_on_one_machine_is_known_on_another(
    machine: Machines, url: str, provenance: Provenances
) -> None:
    one, other = machine("one"), machine("other")
    person = {"persona_id": "u1", "persona_kind": "own", "profile_text": "Someone at length, " * 5}
    rows = pa.Table.from_pylist([person], TABLES["personas"].schema)
    one.commit("personas", provenance("ingest"), rows)
    one.write_shard("judge", "a" * 12, 0, rows)
    found = find_person(other, "u1")
    assert [each.manifest.dataset for each in affected(other, found, ())] == ["personas"]
    assert other.unfinished() == [("judge", "a" * 12)]
    done = forget(other, "u1", is_real=True)
    assert done.is_done
    assert marks(one, ["own"])
    assert is_forgotten("u1", marks(one, ["own"]))
    assert [path for path in stored(url) if not path.startswith("/forgotten/")] == []
