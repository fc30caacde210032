"""The plain files `python -m pref_model.train` reads: arrays and settings, checked on the way in.

Arrays lie in NAME.npz or NAME.safetensors, settings and texts in JSON; nothing is unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pref_model.backbone_config import BackboneConfig, BackboneRun
from pref_model.backbone_texts import TokenTexts, make_token_texts
from pref_model.encoder_spec import resolve_encoder
from pref_model.errors import BadArray, BadSetting
from pref_model.model import FitConfig, RunConfig
from pref_model.types import Floats, Ints, Preferences, make_preferences

Arrays = dict[str, npt.NDArray[Any]]
_Settings = TypeVar("_Settings", FitConfig, RunConfig, BackboneConfig, BackboneRun)


class TrainSettings(NamedTuple):
    """The settings file, checked.

    Attributes:
        fit: ``"fit": {...}``, fields of `FitConfig`.
        run: ``"run": {...}``, fields of `BackboneRun` and of `RunConfig` side by side.
        backbone: ``"backbone": {...}``, fields of `BackboneConfig`; None trains the head only.
        encoder: ``"encoder": "NAME or FOLDER"``, the backbone, or an object of what
            `encoder_spec.resolve_encoder` takes, ``{"name_or_path": ..., "layers": [...]}``.
        checkpoint_every: ``"checkpoint_every": 50``, steps between two states; 0 saves none.
    """

    fit: FitConfig
    run: BackboneRun
    backbone: BackboneConfig | None
    encoder: Mapping[str, Any]
    checkpoint_every: int


class Labels(NamedTuple):
    """Preferences of a data folder.

    Attributes:
        train: From ``preferences``.
        validation: From ``validation``, if there.
        n_users: The largest user number plus one, over both.
    """

    train: Preferences
    validation: Preferences | None
    n_users: int


def read_settings(path: Path) -> TrainSettings:
    """Read the settings file.

    Raises:
        BadSetting: No JSON object, or a name or value that is not known.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSetting(f"settings {path}: cannot be read ({error}), expected JSON") from error
    if not isinstance(found, dict):
        raise BadSetting(f"settings {path}: found {type(found).__name__}, expected an object")
    known = {"fit", "run", "backbone", "encoder", "checkpoint_every"}
    if not set(found) <= known:
        raise BadSetting(
            f"settings {path}: found {sorted(set(found) - known)}, expected {sorted(known)}"
        )
    fit = dict(_part(found, "fit", path))
    if "head_l2" in fit:
        fit["head_l2"] = tuple(np.atleast_1d(fit["head_l2"]).tolist())
    run = dict(_part(found, "run", path))
    own = {one.name for one in fields(RunConfig)}
    inner = _make(RunConfig, {name: run.pop(name) for name in own & set(run)}, path)
    backbone = _make(BackboneConfig, _part(found, "backbone", path), path)
    every = found.get("checkpoint_every", 50)
    if not isinstance(every, int) or every < 0:
        raise BadSetting(f"settings {path}: found checkpoint_every={every}, expected 0 or more")
    return TrainSettings(
        _make(FitConfig, fit, path),
        _make(BackboneRun, {**run, "run": inner}, path),
        backbone if "backbone" in found else None,
        _encoder(found.get("encoder", {}), path),
        every,
    )


def read_labels(folder: Path) -> Labels:
    """Read ``preferences`` and, if there, ``validation``: user, pair, label and maybe weight.

    Raises:
        BadArray: A file or column is missing or of the wrong kind.
    """
    train = _preferences(read_arrays(folder, "preferences"), folder)
    validation = None
    if _file(folder, "validation") is not None:
        validation = _preferences(read_arrays(folder, "validation"), folder)
    columns = [train.user] + ([] if validation is None else [validation.user])
    n_users = 1 + max((int(column.max()) for column in columns if column.size), default=-1)
    return Labels(train, validation, n_users)


def read_differences(folder: Path) -> Floats:
    """Read ``pairs``: either differences (M, D), or embeddings (R, D) with first and second (M,).

    Raises:
        BadArray: As `read_labels`.
    """
    arrays = read_arrays(folder, "pairs")
    if "differences" in arrays:
        return np.asarray(arrays["differences"], dtype=np.float64)
    embeddings = np.asarray(_column(arrays, "embeddings", folder), dtype=np.float64)
    first, second = read_pairs(folder, len(embeddings))
    return embeddings[first] - embeddings[second]


