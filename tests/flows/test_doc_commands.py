"""The pages for those who have a warehouse: each of their commands is run as somebody types it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tests.flows.conftest import ROOT, SMALL, Finished, Pref
from tests.tasks.own.data import own_rows, write_own
from tests.test_docs import commands

pytestmark = pytest.mark.slow

# The first run and the audit have tests of their own.
PAGES = ("troubleshooting.md", "export.md", "own-data.md")
SETTINGS = [word for one in SMALL for word in ("--set", one)]
RUN_OWN = "pref run own"
OWN = ("--set", "fit.d=2", "--set", "fit.steps=40")
# Run by other tests, a bare name, or about a dataset of another flow.
ELSEWHERE = {
    *("pref server", "pref deploy", "pref run"),
    'pref sql "select * from prompt_funnel"',
}


@pytest.fixture(scope="module")
def ran(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pref, Finished]:
    home = tmp_path_factory.mktemp("reader")
    write_own(home / "data", own_rows(15, 6))
    pref = Pref(home, prefect_server)
    done = pref.run("run", "attributes", *SETTINGS, "--json")
    assert done.code == 0, done.err
    return pref, done


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_does_what_it_says(
    page: str, ran: tuple[Pref, Finished], tmp_path: Path
) -> None:
    pref, first = ran
    version = first.found["datasets"]["judgments"]
    lines = [line for line in commands(ROOT / "docs" / page) if line not in ELSEWHERE]
    assert lines
    with start_simulator(SimulatorSettings()) as simulator:
        known = {
            "V1 V2": f"{version} {version}",
            "URL --model M": f"{simulator.base_url} --model simulated-judge",
            "--to published": f"--to {tmp_path}/{{number}}",
            "FOLDER": "data",
        }
        for number, line in enumerate(lines):
            words = line
            for name, value in known.items():
                words = words.replace(name, value.replace("{number}", str(number)))
            flow = words.split()[2:3]
            more = SETTINGS if flow == ["attributes"] else OWN if words.startswith(RUN_OWN) else ()
            done = pref.run(*shlex.split(words)[1:], *more)
            assert done.code == 0, f"{line}: {done.err}"
            assert done.out.strip(), line
