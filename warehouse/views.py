"""Datasets as SQL views in DuckDB, to read and never to write. It keeps no database file."""

from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from warehouse.errors import QueryRejected
from warehouse.store import Warehouse

# One row a cell of the preference matrix that has a part; a cell whose persona or pair has no
# side takes no part in training or measurement and is absent here.
_CELLS = """
CREATE VIEW cells AS
SELECT preferences.*,
       CASE WHEN users.side = 'seen' AND items.side = 'seen' THEN 'train'
            WHEN users.side = 'seen' THEN 'validation'
            WHEN items.side = 'seen' THEN 'calibration'
            ELSE 'test' END AS part
FROM preferences
JOIN splits AS users ON users.entity_kind = 'persona' AND users.entity_id = persona_id
JOIN splits AS items ON items.entity_kind = 'pair' AND items.entity_id = pair_id
"""

_READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)

# Arrow opens the files, so DuckDB itself needs no access to any: with its own Parquet reader the
# stored files would have to stay on its list of allowed paths, and COPY could overwrite them.
_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def connect(
    warehouse: Warehouse, versions: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database with one view a dataset.

    Views carry the names of `warehouse.tables.TABLES`; ``cells`` is ``preferences`` with the
    split's ``part`` (train, validation, calibration, test) wherever there are both. The
    connection can touch no file and its settings cannot be changed.

    Args:
        warehouse: Where the datasets are.
        versions: Dataset -> version; the current version for those not named.

    Raises:
        DatasetMissing: A named dataset or version does not exist.
        DatasetCorrupt: A file is not what was committed.
    """
    chosen = warehouse.current() | dict(versions or {})
    connection = duckdb.connect(":memory:")
    for name, version in chosen.items():
        path = warehouse.file_path(name, version)
        # partitioning=None: "version=..." in the path is no column.
        connection.register(name, pads.dataset(path, format="parquet", partitioning=None))
    if {"preferences", "splits"} <= set(chosen):
        connection.execute(_CELLS)
    for setting in _SETTINGS:
        connection.execute(setting)
    return connection


def query(warehouse: Warehouse, sql: str, versions: Mapping[str, str] | None = None) -> pa.Table:
    """Answer one SELECT over the views of `connect`.

    Args:
        warehouse: Where the datasets are.
        sql: One statement that only reads.
        versions: Dataset -> version; the current version for those not named.

    Raises:
        QueryRejected: DuckDB refuses the text, or it is not exactly one reading statement.
        DatasetMissing: A named dataset or version does not exist.
        DatasetCorrupt: A file is not what was committed.
    """
    with connect(warehouse, versions) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _READS:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise QueryRejected(
                    f"SQL: found {kinds}, expected one SELECT; data are changed by stages only"
                )
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise QueryRejected(_error_line(error, connection)) from error


def _error_line(error: duckdb.Error, connection: duckdb.DuckDBPyConnection) -> str:
    # DuckDB quotes the statement with a caret under it from "LINE 1:" on.
    reason = " ".join(str(error).split("\nLINE ")[0].split())
    rows = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    views = ", ".join(sorted(name for (name,) in rows)) or "none yet"
    return f"SQL: {reason}; expected one SELECT over the views {views}; correct the statement"
