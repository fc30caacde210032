"""What README and docs say is what the program does and what the disk holds."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from flows._app import app
from flows.profiles import settings
from tasks.config import AttributesConfig, OwnConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path, program: str = "pref") -> list[str]:
    """Every `pref …` of a page once: those in blocks, then those in sentences.

    Comments and continuations are dealt with.
    """
    text = page.read_text("utf-8").replace("\\\n", " ")
    found = re.findall(rf"^(?:\$ )?((?:{program}) [^#\n]+)", text, flags=re.MULTILINE)
    found += re.findall(rf"`((?:{program}) [^`…]+)`", text)
    return list(dict.fromkeys(one.strip() for one in found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_docs_is_one_the_program_takes(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line)[1:]
        command = get_command(app)
        context = command.make_context("pref", [], resilient_parsing=True)
        while hasattr(command, "get_command"):
            inner = command.get_command(context, words[0]) if words else None
            if inner is None:
                assert not words, f"{page.name}: {line}"
                break
            command, words = inner, words[1:]
            context = command.make_context(
                line, list(words), parent=context, resilient_parsing=True
            )
        else:
            command.make_context(line, words)


def test_the_docs_speak_of_commands_at_all() -> None:
    assert len(commands(PAGES[0])) >= 8


def test_settings_named_in_the_docs_exist() -> None:
    known = {name for model in (AttributesConfig, OwnConfig) for name, *_ in settings(model)}
    for page in PAGES:
        for name in re.findall(r"--set ([a-z_.]+)=", page.read_text("utf-8")):
            assert name in {*known, "a.b"}, f"{page.name}: {name}"


def test_the_readme_s_tree_is_the_disk_s() -> None:
    tree = PAGES[0].read_text("utf-8").split("## The tree")[1].split("```")[1]
    told = {line.split()[0].rstrip("/") for line in tree.splitlines() if line and line[0] != " "}
    assert all((ROOT / name).is_dir() for name in told)
    folders = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and list(path.glob("**/*.*"))
    }
    extra = {"pref-data", "pref_pipeline.egg-info", "__pycache__"}
    assert folders - told <= extra


def test_every_table_is_in_the_architecture_page() -> None:
    from tasks.planning import OWN_STAGES, STAGES

    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for stage in (*STAGES, *OWN_STAGES):
        assert re.search(rf"^\| {stage.name}( ☎)? \|", text, flags=re.MULTILINE), stage.name
        for dataset in stage.writes:
            assert f"`{dataset}`" in text, dataset


def sentences() -> str:
    """Every text in the program; adjacent literals are one, and a filled-in place is a dot."""
    found = []
    for room in ("flows", "tasks", "warehouse", "prompts", "pref_model"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(one, "value", None) for one in node.values)
                    found.append("".join(one if isinstance(one, str) else "." for one in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_every_message_of_the_troubleshooting_page_is_one_the_program_writes() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    messages = [
        phrase
        for row in re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE)
        for phrase in re.findall(r"`([^`]+)`", row)
    ]
    assert len(messages) > 20
    written = sentences()
    assert [one for one in messages if one not in written] == []


def test_the_settings_of_the_recorder_in_the_docs_are_those_we_start_servers_with() -> None:
    from tasks._settings import PREFECT_DEFAULTS

    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    told = dict(re.findall(r"^export (PREFECT_SERVER_\w+)=(\S+)$", page, flags=re.MULTILINE))
    assert len(told) == 3
    assert told.items() <= PREFECT_DEFAULTS.items()


def test_the_products_of_the_scale_page_follow_from_its_unit_costs() -> None:
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    calls = 2 * 100_000 * 50
    usd = calls * (540 * 2.50 + 4 * 10.00) / 1e6
    assert f"{calls:,} verdicts" in page
    assert f"US$ {round(usd, -2):,.0f} with gpt-4o" in page
    assert f"{round(usd / 2, -1):,.0f} in batches" in page
    assert f"{calls / 10_000 / 60:.0f} at 10,000 requests a minute" in page
    assert f"ledger {calls * 2.3e3 / 1e9:.0f} GB" in page
    assert f"verdicts {calls * 38 / 1e9:.1f} GB" in page
    assert f"features {2 * 100_000 * 6.8e3 / 1e9:.1f} GB" in page