def read_pairs(folder: Path, n_texts: int) -> tuple[Ints, Ints]:
    """Read first and second (M,) from ``pairs``: numbers of texts or of embeddings.

    Raises:
        BadArray: As `read_labels`, or a number outside 0 to n_texts - 1.
    """
    arrays = read_arrays(folder, "pairs")
    columns = []
    for name in ("first", "second"):
        column = _column(arrays, name, folder)
        if column.ndim != 1 or not np.issubdtype(column.dtype, np.integer):
            raise BadArray(f"{folder}/pairs: '{name}' is {column.dtype}, expected row numbers")
        if column.size and not 0 <= int(column.min()) <= int(column.max()) < n_texts:
            raise BadArray(
                f"{folder}/pairs: '{name}' runs from {column.min()} to {column.max()}, "
                f"expected 0 to {n_texts - 1}"
            )
        columns.append(column.astype(np.int64))
    return columns[0], columns[1]


def read_token_texts(folder: Path) -> TokenTexts | None:
    """Read ``tokens``: the columns of `TokenTexts`; None where there is no such file."""
    if _file(folder, "tokens") is None:
        return None
    arrays = read_arrays(folder, "tokens")
    return make_token_texts(
        _column(arrays, "tokens", folder),
        _column(arrays, "offsets", folder),
        arrays.get("pool_start"),
        arrays.get("pool_stop"),
    )


def read_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Read ``texts.json``: {"prompts": [...], "responses": [...]}, one of each a text.

    Raises:
        BadArray: It is missing or not of that form.
    """
    path = folder / "texts.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        prompts, responses = found["prompts"], found["responses"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadArray(
            f"{path}: cannot be read ({error!r}), expected prompts and responses, or tokens.npz"
        ) from error
    if len(prompts) != len(responses) or not all(isinstance(t, str) for t in prompts + responses):
        raise BadArray(f"{path}: expected as many prompt strings as response strings")
    return prompts, responses


def read_arrays(folder: Path, name: str) -> Arrays:
    """Read NAME.npz or NAME.safetensors.

    Raises:
        BadArray: Neither is there, or it cannot be read without unpickling.
    """
    path = _file(folder, name)
    if path is None:
        raise BadArray(f"{folder}: found no {name}.npz or {name}.safetensors, expected one of them")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, SafetensorError) as error:
        raise BadArray(f"{path}: cannot be read ({error}), expected plain arrays") from error


def _file(folder: Path, name: str) -> Path | None:
    for suffix in (".npz", ".safetensors"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def _column(arrays: Arrays, name: str, folder: Path) -> npt.NDArray[Any]:
    if name not in arrays:
        raise BadArray(f"{folder}: found arrays {sorted(arrays)}, expected one named '{name}'")
    return arrays[name]


def _preferences(arrays: Arrays, folder: Path) -> Preferences:
    user, pair, label = (_column(arrays, name, folder) for name in ("user", "pair", "label"))
    return make_preferences(user, pair, label, arrays.get("weight"))


def _encoder(found: object, path: Path) -> Mapping[str, Any]:
    """Arguments of `resolve_encoder`; none where no encoder is named."""
    if isinstance(found, str):
        return {"name_or_path": found} if found else {}
    known = set(signature(resolve_encoder).parameters)
    if not isinstance(found, dict) or not set(found) <= known:
        raise BadSetting(
            f"settings {path}: found encoder {found!r}, expected a name, a folder or an object"
            f" of {sorted(known)}"
        )
    layers = found.get("layers")
    return {**found, **({"layers": tuple(layers)} if layers is not None else {})}


def _part(found: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    part = found.get(name, {})
    if not isinstance(part, dict):
        raise BadSetting(f"settings {path}: '{name}' is {type(part).__name__}, expected an object")
    return part


def _make(kind: type[_Settings], values: Mapping[str, Any], path: Path) -> _Settings:
    known = [one.name for one in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise BadSetting(f"settings {path}: found {unknown}, expected some of {known}")
    try:
        return kind(**values)
    except TypeError as error:
        raise BadSetting(f"settings {path}: {error}; expected values as {kind.__name__}") from error
