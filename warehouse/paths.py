"""Where a warehouse keeps things, and the few disk operations it needs. It knows no table.

The only module that touches the file system by name: other kinds of storage start here.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from warehouse.errors import DatasetMissing, StorageFull, WarehouseError

MANIFEST_NAME = "manifest.json"
ROWS_NAME = "part-0.parquet"
_TEMPORARY = ".tmp-"
_VERSION = re.compile(r"[0-9a-f]{12}([0-9a-f]{52})?")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Layout:
    """The folders of a warehouse."""

    root: Path

    def dataset(self, dataset: str) -> Path:
        """Folder of all versions of a dataset."""
        return self.root / dataset

    def version(self, dataset: str, version: str) -> Path:
        """Folder of one version; exists only once it is committed."""
        return self.root / dataset / f"version={short_version(version)}"

    def staging(self, stage: str, version: str) -> Path:
        """Folder of the unfinished shards of one version, or of one way to cut it."""
        return self.all_staging / safe_name(stage, "stage") / safe_name(version, "version")

    @property
    def all_staging(self) -> Path:
        """Folder of everything that is not finished."""
        return self.root / ".staging"

    @property
    def runs(self) -> Path:
        """Folder of run records."""
        return self.root / "runs"

    @property
    def lock(self) -> Path:
        """Lock file; never deleted, or two processes could hold two files of that name."""
        return self.root / ".lock"


def is_url(root: str | Path) -> bool:
    """Whether a warehouse's location is a URL rather than a folder."""
    return "://" in str(root)


def local_root(root: str | Path) -> Path:
    """The local folder of a warehouse; for a URL, the folder where its versions are cached."""
    if is_url(root):
        url = str(root).rstrip("/")
        name = f"{url.rpartition('/')[2]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        return Path.home() / ".cache" / "pref" / "warehouses" / name
    return Path(root).expanduser().absolute()


def short_version(version: str) -> str:
    """Shorten a version of 12 or 64 hex digits to 12.

    Raises:
        DatasetMissing: It is neither.
    """
    if not _VERSION.fullmatch(version):
        raise DatasetMissing(
            f"version {version!r}: expected 12 hex digits; `pref datasets` lists the versions"
        )
    return version[:12]


def safe_name(name: str, kind: str) -> str:
    """Accept a text as the name of a file or folder.

    Raises:
        WarehouseError: It could lead elsewhere or hide.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise WarehouseError(
            f"{kind} {name!r}: expected letters, digits and _ . + - only, not starting with a "
            "dot; rename it"
        )
    return name


def safe_relative(name: str) -> Path:
    """Accept a text as the path of a file inside a folder, parts separated by slashes.

    Raises:
        WarehouseError: It could lead elsewhere or hide.
    """
    return Path(*(safe_name(part, f"file {name!r}: part") for part in name.split("/")))


@contextmanager
def disk_errors(what: str, root: Path) -> Iterator[None]:
    """Turn the disk's refusals into one line.

    Arrow raises its own OSError, at times without the error number, hence the look at the text.

    Raises:
        StorageFull: No space or quota left.
        WarehouseError: The folder may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or os.strerror(errno.ENOSPC) in str(error):
            raise StorageFull(
                f"warehouse {root}: no space left while writing {what}, expected free disk space; "
                "free some and run again, finished work is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WarehouseError(
                f"warehouse {root}: {os.strerror(error.errno)} while writing {what}, expected a "
                "folder that can be written; change its rights or give another --warehouse"
            ) from error
        raise


class HashingFile:
    """A new file that counts and hashes what is written; just enough for Arrow to write to."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("xb")
        self._hash = hashlib.sha256()
        self._is_discarded = False
        self.n_bytes = 0

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """Hash of everything written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Append bytes."""
        view = memoryview(data)
        if self._is_discarded:
            return view.nbytes
        self._hash.update(view)
        self.n_bytes += view.nbytes
        return self._file.write(view)

    def tell(self) -> int:
        """Position: the bytes written so far."""
        return self.n_bytes

    def flush(self) -> None:
        """Hand buffered bytes to the system."""
        self._file.flush()

    def close(self) -> None:
        """Force the bytes to the disk and close."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self.abandon()

    def discard(self) -> None:
        """Take further bytes without keeping them."""
        self._is_discarded = True

    def abandon(self) -> None:
        """Close without caring whether the bytes arrive."""
        with suppress(OSError):
            self._file.close()


def write_file(path: Path, data: bytes | Path) -> tuple[int, str]:
    """Write or copy a new file to the disk; its size in bytes and SHA-256."""
    file = HashingFile(path)
    try:
        if isinstance(data, Path):
            with data.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    file.write(chunk)
        else:
            file.write(data)
        file.close()
    finally:
        file.abandon()
    return file.n_bytes, file.sha256


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step: a reader sees the old one or the new one, never half."""
    temporary = temporary_name(path)
    try:
        write_file(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Name a file beside ``path`` that no reader looks at."""
    return path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")


def hash_file(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    digest, n_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            n_bytes += len(chunk)
    return n_bytes, digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that vanishes on leaving, unless it was renamed.

    The folder itself is locked while in use; a kill releases the lock, which tells `sweep` that
    the folder is abandoned.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder, descriptor = _held_folder(parent)
    try:
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _held_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        folder.mkdir()
        # A sweep between mkdir and flock takes the folder for an abandoned one: make another.
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def sweep(parent: Path) -> int:
    """Delete the temporary files, and the folders that no living process holds; how many.

    The caller keeps other writers away: a file does not tell whether somebody is writing it.
    """
    n_swept = 0
    for folder in sorted(parent.glob(f"{_TEMPORARY}*")):
        with suppress(OSError):
            if folder.is_file():
                folder.unlink()
                n_swept += 1
                continue
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                n_swept += 1
            finally:
                os.close(descriptor)
    return n_swept
