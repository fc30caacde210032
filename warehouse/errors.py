"""What can go wrong with stored data, each error one line with its exit code.

It decides nothing about retries.
"""


class WarehouseError(Exception):
    """Base of every error of this room; the message is one line for a person.

    Attributes:
        exit_code: Process exit status; 2 = the request was wrong, 1 = the run failed.
    """

    exit_code: int = 2


class DatasetMissing(WarehouseError):
    """A dataset, version, file or warehouse that was named does not exist."""


class QueryRejected(WarehouseError):
    """A SQL text that DuckDB refuses, or that would do more than read."""


class WarehouseBusy(WarehouseError):
    """Another process holds the warehouse."""


class StorageFull(WarehouseError):
    """The disk or the quota is used up; nothing half-written is left behind."""

    exit_code = 1


class CheckFailed(WarehouseError):
    """Rows break the constraints that their table declares; they were not stored."""

    exit_code = 1


class DatasetCorrupt(WarehouseError):
    """Stored bytes are not the bytes that were committed."""

    exit_code = 1
