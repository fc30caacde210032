"""The encoder's network trained on the preferences, end to end with a head (eq 5).

It trains in a process of its own, through Accelerate, and resumes from its last state after a
kill. What it leaves is an encoder; base rewards are fitted on its features as on any other's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks._convert import index_of
from tasks._guard import Guard
from tasks._stages.encode import resolve
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import World, load_world
from tasks.config import EncoderConfig, FlowBackboneConfig, FlowFitConfig
from tasks.errors import StageFailed
from warehouse.tables import TABLES

# Settings of the flow that are none of the training program's.
_OURS = {"is_trained", "precision"}
_LAUNCH = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip


def describe_tuning(
    encoder: dict[str, Any], fit: FlowFitConfig, backbone: FlowBackboneConfig, seed: int
) -> dict[str, Any]:
    """What of the configuration enters the version; how fast it is done does not."""
    own = ("align_to", "weights")
    kept = {name: value for name, value in asdict(fit).items() if name not in own}
    return {
        "encoder": encoder,
        "fit": {**kept, "head_l2": list(fit.head_l2)},
        "backbone": asdict(backbone),
        "weights": fit.weights,
        "seed": seed,
    }


def build(inputs: Inputs) -> dict[str, Output]:
    """Trains, or goes on training, in the version's staging folder."""
    folder = inputs.warehouse.staging("tune", inputs.plan.version)
    done = folder / "facts.json"
    if not done.is_file():
        _write_data(inputs, folder / "data")
        (folder / "settings.json").write_text(json.dumps(_settings(inputs)), encoding="utf-8")
        facts = _train(folder, int(inputs.plan.how.get("processes", 1)))
        writing = done.with_suffix(".writing")
        writing.write_text(facts, encoding="utf-8")
        writing.rename(done)
    facts = json.loads(done.read_text(encoding="utf-8"))
    row = {
        "encoder": inputs.config["encoder"]["encoder_id"],
        "n_steps": int(facts["steps"]),
        "n_passes": int(facts["training"]) + int(facts["evaluation"]),
        "train_nll": facts["train_nll"],
        "start_validation_nll": facts["start_validation_nll"],
        "validation_nll": facts["validation_nll"],
    }
    out = folder / "out"
    files: dict[str, bytes | Path] = {
        f"backbone/{path.name}": path for path in sorted((out / "backbone").iterdir())
    }
    # The head that was trained along with the network, for whoever wants this very model.
    files |= {f"head/{name}": out / name for name in ("model.safetensors", "model.json")}
    return {"backbones": Output(pa.Table.from_pylist([row], TABLES["backbones"].schema), files)}


def steps_done(inputs: Inputs) -> int:
    """Gradient steps up to the last saved state of a training that goes on; 0 without one."""
    folder = inputs.warehouse.staging("tune", inputs.plan.version) / "out" / "states"
    return max((int(one.name.rpartition("-")[2]) for one in folder.glob("state-*")), default=0)


def _write_data(inputs: Inputs, folder: Path) -> None:
    world = load_world(inputs)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("preferences", "train"), ("validation", "validation")):
        cells = world.part(part)
        np.savez(folder / f"{name}.npz", **cells._asdict())
    texts, first, second = _texts(inputs, world)
    np.savez(folder / "pairs.npz", first=first, second=second)
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")


def _texts(
    inputs: Inputs, world: World
) -> tuple[dict[str, list[str]], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Prompts and responses of all pairs, and which of them are each pair's first and second."""
    prompt = inputs.lookup("prompts", "prompt_id", "prompt_text")
    response = inputs.lookup("responses", "response_id", "response_text")
    rows = {row["pair_id"]: row for row in inputs.read("pairs").to_pylist()}
    prompt_of = {
        row[f"response_{side}_id"]: row["prompt_id"] for row in rows.values() for side in "ab"
    }
    ids = sorted(prompt_of)
    place = index_of(ids)
    columns = [
        np.array([place[rows[pair][f"response_{side}_id"]] for pair in world.pairs], np.int64)
        for side in "ab"
    ]
    texts = {
        "prompts": [prompt[prompt_of[one]] for one in ids],
        "responses": [response[one] for one in ids],
    }
    return texts, columns[0], columns[1]


def _settings(inputs: Inputs) -> dict[str, Any]:
    """The settings file of `pref_model.train`."""
    config, how = inputs.config, inputs.plan.how
    known = {name: config["encoder"][name] for name in EncoderConfig.model_fields}
    spec = resolve(EncoderConfig(**known))
    own = ("device", "micro_tokens", "has_gradient_checkpointing", "compile_backend", "threads")
    return {
        "fit": config["fit"],
        "run": {
            "seed": config["seed"],
            "precision": config["backbone"]["precision"],
            **{name: how[name] for name in own if name in how},
        },
        "backbone": {
            name: value for name, value in config["backbone"].items() if name not in _OURS
        },
        "encoder": {
            # The training program runs in a folder of its own.
            "name_or_path": str(spec.folder.absolute()),
            "layers": list(spec.layers),
            "pooling": spec.pooling,
            "context": spec.context,
            "has_length": spec.has_length,
            "max_tokens": spec.max_tokens,
        },
        "checkpoint_every": how.get("checkpoint_every", 50),
    }


def _train(folder: Path, processes: int) -> str:
    """Runs the training program to its end; returns the figures it prints.

    Raises:
        StageFailed: It stopped before the end.
    """
    program = ["-m", "pref_model.train"]
    if processes > 1:
        program = [*_LAUNCH, "--num_processes", str(processes), *program]
    words = ["--data", "data", "--config", "settings.json", "--out", "out"]
    log = folder / "errors.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            # Were we killed, it would go on writing into a folder that the next run reads.
            guard = Guard()
            guard.protect(process.pid)
            found, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        said = log.read_text("utf-8", "replace").strip().splitlines() or ["no word of why"]
        raise StageFailed(
            f"tune: training ended with exit status {process.returncode} ({said[-1][:300]}),"
            " expected 0; run the same command again, it goes on from its last state"
        )
    return found.decode().strip().splitlines()[-1]


STAGE = Stage(
    name="tune",
    reads=("prompts", "responses", "pairs", "preferences", "splits"),
    writes=("backbones",),
    module=__name__,
    build=build,
)
