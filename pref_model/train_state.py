"""The state of an unfinished fit on disk: safetensors and JSON in a folder renamed when complete.

It decides neither when to save nor what a state holds. A process killed at any moment leaves the
previous state or the new one, never a mixture.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pref_model.errors import BadSetting, CheckpointCorrupt

_FORMAT = "pref-train-state/1"
_PREFIX = "state-"
_TENSORS, _FACTS = "tensors.safetensors", "facts.json"


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a fit saves its state. It never changes the result.

    Attributes:
        folder: Belongs to one fit; a state of the same fit found there is resumed.
        every: Gradient steps between two states.
    """

    folder: Path
    every: int = 50

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadSetting(f"checkpoints: found every={self.every}, expected at least 1 step")


class State(NamedTuple):
    """What `save_state` was given."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


def fingerprint(settings: object, arrays: Mapping[str, Any]) -> str:
    """Return SHA-256 hex of settings (by repr) and arrays: which fit a state belongs to."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype}:{array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def save_state(
    folder: Path, number: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Write state `number` under `folder`, then delete older ones.

    Files are flushed to disk before the folder gets its name. `facts` must be JSON; floats come
    back bit for bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writing = folder / f".writing-{number:012d}"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, writing / _TENSORS)
    text = json.dumps({"format": _FORMAT, **facts}, sort_keys=True, allow_nan=False)
    (writing / _FACTS).write_text(text + "\n", encoding="utf-8")
    for path in (writing / _TENSORS, writing / _FACTS, writing):
        _flush(path)
    final = folder / f"{_PREFIX}{number:012d}"
    shutil.rmtree(final, ignore_errors=True)
    writing.rename(final)
    _flush(folder)
    for path in folder.iterdir():
        is_old = path.name.startswith(_PREFIX) and path != final
        if is_old or path.name.startswith(".writing-"):
            shutil.rmtree(path, ignore_errors=True)


def load_state(folder: Path, expected: str) -> State | None:
    """Return the newest state, or None where there is none.

    Raises:
        CheckpointCorrupt: It cannot be read, or belongs to a fit of another `fingerprint`.
    """
    found = sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []
    if not found:
        return None
    newest = found[-1]
    try:
        facts = json.loads((newest / _FACTS).read_text(encoding="utf-8"))
        tensors = load_file(newest / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointCorrupt(
            f"checkpoint {newest}: cannot be read ({error}), expected {_TENSORS} and {_FACTS}; "
            "delete the folder to begin again"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise CheckpointCorrupt(
            f"checkpoint {newest}: not of format {_FORMAT}; delete the folder to begin again"
        )
    if facts.get("fingerprint") != expected:
        raise CheckpointCorrupt(
            f"checkpoint {newest}: found the state of a fit with other data or settings, "
            "expected this fit's; name another folder, or delete this one to begin again"
        )
    return State(tensors, facts)


def remove_states(folder: Path) -> None:
    """Delete every state once the fit's result has been written."""
    for path in folder.glob(f"{_PREFIX}*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it, then give it its name."""
    writing = path.with_name(f".writing-{path.name}")
    writing.write_bytes(content)
    _flush(writing)
    writing.rename(path)
    _flush(path.parent)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block.

    With one thread equal inputs in equal layouts give equal bits; with several, the matrix
    library promises no such thing, since it may use fewer when the machine is busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as flat tensors, ``optimizer/{parameter}/{name}``."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{index}/{name}": torch.as_tensor(value)
        for index, parts in state.items()
        for name, value in parts.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned; learning rates stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
