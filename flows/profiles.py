"""From profile, options and ``--set`` to a checked configuration. It runs nothing."""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.config import AnyFlowConfig, AttributesConfig, as_json
from tasks.errors import InputRejected

C = TypeVar("C", bound=AnyFlowConfig)


def profile_names() -> list[str]:
    """Profiles that ship with the package."""
    folder = files("flows") / "profiles"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def read_profile(name: str) -> dict[str, Any]:
    """A shipped profile by name, or one of the user's own by path.

    Raises:
        InputRejected: No such profile, or not TOML.
    """
    if name in profile_names():
        text = (files("flows") / "profiles" / f"{name}.toml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8")
    else:
        raise InputRejected(
            f"profile: {name!r} is neither a shipped profile nor a file; expected one of"
            f" {', '.join(profile_names())} or the path of a TOML file; check --profile"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputRejected(
            f"profile: {name} is not TOML ({error}); expected sections as in the shipped profiles;"
            " repair the file"
        ) from error


def build_config(
    model: type[C], profile: str | None, options: Mapping[str, Any], overrides: Iterable[str]
) -> C:
    """The configuration of a run: defaults, then profile, then options, then ``--set``.

    Args:
        model: The flow's configuration class.
        profile: Name or path; None for the defaults alone.
        options: Dotted name to value; None means not given.
        overrides: ``a.b=c`` strings; the value is JSON where it reads as JSON, else text.

    Raises:
        InputRejected: A name or value that does not fit; one line for all of them.
    """
    raw = {} if profile is None else read_profile(profile)
    for name, value in options.items():
        if value is not None:
            _put(model, raw, name, value)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise InputRejected(
                f"--set: {override!r} has no '='; expected a.b=value, such as fit.d=6; add one"
            )
        _put(model, raw, name.strip(), _value(text.strip()))
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputRejected("; ".join(_fault(model, one) for one in error.errors())) from error


def _put(model: type[AnyFlowConfig], raw: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    place = raw
    default: Any = as_json(model())
    for section in sections:
        # One value of a mapping such as judge.sampling leaves the others at their defaults.
        default = default.get(section, {}) if isinstance(default, dict) else {}
        place = place.setdefault(section, copy.deepcopy(default))
        if not isinstance(place, dict):
            raise InputRejected(
                f"--set: {dotted!r} goes into {section!r}, which is a value; expected a section;"
                f" known sections: {', '.join(_names(model))}"
            )
    place[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _fault(model: type[AnyFlowConfig], error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    name = ".".join(path)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        close = difflib.get_close_matches(name, _all_names(model), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else "; see `pref settings`"
        return f"setting {name}: no such setting{hint}"
    found, expected = repr(error.get("input")), str(error["msg"])
    expected = expected.removeprefix("Input should be ")
    return f"setting {name}: found {found[:80]}, expected {expected}; see `pref settings`"


def _names(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _all_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    return [name for name, *_ in settings(model, prefix)]


def settings(
    model: type[BaseModel] = AttributesConfig, prefix: str = ""
) -> list[tuple[str, str, str]]:
    """Every setting as (dotted name, default, description)."""
    found: list[tuple[str, str, str]] = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found += settings(type(default), f"{prefix}{name}.")
        elif hasattr(default, "__dataclass_fields__"):
            found += [
                (f"{prefix}{name}.{inner}", _shown(getattr(default, inner)), "")
                for inner in default.__dataclass_fields__
            ]
        else:
            found.append((f"{prefix}{name}", _shown(default), field.description or ""))
    return found


def _shown(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, tuple) else json.dumps(list(value))
