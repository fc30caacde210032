"""What can go wrong with the call ledger, one line each. It knows nothing of datasets."""

from warehouse.errors import WarehouseError


class LedgerError(WarehouseError):
    """The ledger could not be read or written; nothing unconfirmed counts as stored."""

    exit_code = 1


class LedgerUnusable(LedgerError):
    """The path or URL names nothing that can serve as a ledger."""

    exit_code = 2


class LedgerLocked(LedgerError):
    """Another process holds the ledger for longer than one write takes."""


class LedgerCorrupt(LedgerError):
    """The file, or a reply in it, is not what was once written."""
