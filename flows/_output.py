"""What commands print on standard output, made harmless for a terminal. It computes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warehouse.store import Warehouse

DEFAULT_WAREHOUSE = "pref-data"


def open_store(warehouse: str | None) -> Warehouse:
    """The warehouse of a command, which must be there.

    Raises:
        DatasetMissing: It is not.
    """
    from warehouse.store import open_warehouse

    return open_warehouse(warehouse or DEFAULT_WAREHOUSE, create=False)


def show_rows(rows: list[dict[str, Any]], *, as_json: bool = False) -> None:
    """Prints rows as a table, or as JSON and nothing else."""
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1, default=str) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        sys.stdout.write("no rows\n")
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        # Text from models may hold markup or control characters: shown as they are, made harmless.
        table.add_row(*(Text(printable(value)) for value in row.values()))
    Console().print(table)


def printable(value: Any) -> str:
    """A value as one line of text that a terminal can be shown."""
    text = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    return "".join(one if one.isprintable() else " " for one in text)


def printable_lines(value: Any) -> str:
    """A text of several lines that a terminal can be shown."""
    return "\n".join(printable(line) for line in str(value).splitlines())


def write_page(path: Path, html: str) -> None:
    """Writes a page to a file of the user's choice.

    Raises:
        InputRejected: It cannot be written there.
    """
    from tasks.errors import InputRejected

    try:
        path.write_text(html, "utf-8")
    except OSError as error:
        raise InputRejected(
            f"page {printable(path)}: cannot be written ({error.strerror}); expected a file in a"
            " folder that is there; name another"
        ) from error
