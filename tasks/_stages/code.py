"""The hash of a stage's code: its module and every project module that it reaches by imports.

Found by reading import statements, so that nobody has to keep a list; nothing is imported or run.
Comments count too: a needless recomputation costs seconds, and calls come from the ledger.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from tasks.errors import StageFailed

ROOMS = ("tasks", "pref_model", "prompts")

# Code that moves rows without shaping them, or whose effect is in the version by another way:
# tables by their schema, endpoints by their name, settings by their values.
ELSEWHERE = (
    "tasks._engines",
    "tasks._llm.engine",
    "tasks._llm.errors",
    "tasks._llm.simulator",
    "tasks._settings",
    "tasks._stages.code",
    "tasks._stages.stage",
    "tasks.config",
    "tasks.errors",
    "tasks.types",
    "pref_model.errors",
    "prompts.errors",
    "prompts.types",
)


@cache
def code_modules(module: str) -> tuple[str, ...]:
    """Names of the modules whose source shapes what ``module`` makes, sorted."""
    found = {module}
    waiting = [module]
    while waiting:
        for name in _project_imports(waiting.pop()):
            if name not in found and not name.startswith(ELSEWHERE):
                found.add(name)
                waiting.append(name)
    return tuple(sorted(found))


@cache
def code_sha256(module: str) -> str:
    """Hash of the sources of `code_modules`.

    Returns:
        64 hex digits; line endings do not matter, every other character does.

    Raises:
        StageFailed: A module has no source file.
    """
    digest = hashlib.sha256()
    for name in code_modules(module):
        source = _source(name)
        digest.update(f"{name}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


@cache
def _project_imports(module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.split(".")[0] in ROOMS and _file(name))


@cache
def _file(module: str) -> Path | None:
    """A module's source file; None for packages (empty here) and for names within a module."""
    room, *rest = module.split(".")
    # Only the room itself is looked up: asking for the spec of a deeper name imports its parents.
    spec = importlib.util.find_spec(room)
    if spec is None or not spec.submodule_search_locations or not rest:
        return None
    path = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    return path if path.is_file() else None


def _source(module: str) -> bytes:
    path = _file(module)
    if path is None:
        raise StageFailed(
            f"stage code: module {module!r} has no source file; expected an installed package"
            " with sources; reinstall the project"
        )
    return path.read_bytes().replace(b"\r\n", b"\n")
