"""The simulator's settings: checked, and named by a fingerprint."""

from dataclasses import replace
from typing import Any

import pytest

from tasks._llm.simulator.errors import SettingsInvalid
from tasks._llm.simulator.settings import SimulatorSettings


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1.5},
        {"seed": True},
        {"noise_scale": -0.1},
        {"noise_scale": "0.3"},
        {"noise_scale": float("nan")},
        {"position_bias_logit": float("inf")},
        {"sloppy_rate": 1.01},
        {"off_menu_rate": -0.01},
        {"common_taste": -1},
        {"latency_s": 1e9},
        {"api_key": 7},
        {"noise": 1.0},
    ],
)
def test_a_value_that_is_not_allowed_gives_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid, match="expected") as caught:
        SimulatorSettings.from_mapping(values)
    assert "\n" not in str(caught.value)
    assert next(iter(values)) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", "7"])
def test_settings_that_are_no_json_object_give_one_line(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="expected an object") as caught:
        SimulatorSettings.from_json(text)
    assert "\n" not in str(caught.value)


def test_settings_survive_json() -> None:
    settings = SimulatorSettings(seed=3, sloppy_rate=0.5, api_key="k")
    assert SimulatorSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"noise_scale": 1.0},
        {"position_bias_logit": 0.0},
        {"sloppy_rate": 0.5},
        {"off_menu_rate": 0.5},
        {"common_taste": 0.0},
    ],
)
def test_settings_that_change_answers_change_the_fingerprint(changed: dict[str, Any]) -> None:
    assert (
        replace(SimulatorSettings(), **changed).fingerprint() != SimulatorSettings().fingerprint()
    )


def test_latency_and_key_do_not_change_the_fingerprint() -> None:
    fingerprint = SimulatorSettings().fingerprint()
    assert SimulatorSettings(latency_s=0.2, api_key="k").fingerprint() == fingerprint
    assert len(fingerprint) == 12
    assert int(fingerprint, 16) >= 0


def test_a_whole_number_and_its_float_are_one_setting() -> None:
    one, other = SimulatorSettings(noise_scale=1), SimulatorSettings(noise_scale=1.0)
    assert one.fingerprint() == other.fingerprint()


def test_every_file_that_makes_answers_is_in_the_fingerprint() -> None:
    from importlib import resources

    from tasks._llm.simulator import settings

    not_answers = {
        "__init__.py",
        "__main__.py",
        "batches.py",
        "errors.py",
        "faults.py",
        "limits.py",
        "options.py",
        "process.py",
        "server.py",
        "settings.py",
        "wire.py",
    }
    folder = resources.files("tasks._llm.simulator")
    files = {one.name for one in folder.iterdir() if one.name.endswith((".py", ".toml"))}
    assert files - not_answers == set(settings._ANSWER_SOURCES)
