"""The command line's entry: its commands run, and known errors turned into one line."""

from __future__ import annotations

import sys
from typing import NoReturn

from flows._interrupts import noted

# What typer makes of a KeyboardInterrupt.
INTERRUPTED = 130


def main() -> None:
    """Runs the command line; known errors become one line and their exit code."""
    try:
        with noted():
            from flows._app import app
            from tasks.errors import exit_code_of
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    import typer

    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        code, line = exit_code_of(error), str(error)
        if code is None:
            from tasks.server import lost_server_line

            lost = lost_server_line(error)
            if lost is None:
                raise
            code, line = 1, lost
        sys.stderr.write(f"pref: {' '.join(line.split())}\n")
    _end(code)


def _end(code: int | None) -> NoReturn:
    if code == INTERRUPTED:
        sys.stderr.write("pref: interrupted; finished calls are kept, run the same command again\n")
        code = 1
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
