"""The page on the first run, command by command, as somebody types it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, Pref

pytestmark = pytest.mark.slow


def test_the_commands_of_the_first_run_work_one_after_the_other(
    prefect_server: str, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "first-run.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("pref ")]
    assert "pref server" in lines
    pref = Pref(tmp_path, prefect_server)
    # The session's server is the one of `pref server`.
    for line in (one for one in lines if one != "pref server"):
        done = pref.run(*shlex.split(line)[1:])
        assert done.code == 0, f"{line}: {done.err}"
        assert done.out.strip(), line
    assert (tmp_path / "pref-data" / "ledger.sqlite").is_file()
