import json
from dataclasses import replace

import numpy as np
import pytest

from pref_model.checkpoint import load_model, save_model
from pref_model.errors import CheckpointCorrupt
from pref_model.model import FitConfig, FitPoint, RewardModel


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    return RewardModel(
        head=rng.standard_normal((2, 5)).astype(np.float32),
        feature_mean=np.zeros(5, dtype=np.float32),
        feature_scale=rng.uniform(1, 2, 5).astype(np.float32),
        user_weights=rng.standard_normal((4, 2)).astype(np.float32),
        config=FitConfig(d=2, ties="drop", head_l2=(0.1, 7.0)),
        head_l2=7.0,
        history=(FitPoint(7.0, 0, 0.7, 0.69), FitPoint(7.0, 10, 0.5, None)),
    )


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_saved_model_comes_back_bit_for_bit(model, tmp_path):
    write(tmp_path, save_model(model))
    again = load_model(tmp_path)
    for name in ("head", "feature_mean", "feature_scale", "user_weights"):
        before, after = getattr(model, name), getattr(again, name)
        assert before.dtype == after.dtype
        assert before.tobytes() == after.tobytes()
    assert again.config == model.config
    assert again.history == model.history
    assert save_model(again) == save_model(model)


def test_two_models_live_side_by_side_under_their_names(model, tmp_path):
    other = replace(model, head_l2=0.5)
    write(tmp_path, save_model(model, "pref") | save_model(other, "classic"))
    assert load_model(tmp_path, "pref").head_l2 == 7.0
    assert load_model(tmp_path, "classic").head_l2 == 0.5


def test_settings_are_sorted_json_and_equal_models_give_equal_bytes(model):
    files = save_model(model)
    settings = json.loads(files["model.json"])
    assert list(settings) == sorted(settings)
    assert save_model(replace(model)) == files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", None),
        ("model.json", None),
        ("model.safetensors", b"\x00\x01"),
        ("model.json", b"{"),
        ("model.json", b"[1]"),
        ("model.json", b'{"format": "pref-reward-model/1", "shapes": {}}'),
    ],
)
def test_a_damaged_model_is_told_in_one_line(model, tmp_path, name, content):
    write(tmp_path, save_model(model))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointCorrupt) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_setting_of_another_version_is_refused(model, tmp_path):
    files = save_model(model)
    settings = json.loads(files["model.json"])
    settings["config"]["momentum"] = 1
    files["model.json"] = json.dumps(settings).encode()
    write(tmp_path, files)
    with pytest.raises(CheckpointCorrupt, match="momentum"):
        load_model(tmp_path)
