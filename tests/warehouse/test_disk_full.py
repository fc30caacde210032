import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from warehouse.errors import StorageFull, WarehouseError
from warehouse.manifest import Manifest, Provenance
from warehouse.paths import HashingFile, disk_errors
from warehouse.runs import RunRecord
from warehouse.store import Warehouse, open_warehouse

Provenances = Callable[..., Provenance]
N_ROWS = 70_000


def noise_rows() -> pa.Table:
    ids = [os.urandom(16).hex() for _ in range(N_ROWS)]
    return pa.table({"prompt_id": ids, "prompt_text": ids, "prompt_source": ids})


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a tiny file system needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let tests mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_one_line_and_nothing_else(
    tiny_disk: Path, provenance: Provenances, prompts: Callable[..., pa.Table]
) -> None:
    warehouse = open_warehouse(tiny_disk)
    kept = warehouse.commit("prompts", provenance("ingest"), prompts())
    with pytest.raises(StorageFull) as caught:
        warehouse.commit("prompts", provenance("ingest", config={"n": 2}), noise_rows())
    line = str(caught.value)
    assert line.startswith(f"warehouse {tiny_disk}: no space left while writing dataset prompts")
    assert "\n" not in line
    assert caught.value.exit_code == 1
    assert warehouse.manifests() == [kept]
    assert [path.name for path in (tiny_disk / "prompts").iterdir()] == [f"version={kept.version}"]
    warehouse.verify(kept)


def test_a_full_disk_stops_shards_files_and_records_alike(
    tiny_disk: Path, provenance: Provenances, prompts: Callable[..., pa.Table]
) -> None:
    warehouse = open_warehouse(tiny_disk)
    with pytest.raises(StorageFull, match="shard 0 of stage judge"):
        warehouse.write_shard("judge", "abc", 0, noise_rows())
    assert list(warehouse.staging("judge", "abc").iterdir()) == []
    with pytest.raises(StorageFull, match="dataset prompts"):
        warehouse.commit("prompts", provenance("ingest"), prompts(), {"big": bytes(2_000_000)})
    record = RunRecord(
        run_id="r",
        flow="f",
        started_at=provenance("x").started_at,
        finished_at=None,
        datasets={},
        is_complete=False,
        config={"note": "x" * 2_000_000},
    )
    with pytest.raises(StorageFull, match="the record of run r"):
        warehouse.record_run(record)
    assert warehouse.runs() == []


@pytest.mark.parametrize("n_good_bytes", [0, 10, 500, 1000])
def test_space_may_end_at_any_byte(
    warehouse: Warehouse,
    chain: dict[str, Manifest],
    provenance: Provenances,
    prompts: Callable[..., pa.Table],
    monkeypatch: pytest.MonkeyPatch,
    n_good_bytes: int,
) -> None:
    write = HashingFile.write

    def limited(self: HashingFile, data: bytes) -> int:
        if self.n_bytes + len(data) > n_good_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(HashingFile, "write", limited)
    with pytest.raises(StorageFull):
        warehouse.commit("prompts", provenance("ingest", config={"n": 2}), prompts())
    monkeypatch.undo()
    assert warehouse.manifests("prompts") == [chain["prompts"]]
    assert not list(warehouse.root.glob("*/.tmp-*"))


def test_space_may_end_when_the_file_is_forced_to_the_disk(
    warehouse: Warehouse,
    provenance: Provenances,
    prompts: Callable[..., pa.Table],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        warehouse.commit("prompts", provenance("ingest"), prompts())
    assert warehouse.manifests() == []


def test_arrow_hides_the_error_number_but_not_the_text(tmp_path: Path) -> None:
    with pytest.raises(StorageFull), disk_errors("x", tmp_path):
        raise OSError("Error writing bytes to file. Detail: [errno 28] No space left on device")


def test_a_folder_that_may_not_be_written_gives_one_line(tmp_path: Path) -> None:
    expected = "expected a folder that can be written"
    with pytest.raises(WarehouseError, match=expected), disk_errors("x", tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_other_disk_errors_are_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors("x", tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")
