"""What README and docs say is what the program does and what the disk holds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli import app
from flows.profiles import settings
from tasks.config import AttributesConfig, OwnConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """Every `pref …` in a fenced block or in backquotes, comments and continuations dealt with."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?:\$ )?(pref [^#\n]+)", text, flags=re.MULTILINE)
    found += re.findall(r"`(pref [^`…]+)`", text)
    return sorted({one.strip() for one in found})


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
