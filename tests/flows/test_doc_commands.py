"""The pages of the docs and the README: each of their commands is run as somebody types it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from prompts.starter import starter_prompts
from tasks._llm.simulator.process import start_simulator
from tasks._llm.simulator.settings import SimulatorSettings
from tests.flows.conftest import ROOT, SMALL, Pref, free_port
from tests.postgres import fresh_database, postgres_server
from tests.s3 import s3_server
from tests.tasks.own.data import own_rows, write_own, write_rows
from tests.tasks.stages.prism_rows import write_prism
from tests.tasks.stages.test_tune import save_network
from tests.test_docs import PAGES as EVERY_PAGE
from tests.test_docs import commands

PAGES = (
    "docs/troubleshooting.md",
    "docs/export.md",
    "docs/own-data.md",
    "docs/benchmark.md",
    "docs/real-models.md",
    "docs/scale.md",
    "README.md",
)
COMMANDS = "pref|python -m warehouse.ledger_recover"
MODULES = {"pref": ("-m", "flows.cli"), "python": ()}
# Where this machine has no such name or address, what stands for it; {} is filled in by the test.
SIMULATED = "--responder-model simulated-responder --judge-model simulated-judge"
INSTEAD = {
    "V1 V2": "{version} {version}",
    "URL --model M": "{llm} --model simulated-judge",
    "https://api.openai.com/v1": "{llm}",
    "http://127.0.0.1:8000/v1": "{llm}",
    "http://127.0.0.1:11434/v1": "{llm}",
    "http://127.0.0.1:4000/v1": "{llm}",
    # The profiles name these themselves.
    "--profile paper-attributes": (
        f"--profile paper-attributes --llm-base-url {{llm}} {SIMULATED}"
    ),
    "--profile paper-prism": f"--profile paper-prism {SIMULATED}",
    "responder-model Qwen/Qwen2.5-7B-Instruct": "responder-model simulated-responder",
    "responder-model qwen2.5:7b-instruct": "responder-model simulated-responder",
    "model Qwen/Qwen2.5-7B-Instruct": "model simulated-judge",
    "model qwen2.5:7b-instruct": "model simulated-judge",
    "model gpt-4o": "model simulated-judge",
    "--to published": "--to {folder}",
    "--to FOLDER": "--to {folder}",
    "FOLDER": "data",
    # Of its own, for a retrain keeps the basis of the model before it.
    "DIR": "HannahRoseKirk/prism-alignment --warehouse prism",
    "USER": "concise+engaging",
    "PERSONA": "concise+engaging",
    "OLD NEW": "pref-data/ledger.sqlite new.sqlite",
    "s3://bucket": "s3://team",
    # A run of its own, or nothing would be left for the cluster.
    "tcp://scheduler:8786": "{dask} --warehouse on-dask",
    "--only methods": "--only classic --only per_user",
}


def sets(*settings: str) -> tuple[str, ...]:
    return tuple(word for one in settings for word in ("--set", one))


TRAINED = ("backbone.steps=4", "backbone.batch_size=4")
ATTRIBUTES = sets(*SMALL, *TRAINED, "encoder.max_tokens=64", "evaluate.draws=1000")
PRISM = sets(
    *("ingest.n_personas=20", "ingest.fill_personas=20", "ingest.fill_openings=24"),
    *("rate.min_rating=1", "choose.n_prompts=8", "design.personas_per_pair=10"),
    *("win.pool_size=2", "win.n_answers=3", "adapt.answers=[1,3]", "evaluate.draws=1000"),
    *("fit.d=2", "fit.steps=20", "calls.shard_size=40", "encoder.max_tokens=64", *TRAINED),
)
OWN = ("--warehouse", "own")
FEW_CELLS = ("--seeds", "2", "--only", "pref", *sets("fit.steps=5"))
# What is added to a command that begins so: the same work, only less of it.
MORE = {
    "pref run attributes": ATTRIBUTES,
    "pref plan attributes": ATTRIBUTES,
    "pref run prism": PRISM,
    "pref plan prism": ("--prism", "HannahRoseKirk/prism-alignment", *PRISM),
    "pref ingest": OWN,
    "pref plan own": OWN,
    "pref run own": (*OWN, *sets("fit.d=2", "fit.steps=40")),
    "pref benchmark": FEW_CELLS,
    "pref plan benchmark": FEW_CELLS,
}
NEEDED = {"s3://": ("moto", "s3fs"), "=dask": ("prefect_dask",)}

# Run by a test of its own, with that test's sizes, folders and ports.
DEPLOYED = "test_deploy.py::test_new_preferences_retrain_and_a_new_model_is_measured"
CLUSTERS = "test_scale.py::test_two_worker_processes_give_the_same_bytes_as_one"
ELSEWHERE = {
    "pref server": "test_scale.py::test_the_server_of_pref_server_records_every_task_run",
    "pref server --host 0.0.0.0": (
        "test_scale.py::test_a_server_on_postgresql_records_every_task_run"
    ),
    "pref simulate": "test_attributes.py::test_an_endpoint_that_refuses_the_key_costs_one_line",
    "pref deploy attributes": DEPLOYED,
    "pref deploy attributes --profile quickstart --warehouse pref-data": DEPLOYED,
    "pref deploy attributes --warehouse pref-data --work-pool pref": (
        "test_deploy.py::test_a_pool_gets_the_deployments_of_prefect_yaml"
    ),
    "pref run attributes --set calls.runner=dask --set calls.workers=4": CLUSTERS,
    "pref run attributes --set calls.runner=ray --set calls.workers=4": CLUSTERS,
    "pref batch cancel BATCH": (
        "test_batch_mode.py::test_a_cancelled_batch_keeps_what_it_finished_and_frees_the_rest"
    ),
    "pref batch forget BATCH": (
        "test_batch_mode.py::test_a_cancelled_batch_keeps_what_it_finished_and_frees_the_rest"
    ),
    'pref sql "select * from prompt_funnel"': (
        "test_prism.py::test_every_version_passes_the_audit_and_the_matrix_is_sparse"
    ),
}
# Names of several commands, which sentences use.
GROUPS = {"pref run", "pref plan", "pref deploy"}
# Pages whose blocks have a test of their own.
OWN_TEST = {"first-run.md": "test_first_run.py", "audit.md": "test_auditor.py"}


class Reader(NamedTuple):
    """Whoever follows the pages, in one folder, and what answers them."""

    pref: Pref
    known: dict[str, str]


@pytest.fixture(scope="module")
def reader(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    home = tmp_path_factory.mktemp("reader")
    write_own(home / "data", own_rows(15, 6))
    # What is looked for on the hub is found here, in a folder of that name.
    write_prism(home / "HannahRoseKirk" / "prism-alignment")
    save_network(home / "Qwen" / "Qwen2.5-0.5B", "qwen2")
    prompts = [{"instruction": one.text} for one in starter_prompts()[:12]]
    write_rows(home / "instructions.parquet", prompts)
    pref = Pref(home, prefect_server)
    done = pref.run("run", "attributes", *ATTRIBUTES, "--json")
    assert done.code == 0, done.err
    with start_simulator(SimulatorSettings()) as simulator:
        version = done.found["datasets"]["judgments"]
        yield Reader(pref, {"version": version, "llm": simulator.base_url})


@contextmanager
def dask_cluster(pref: Pref) -> Iterator[str]:
    address = f"tcp://127.0.0.1:{free_port()}"
    host, port = address.removeprefix("tcp://").split(":")
    started = []
    for words in (
        ["dask_scheduler", "--host", host, "--port", port, "--no-dashboard"],
        ["dask_worker", address, "--nworkers", "2", "--nthreads", "2", "--no-dashboard"],
    ):
        command = [sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]]
        started.append(
            subprocess.Popen(
                command,
                cwd=pref.env["HOME"],
                env=pref.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    try:
        yield address
    finally:
        for one in reversed(started):
            one.terminate()
            one.wait(timeout=60)


def lines_of(page: Path) -> list[str]:
    return [one for one in commands(page, COMMANDS) if one not in GROUPS | ELSEWHERE.keys()]


def first_here(page: str) -> list[str]:
    """The page's commands that no page before it has."""
    before = {one for other in PAGES[: PAGES.index(page)] for one in lines_of(ROOT / other)}
    return [one for one in lines_of(ROOT / page) if one not in before]


