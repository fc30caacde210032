"""The audit of a whole warehouse, its call ledger included."""

from __future__ import annotations

from tasks._settings import read_environment
from warehouse.audit import Finding, audit
from warehouse.store import Warehouse


def audit_all(warehouse: Warehouse) -> tuple[int, list[Finding]]:
    """Verifies every dataset version and its links to the ledger.

    Returns:
        How many versions were looked at, and what was found.

    Raises:
        LedgerError: The ledger itself cannot be read.
    """
    n_versions = len(list(warehouse.root.glob("*/version=*")))
    url = read_environment().ledger_url
    path = warehouse.root / "ledger.sqlite"
    if url is None and not path.is_file():
        return n_versions, list(audit(warehouse))
    from warehouse.ledger import open_ledger

    with open_ledger(url or str(path)) as ledger:
        return n_versions, list(audit(warehouse, ledger.held))
