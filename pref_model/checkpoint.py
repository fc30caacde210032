"""Reward models as two files, safetensors and JSON; it decides no path and reads no warehouse."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pref_model.errors import CheckpointCorrupt, ModelError
from pref_model.model import FitConfig, FitPoint, RewardModel

TENSORS_FILE = "model.safetensors"
SETTINGS_FILE = "model.json"
_FORMAT = "pref-reward-model/1"
_TENSORS = ("feature_mean", "feature_scale", "head", "user_weights")


def save_model(model: RewardModel) -> dict[str, bytes]:
    """Return the files of a model by name; equal models give equal bytes.

    The caller writes them (the warehouse does so atomically); arrays come back bit for bit.
    """
    tensors = {
        name: np.ascontiguousarray(getattr(model, name), dtype=np.float32) for name in _TENSORS
    }
    settings = {
        "format": _FORMAT,
        "config": asdict(model.config),
        "head_l2": model.head_l2,
        "history": [point._asdict() for point in model.history],
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    text = json.dumps(settings, sort_keys=True, indent=1, allow_nan=False)
    return {TENSORS_FILE: save(tensors), SETTINGS_FILE: (text + "\n").encode()}


def load_model(directory: Path | str) -> RewardModel:
    """Read what `save_model` returned, written under its names into `directory`.

    Raises:
        CheckpointCorrupt: A file is missing, unreadable or of another format.
    """
    folder = Path(directory)
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_bytes())
        tensors = load((folder / TENSORS_FILE).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointCorrupt(
            f"model {folder}: found no {Path(str(error.filename)).name}, expected {TENSORS_FILE} "
            f"and {SETTINGS_FILE}; fit again or name another version"
        ) from error
    except (ValueError, SafetensorError, OSError) as error:
        raise CheckpointCorrupt(
            f"model {folder}: cannot be read ({error}), expected what a fit wrote; fit again"
        ) from error
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        raise CheckpointCorrupt(
            f"model {folder}: {SETTINGS_FILE} is not of format {_FORMAT}; fit again"
        )
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != settings.get("shapes"):
        raise CheckpointCorrupt(
            f"model {folder}: tensors {shapes} do not match {SETTINGS_FILE}; fit again"
        )
    try:
        config = dict(settings["config"])
        config["head_l2"] = tuple(config["head_l2"])
        return RewardModel(
            **tensors,
            config=FitConfig(**config),
            head_l2=float(settings["head_l2"]),
            history=tuple(FitPoint(**point) for point in settings["history"]),
        )
    except (KeyError, TypeError, ModelError) as error:
        raise CheckpointCorrupt(
            f"model {folder}: {SETTINGS_FILE} has settings this version does not know ({error}); "
            "fit again"
        ) from error