def typed(line: str, known: dict[str, str]) -> list[str]:
    """The words of a command as it is run here."""
    for name, value in INSTEAD.items():
        if name in line:
            line = line.replace(name, value.format(**known))
    more = next((words for start, words in MORE.items() if line.startswith(start)), ())
    program, *words = shlex.split(line)
    return [sys.executable, *MODULES[program], *words, *more]


def test_what_another_test_runs_is_on_a_page_and_that_test_is_there() -> None:
    told = {line for page in EVERY_PAGE for line in commands(page)}
    assert ELSEWHERE.keys() | GROUPS <= told
    for one in {*ELSEWHERE.values(), *OWN_TEST.values()}:
        file, _, name = one.partition("::")
        assert f"def {name}" in (ROOT / "tests" / "flows" / file).read_text("utf-8"), one


def test_no_command_of_any_page_is_left_out() -> None:
    run = {line for page in PAGES for line in lines_of(ROOT / page)}
    for page in EVERY_PAGE:
        missing = {one for one in lines_of(page) if one not in run}
        if page.name in OWN_TEST:
            blocks = "".join(re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
            missing = {one for one in missing if one not in blocks}
        assert not missing, page.name


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_does_what_it_says(
    page: str, reader: Reader, tmp_path: Path
) -> None:
    pref, text = reader.pref, (ROOT / page).read_text("utf-8")
    lines = first_here(page)
    absent = {
        package
        for sign, packages in NEEDED.items()
        for package in packages
        if any(sign in one for one in lines) and find_spec(package) is None
    }
    with ExitStack() as stack:
        env, known = {}, dict(reader.known)
        if "export OPENAI_API_KEY" in text:
            env["OPENAI_API_KEY"] = "sk-reader-0123456789abcdef"
        if "export PREF_LEDGER_URL" in text:
            env["PREF_LEDGER_URL"] = fresh_database(stack.enter_context(postgres_server()))
        if "s3://" in text and not absent:
            env |= stack.enter_context(s3_server())
        if "tcp://scheduler" in text and not absent:
            worker = Pref(Path(pref.env["HOME"]), pref.env["PREFECT_API_URL"])
            worker.env |= env
            known["dask"] = stack.enter_context(dask_cluster(worker))
        for number, line in enumerate(lines):
            if any(sign in line and absent & {*packages} for sign, packages in NEEDED.items()):
                continue
            known["folder"] = str(tmp_path / str(number))
            done = subprocess.run(
                typed(line, known),
                cwd=pref.env["HOME"],
                env={**pref.env, **env},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert done.stdout.strip(), line
    if absent:
        pytest.skip(f"some commands were left out: {', '.join(sorted(absent))} not installed")
