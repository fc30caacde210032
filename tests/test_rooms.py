"""The rooms keep their arrows, their size, and do nothing when they are imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("flows", "tasks", "pref_model", "prompts", "warehouse")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
WALL = 600

MAY_IMPORT = {
    "flows": {"flows", "tasks", "warehouse"},
    "tasks": {"tasks", "pref_model", "prompts", "warehouse"},
    "pref_model": {"pref_model"},
    "prompts": {"prompts"},
    "warehouse": {"warehouse"},
}
FOREIGN = {
    "pref_model": {"prefect", "openai", "duckdb", "pandas", "sqlalchemy", "pydantic"},
    "prompts": {"prefect", "openai", "duckdb", "torch", "numpy", "pyarrow", "pydantic"},
    "warehouse": {"prefect", "openai", "torch", "transformers", "jinja2", "pydantic"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    found = rooms_of(imports(path))
    assert found & set(ROOMS) <= MAY_IMPORT[room]
    assert not found & FOREIGN.get(room, set())


PRIVATE = [
    path
    for path in (ROOT / "tasks").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
    and any(part.startswith("_") for part in path.relative_to(ROOT / "tasks").parts)
]


@pytest.mark.parametrize("path", PRIVATE, ids=name_of)
def test_private_modules_of_tasks_never_import_prefect(path: Path) -> None:
    assert "prefect" not in rooms_of(imports(path))


def test_flows_reach_into_no_private_module_of_tasks_but_settings() -> None:
    for path in (ROOT / "flows").glob("*.py"):
        private = {
            name
            for name in imports(path)
            if name.startswith("tasks.") and any(part.startswith("_") for part in name.split("."))
        }
        assert private <= {"tasks._settings", "tasks._settings.prepare_prefect"}, path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_stay_below_the_wall(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < WALL


def test_only_settings_reads_the_environment() -> None:
    readers = {
        name_of(path)
        for path in MODULES
        if "os.environ" in path.read_text("utf-8") or "getenv" in path.read_text("utf-8")
    }
    assert readers <= {"tasks._settings"}


def test_importing_every_module_opens_no_file_for_writing_and_no_socket(tmp_path: Path) -> None:
    names = [name_of(path) for path in MODULES if path.name != "__main__.py"]
    program = f"""
import importlib, socket, sys
def refuse(*args, **kwargs): raise SystemExit("a socket was opened at import")
class Refuse(socket.socket):
    def connect(self, *args): refuse()
socket.socket = Refuse
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert written == []


def test_the_pure_model_room_imports_without_the_orchestration_libraries(tmp_path: Path) -> None:
    names = [name_of(path) for path in MODULES if path.parts[-2] == "pref_model"]
    blocked = ("prefect", "openai", "duckdb", "pandas", "sqlalchemy", "pydantic", "jinja2")
    program = f"""
import importlib, sys
for name in {blocked!r}: sys.modules[name] = None
for name in {names!r}: importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_flows_load_torch_only_where_a_stage_computes_with_it() -> None:
    program = "import sys, flows.attributes, flows.prism, flows.own; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "False"


def test_help_needs_none_of_the_heavy_libraries() -> None:
    program = """
import sys
from flows import cli
sys.argv = ["pref", "--help"]
try: cli.main()
except SystemExit as end: assert not end.code
heavy = {"prefect", "torch", "transformers", "pyarrow", "duckdb", "openai", "pandas", "numpy"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.strip().splitlines()[-1] == "[]"
