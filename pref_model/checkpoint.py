"""Reward models as two files, safetensors and JSON; it decides no path and reads no warehouse."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pref_model.errors import CheckpointCorrupt, ModelError
from pref_model.model import FitConfig, FitPoint, RewardModel

_FORMAT = "pref-reward-model/1"
_TENSORS = ("feature_mean", "feature_scale", "head", "user_weights")


def tensors_file(name: str) -> str:
    """File of a model's arrays."""
    return f"{name}.safetensors"


def settings_file(name: str) -> str:
    """File of everything else about a model."""
    return f"{name}.json"


def save_model(model: RewardModel, name: str = "model") -> dict[str, bytes]:
    """Return the files of a model, ``{name}.safetensors`` and ``{name}.json``.

    Equal models give equal bytes. The caller writes them (the warehouse does so atomically);
    arrays come back bit for bit.
    """
    tensors = {
        part: np.ascontiguousarray(getattr(model, part), dtype=np.float32) for part in _TENSORS
    }
    settings = {
        "format": _FORMAT,
        "config": asdict(model.config),
        "head_l2": model.head_l2,
        "history": [point._asdict() for point in model.history],
        "shapes": {part: list(tensor.shape) for part, tensor in tensors.items()},
    }
    text = json.dumps(settings, sort_keys=True, indent=1, allow_nan=False)
    return {tensors_file(name): save(tensors), settings_file(name): (text + "\n").encode()}


def load_model(directory: Path | str, name: str = "model") -> RewardModel:
    """Read the model that `save_model` named ``name``, whose files lie in `directory`.

    Raises:
        CheckpointCorrupt: A file is missing, unreadable or of another format.
    """
    folder = Path(directory)
    try:
        settings = json.loads((folder / settings_file(name)).read_bytes())
        tensors = load((folder / tensors_file(name)).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointCorrupt(
            f"model {folder}: found no {Path(str(error.filename)).name}, expected "
            f"{tensors_file(name)} and {settings_file(name)}; fit again or name another version"
        ) from error
    except (ValueError, SafetensorError, OSError) as error:
        raise CheckpointCorrupt(
            f"model {folder}: cannot be read ({error}), expected what a fit wrote; fit again"
        ) from error
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        raise CheckpointCorrupt(
            f"model {folder}: {settings_file(name)} is not of format {_FORMAT}; fit again"
        )
    shapes = {part: list(tensor.shape) for part, tensor in tensors.items()}
    if shapes != settings.get("shapes"):
        raise CheckpointCorrupt(
            f"model {folder}: tensors {shapes} do not match {settings_file(name)}; fit again"
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
            f"model {folder}: {settings_file(name)} has settings this version does not know "
            f"({error}); fit again"
        ) from error
