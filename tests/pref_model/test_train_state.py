import json

import numpy as np
import pytest
import torch

from benchmarks.training import tiny_backbone, token_world
from pref_model import train_backbone_loop, train_head
from pref_model.backbone_config import BackboneConfig, BackboneRun
from pref_model.checkpoint import save_model
from pref_model.errors import BadSetting, CheckpointCorrupt
from pref_model.fit import fit_reward_model
from pref_model.model import FitConfig, RunConfig
from pref_model.train_backbone import fit_backbone
from pref_model.train_state import Checkpoints, fingerprint, load_state, save_state


class Killed(Exception):
    """Stands for the end of the process; the drills kill real ones."""


def dies_after(module, monkeypatch, n_states):
    """Let the n-th state be saved, then stop, as if the process had been killed there."""
    real, saved = module.save_state, []

    def save(*args):
        real(*args)
        saved.append(args)
        if len(saved) == n_states:
            raise Killed

    monkeypatch.setattr(module, "save_state", save)


@pytest.mark.parametrize("n_states", [1, 3, 4, 9])
def test_frozen_fit_resumes_to_the_same_bytes(
    planted_world, cells, tmp_path, monkeypatch, n_states
):
    world = planted_world()
    train = cells(world.labels, np.arange(60), np.arange(60))
    check = cells(world.labels, np.arange(60), np.arange(60, 80))
    config = FitConfig(d=2, head_l2=(1.0, 10.0, 50.0), steps=30)

    def fit(checkpoints=None):
        return fit_reward_model(
            world.differences, train, 60, config, RunConfig(), check, checkpoints
        )

    policy = Checkpoints(tmp_path, every=7)
    with monkeypatch.context() as patched:
        dies_after(train_head, patched, n_states)
        with pytest.raises(Killed):
            fit(policy)
    assert len(list(tmp_path.iterdir())) == 1
    assert save_model(fit(policy)) == save_model(fit())


@pytest.mark.parametrize(("n_states", "lora_rank"), [(1, 0), (4, 0), (3, 2)])
def test_backbone_training_resumes_to_the_same_bytes(tmp_path, monkeypatch, n_states, lora_rank):
    world = token_world(n_users=20, n_pairs=25)
    config = BackboneConfig(
        backbone_learning_rate=1e-3,
        steps=12,
        batch_size=6,
        evaluate_every=4,
        lora_rank=lora_rank,
        warmup_steps=4,
    )

    def fit(checkpoints=None):
        backbone = tiny_backbone()
        found = fit_backbone(
            backbone,
            world.texts,
            world.first,
            world.second,
            world.part("train"),
            world.n_seen_users,
            FitConfig(d=2, head_l2=(3.0,), steps=10),
            config,
            BackboneRun(micro_tokens=200),
            world.part("validation"),
            checkpoints,
        )
        weights = [value.numpy().tobytes() for value in backbone.network.parameters()]
        return weights, save_model(found.model), found.passes

    policy = Checkpoints(tmp_path, every=3)
    with monkeypatch.context() as patched:
        dies_after(train_backbone_loop, patched, n_states)
        with pytest.raises(Killed):
            fit(policy)
    resumed, whole = fit(policy), fit()
    assert resumed[:2] == whole[:2]
    assert resumed[2].training == whole[2].training


def test_a_state_comes_back_bit_for_bit_and_replaces_the_older_one(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(3)}
    loss = 0.1 + 0.2
    save_state(tmp_path, 3, tensors, {"fingerprint": "x", "loss": loss})
    save_state(tmp_path, 12, tensors, {"fingerprint": "x", "loss": loss})
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000000012"]
    found = load_state(tmp_path, "x")
    assert found.facts["loss"] == loss
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert load_state(tmp_path / "none", "x") is None


def test_an_unfinished_state_is_ignored_and_cleared(tmp_path):
    save_state(tmp_path, 1, {"a": torch.ones(1)}, {"fingerprint": "x"})
    half = tmp_path / ".writing-000000000002"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"\x00")
    assert load_state(tmp_path, "x").tensors["a"] == 1.0
    save_state(tmp_path, 3, {"a": torch.zeros(1)}, {"fingerprint": "x"})
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000000003"]


def test_another_fits_state_and_a_damaged_one_are_refused_in_one_line(tmp_path):
    save_state(tmp_path, 1, {"a": torch.ones(1)}, {"fingerprint": "x"})
    with pytest.raises(CheckpointCorrupt, match="other data or settings"):
        load_state(tmp_path, "y")
    facts = tmp_path / "state-000000000001" / "facts.json"
    facts.write_text(json.dumps({"format": "other"}))
    with pytest.raises(CheckpointCorrupt, match="not of format"):
        load_state(tmp_path, "x")
    facts.write_text("{")
    with pytest.raises(CheckpointCorrupt, match="cannot be read") as caught:
        load_state(tmp_path, "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadSetting, match="every=0"):
        Checkpoints(tmp_path, every=0)


def test_fingerprint_tells_apart_settings_values_shapes_and_types():
    zeros = np.zeros((2, 3))
    prints = {
        fingerprint(1, {"a": zeros}),
        fingerprint(2, {"a": zeros}),
        fingerprint(1, {"b": zeros}),
        fingerprint(1, {"a": zeros.T}),
        fingerprint(1, {"a": zeros.astype(np.float32)}),
        fingerprint(1, {"a": zeros + 1e-300}),
    }
    assert len(prints) == 6
    assert fingerprint(1, {"a": zeros}) in prints
