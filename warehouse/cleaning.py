"""Which dataset versions nothing refers to any more, and their removal. It leaves the ledger alone.

Removed versions can be made again without a call: every reply stays in the ledger.
"""

from collections import defaultdict

from warehouse.manifest import Manifest
from warehouse.store import Warehouse


def unreferenced(warehouse: Warehouse, keep_runs: int) -> list[Manifest]:
    """Versions that no kept run made or used, and that no kept version was made from.

    Kept are, of each flow, the last complete runs and whatever began after them, and the current
    version of every dataset.

    Args:
        warehouse: Where to look.
        keep_runs: Complete runs kept of each flow, at least 1.
    """
    kept = set(warehouse.current().items())
    complete: dict[str, int] = defaultdict(int)
    for run in reversed(warehouse.runs()):
        if complete[run.flow] < keep_runs:
            kept |= set(run.datasets.items())
        complete[run.flow] += run.is_complete
    manifests = {(one.dataset, one.version): one for one in warehouse.manifests()}
    waiting = [key for key in kept if key in manifests]
    reached: set[tuple[str, str]] = set()
    while waiting:
        key = waiting.pop()
        if key not in reached and key in manifests:
            reached.add(key)
            waiting += list(manifests[key].parents.items())
    return [one for key, one in manifests.items() if key not in reached]


def clean(warehouse: Warehouse, keep_runs: int) -> list[Manifest]:
    """Removes what `unreferenced` finds, while no run is at work.

    Returns:
        What was removed.

    Raises:
        WarehouseBusy: A run is at work there.
    """
    with warehouse.lock():
        found = unreferenced(warehouse, keep_runs)
        for one in found:
            warehouse.remove(one)
    return found
