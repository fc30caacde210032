"""The audit of a whole warehouse, its call ledger included."""

from __future__ import annotations

from typing import Any

from tasks._cards import SHOWN
from tasks._settings import read_environment
from tasks._stages.data_checks import told
from warehouse.audit import Finding, audit
from warehouse.errors import DatasetMissing
from warehouse.store import Warehouse


def audit_all(warehouse: Warehouse) -> tuple[int, list[Finding]]:
    """Verifies every dataset version and its links to the ledger.

    Returns:
        How many versions were looked at, and what was found.

    Raises:
        LedgerError: The ledger itself cannot be read.
    """
    warehouse.fetch_all()
    n_versions = len(list(warehouse.root.glob("*/version=*")))
    url = ledger_url(warehouse)
    if url is None:
        return n_versions, list(audit(warehouse))
    from warehouse.ledger import open_ledger

    with open_ledger(url) as ledger:
        return n_versions, list(audit(warehouse, ledger.held))


def ledger_url(warehouse: Warehouse) -> str | None:
    """Where the calls behind a warehouse are kept; None where none was ever made."""
    path = warehouse.root / "ledger.sqlite"
    return read_environment().ledger_url or (str(path) if path.is_file() else None)


def audit_checks(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Checks of the current run that failed or warned; see `tasks._stages.data_checks`.

    Returns:
        ``outcome`` and ``told`` of each; nothing where no run has checked yet.
    """
    version = warehouse.current().get("data_checks")
    if version is None:
        return []
    rows = warehouse.read("data_checks", version).to_pylist()
    found = [row for row in rows if row["outcome"] != "passed"]
    return [{"outcome": row["outcome"], "told": told(row)} for row in found]


def audit_judge(warehouse: Warehouse) -> dict[str, list[dict[str, Any]]]:
    """The judge's record and what the checks say, of the current versions.

    Returns:
        Rows of ``judge_audit`` and of ``judge_checks``, the columns that cards show.

    Raises:
        DatasetMissing: No run has got that far.
    """
    current = warehouse.current()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in ("judge_audit", "judge_checks"):
        if name not in current:
            raise DatasetMissing(
                f"dataset {name}: none yet in warehouse {warehouse.root}; expected one of a run"
                " that judged; make it with `pref run`"
            )
        found[name] = warehouse.read(name, current[name], SHOWN[name]).to_pylist()
    return found
