"""A warehouse's committed versions in object storage, at any URL that fsspec opens.

Files go under a name that holds their content's hash, the manifest last and only where there is
none, so that a version is seen whole or not at all, and of two writers one wins. It reads no rows:
versions are fetched into a local folder and read there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warehouse._version_files import corrupt_line, version_faults
from warehouse.errors import DatasetCorrupt, WarehouseError
from warehouse.manifest import Manifest
from warehouse.paths import MANIFEST_NAME, temporary_name, write_file

_STAGING = ".staging"


class Remote:
    """The versions, run records and unfinished shards of one warehouse at a URL.

    Args:
        url: Such as ``s3://bucket/warehouse``. Credentials and endpoints are the environment's,
            as the storage's own library reads them.

    Raises:
        WarehouseError: No package is installed for such a URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._told("cannot be opened"):
            import fsspec

            # Another machine's versions must be seen, hence no cache of listings.
            self._files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            self._root = str(root).rstrip("/")

    def has(self, dataset: str, version: str) -> bool:
        """Whether a version is committed."""
        with self._told(f"{dataset} {version} cannot be looked for"):
            return bool(self._files.exists(self._manifest_path(dataset, version)))

    def manifest_bytes(self, dataset: str, version: str) -> bytes | None:
        """A version's manifest; None if it is not committed."""
        return self._read(self._manifest_path(dataset, version))

    def versions(self, dataset: str) -> list[str]:
        """The committed versions of a dataset."""
        with self._told(f"{dataset} cannot be listed"):
            found = self._files.glob(f"{self._root}/{dataset}/version=*/{MANIFEST_NAME}")
        return sorted(path.split("/")[-2].removeprefix("version=") for path in found)

    def commit(self, folder: Path, manifest: Manifest) -> Manifest:
        """Stores a version's files, then its manifest where there is none yet.

        Args:
            folder: The files.
            manifest: What they are.

        Returns:
            The manifest that stands: this one, or that of whoever was first.
        """
        place = self._content_path(manifest)
        with self._told(f"{manifest.dataset} {manifest.version} cannot be written"):
            for entry in manifest.files:
                self._files.put_file(str(folder / entry.name), f"{place}/{entry.name}")
            path = self._manifest_path(manifest.dataset, manifest.version)
            try:
                self._files.pipe_file(path, manifest.to_json(), mode="create")
            except FileExistsError:
                return Manifest.from_json(self._files.cat_file(path), path)
        return manifest

    def fetch(self, manifest: Manifest, folder: Path) -> None:
        """Copies a version's files into an empty folder and checks them against their hashes.

        Raises:
            DatasetCorrupt: The stored files are not those committed.
        """
        place = self._content_path(manifest)
        with self._told(f"{manifest.dataset} {manifest.version} cannot be read"):
            for entry in manifest.files:
                (folder / entry.name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{place}/{entry.name}", str(folder / entry.name))
        faults = version_faults(folder, manifest)
        if faults:
            raise DatasetCorrupt(corrupt_line(manifest, [f"at {self.url}", *faults]))

    def remove(self, dataset: str, version: str) -> None:
        """Takes a version away: its manifest first, so that nobody finds it half gone."""
        path = self._manifest_path(dataset, version)
        with self._told(f"{dataset} {version} cannot be removed"):
            if self._files.exists(path):
                self._files.rm_file(path)
            self._drop(path.rpartition("/")[0])

    def write_run(self, path: Path) -> None:
        """Stores the record of a run, replacing an earlier one of it."""
        with self._told(f"record {path.name} cannot be written"):
            self._files.put_file(str(path), f"{self._root}/runs/{path.name}")

    def fetch_runs(self, folder: Path) -> None:
        """Copies every run's record into a folder."""
        with self._told("runs cannot be listed"):
            found = self._files.glob(f"{self._root}/runs/*.json")
        for path in found:
            self._fetch_file(path, folder)

    def write_shard(self, stage: str, version: str, path: Path) -> None:
        """Stores a finished shard."""
        with self._told(f"shard {path.name} of {stage} cannot be written"):
            self._files.put_file(str(path), f"{self._staging(stage, version)}/{path.name}")

    def fetch_shards(self, stage: str, version: str, folder: Path) -> None:
        """Copies the shards that a folder lacks into it."""
        with self._told(f"shards of {stage} cannot be listed"):
            found = self._files.glob(f"{self._staging(stage, version)}/shard-*.parquet")
        for path in found:
            if not (folder / path.rpartition("/")[2]).exists():
                self._fetch_file(path, folder)

    def clear_shards(self, stage: str, version: str) -> None:
        """Deletes a version's shards, if there are any."""
        with self._told(f"shards of {stage} cannot be removed"):
            self._drop(self._staging(stage, version))

    def unfinished(self) -> set[tuple[str, str]]:
        """(stage, version) of everything that has shards."""
        with self._told("shards cannot be listed"):
            found = self._files.glob(f"{self._root}/{_STAGING}/*/*/shard-*.parquet")
        return {(path.split("/")[-3], path.split("/")[-2]) for path in found}

    def write_record(self, kind: str, name: str, data: bytes) -> None:
        """Stores a small file beside the datasets, replacing an earlier one of its name."""
        with self._told(f"{kind} {name} cannot be written"):
            self._files.pipe_file(f"{self._root}/{kind}/{name}", data)

    def records(self, kind: str) -> dict[str, bytes]:
        """Every such file of a kind, by name."""
        with self._told(f"{kind} cannot be listed"):
            found = self._files.glob(f"{self._root}/{kind}/*.json")
        data = {path.rpartition("/")[2]: self._read(path) for path in sorted(found)}
        return {name: one for name, one in data.items() if one is not None}

    def remove_record(self, kind: str, name: str) -> None:
        """Takes such a file away, if it is there."""
        with self._told(f"{kind} {name} cannot be removed"):
            self._drop(f"{self._root}/{kind}/{name}")

    def _fetch_file(self, path: str, folder: Path) -> None:
        final = folder / path.rpartition("/")[2]
        data = self._read(path)
        if data is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(final)
        try:
            write_file(temporary, data)
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, path: str) -> bytes | None:
        with self._told(f"{path} cannot be read"):
            try:
                return bytes(self._files.cat_file(path))
            except FileNotFoundError:
                return None

    def _drop(self, place: str) -> None:
        if self._files.exists(place):
            self._files.rm(place, recursive=True)

    def _manifest_path(self, dataset: str, version: str) -> str:
        return f"{self._root}/{dataset}/version={version}/{MANIFEST_NAME}"

    def _content_path(self, manifest: Manifest) -> str:
        place = self._manifest_path(manifest.dataset, manifest.version).rpartition("/")[0]
        return f"{place}/content={manifest.content_sha256}"

    def _staging(self, stage: str, version: str) -> str:
        return f"{self._root}/{_STAGING}/{stage}/{version}"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Each storage has errors of its own, and all of them mean one of a few things."""
        try:
            yield
        except WarehouseError:
            raise
        except Exception as error:
            raise WarehouseError(_line(self.url, what, error)) from error


def _line(url: str, what: str, error: Any) -> str:
    if isinstance(error, ImportError):
        return (
            f"warehouse {url}: {what}, a package for such URLs is missing ({error}); expected one"
            " of fsspec's; for s3:// pip install 'pref-pipeline[s3]'"
        )
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        reason = os.strerror(error.errno)
    return (
        f"warehouse {url}: {what} ({reason}), expected storage that may be read and written;"
        " check the address and the credentials in the environment"
    )
