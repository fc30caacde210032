"""Dataset versions copied into a folder to publish, all at once or not at all. It names no licence.

The files are those that were committed, byte for byte, so their hashes are the manifests'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from warehouse.croissant import Exported
from warehouse.errors import DatasetCorrupt, WarehouseError
from warehouse.manifest import Manifest
from warehouse.paths import ROWS_NAME, disk_errors, sync_folder, temporary_folder, write_file
from warehouse.store import Warehouse

Pages = Callable[[Sequence[Exported]], Mapping[str, bytes]]


def data_path(dataset: str) -> str:
    """Where a dataset's rows lie in an export, as Hugging Face's loaders look for them."""
    return f"data/{dataset}/train-00000-of-00001.parquet"


def export(
    warehouse: Warehouse, manifests: Sequence[Manifest], target: Path, pages: Pages
) -> list[Exported]:
    """Writes rows and pages into a new folder.

    Args:
        warehouse: Where the versions are.
        manifests: Which to export.
        target: A folder that does not exist yet, or an empty one.
        pages: Makes the other files, by name, of what was exported.

    Raises:
        WarehouseError: The target holds something, or cannot be made.
        DatasetCorrupt: A file is not what was committed.
        StorageFull: No space left.
    """
    target = target.expanduser().absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise WarehouseError(
            f"export {target}: found {'a file' if target.is_file() else 'a folder with something'}"
            f"{'' if target.is_file() else ' in it'}, expected a new or empty folder; give another"
            " --to, or empty it"
        )
    if not manifests:
        raise WarehouseError(
            f"export {target}: no dataset, expected at least one; run a flow first, or name some"
        )
    for manifest in manifests:
        warehouse.verify(manifest)
    with disk_errors("the export", target.parent):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise WarehouseError(
                f"export {target}: found a file where its folder would be, expected a folder; give"
                " another --to"
            ) from None
        with temporary_folder(target.parent) as folder:
            exported = [_copied(warehouse, manifest, folder) for manifest in manifests]
            for name, data in pages(exported).items():
                write_file(folder / name, data)
            sync_folder(folder)
            # Onto an empty folder this is still one step; a folder filled meanwhile refuses it.
            folder.rename(target)
        sync_folder(target.parent)
    return exported


def _copied(warehouse: Warehouse, manifest: Manifest, folder: Path) -> Exported:
    path = data_path(manifest.dataset)
    (folder / path).parent.mkdir(parents=True)
    source = warehouse.file_path(manifest.dataset, manifest.version)
    entry = next(one for one in manifest.files if one.name == ROWS_NAME)
    n_bytes, sha256 = write_file(folder / path, source)
    if (n_bytes, sha256) != (entry.n_bytes, entry.sha256):
        raise DatasetCorrupt(
            f"dataset {manifest.dataset} {manifest.version}: {source} changed while it was copied,"
            " expected the bytes that were committed; run `pref audit`"
        )
    return Exported(manifest, path, entry)
