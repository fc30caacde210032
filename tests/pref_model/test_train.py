import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from benchmarks.training import tiny_backbone, token_world
from pref_model.checkpoint import load_model
from pref_model.encoder import load_encoder
from pref_model.fit import fit_reward_model
from pref_model.train import main
from pref_model.train_data import read_settings

ROOT = Path(__file__).resolve().parents[2]
FIT = {"d": 3, "head_l2": [1.0, 10.0], "steps": 60}
BACKBONE = {
    "backbone_learning_rate": 1e-3,
    "steps": 40,
    "batch_size": 8,
    "warmup_steps": 4,
    "evaluate_every": 5,
}
# One process and two agree up to the order of float32 sums.
WEIGHT_TOLERANCE, LOSS_TOLERANCE = 2e-4, 1e-5


@pytest.fixture
def head_data(planted_world, cells, tmp_path):
    world = planted_world()
    folder = tmp_path / "data"
    folder.mkdir()
    train = cells(world.labels, np.arange(60), np.arange(60))
    check = cells(world.labels, np.arange(60), np.arange(60, 80))
    np.savez(folder / "preferences.npz", **train._asdict())
    save_file(check._asdict(), folder / "validation.safetensors")
    np.savez(folder / "pairs.npz", differences=world.differences)
    return folder, world, train, check


@pytest.fixture
def backbone_data(tmp_path):
    world = token_world(n_users=30, n_pairs=40)
    folder, encoder = tmp_path / "data", tmp_path / "encoder"
    folder.mkdir()
    np.savez(folder / "preferences.npz", **world.part("train")._asdict())
    np.savez(folder / "validation.npz", **world.part("validation")._asdict())
    np.savez(folder / "pairs.npz", first=world.first, second=world.second)
    np.savez(folder / "tokens.npz", **world.texts._asdict())
    tiny_backbone().network.save_pretrained(encoder)
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(encoder)
    return folder, encoder


def settings(path, **parts):
    path.write_text(json.dumps(parts))
    return path


def command(data, config, out, launcher=()):
    given = ["--data", str(data), "--config", str(config), "--out", str(out)]
    return [sys.executable, "-m", *launcher, "pref_model.train", *given]


def environment(home):
    # The launcher reads a settings file from HOME; a test must not meet the developer's.
    return {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}


def run(arguments, home):
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def files(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_plain_files_give_the_model_of_the_same_arrays(head_data, tmp_path, capsys):
    folder, world, train, check = head_data
    config = settings(tmp_path / "c.json", fit=FIT, run={"seed": 3})
    given = ["--data", str(folder), "--config", str(config), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["processes"] == 1
    asked = read_settings(config)
    expected = fit_reward_model(world.differences, train, 60, asked.fit, asked.run.run, check)
    found = load_model(tmp_path / "out")
    np.testing.assert_array_equal(found.head, expected.head)
    np.testing.assert_array_equal(found.user_weights, expected.user_weights)
    assert sorted(files(tmp_path / "out")) == ["model.json", "model.safetensors"]


def test_a_trained_backbone_is_an_encoder_like_any_other(backbone_data, tmp_path, capsys):
    folder, encoder = backbone_data
    parts = {"fit": {**FIT, "steps": 10}, "backbone": {**BACKBONE, "steps": 5}}
    config = settings(tmp_path / "c.json", encoder=str(encoder), **parts)
    given = ["--data", str(folder), "--config", str(config), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["training"] == 5 * 2 * 8
    trained = load_encoder(str(tmp_path / "out" / "backbone"))
    assert trained.width == load_model(tmp_path / "out").head.shape[1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object"),
        ('{"fits": {}}', "found \\['fits'\\]"),
        ('{"fit": {"depth": 3}}', "found \\['depth'\\]"),
        ('{"run": {"precision": "fp8"}}', "precision='fp8'"),
        ('{"fit": 3}', "'fit' is int"),
        ('{"checkpoint_every": -1}', "checkpoint_every=-1"),
    ],
)
def test_wrong_settings_are_told_in_one_line(tmp_path, capsys, content, told):
    config = tmp_path / "c.json"
    config.write_text(content)
    assert main(["--data", str(tmp_path), "--config", str(config), "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(told, message)


def test_missing_and_unreadable_data_are_told_in_one_line(head_data, tmp_path, capsys):
    folder, *_ = head_data
    config = settings(tmp_path / "c.json")
    given = ["--data", str(folder), "--config", str(config), "--out", str(tmp_path / "out")]
    (folder / "pairs.npz").write_bytes(b"not an archive")
    assert main(given) == 2
    assert "expected plain arrays" in capsys.readouterr().err
    (folder / "pairs.npz").unlink()
    assert main(given) == 2
    assert "no pairs.npz or pairs.safetensors" in capsys.readouterr().err
    np.savez(folder / "pairs.npz", embeddings=np.eye(4), first=[0, 9], second=[1, 2])
    assert main(given) == 2
    assert "expected 0 to 3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["head", "backbone"])
def test_a_run_killed_at_a_random_step_resumes_to_the_same_bytes(kind, request, tmp_path):
    folder, second, *_ = request.getfixturevalue(f"{kind}_data")
    parts = {"fit": {**FIT, "steps": 300}, "checkpoint_every": 3}
    if kind == "backbone":
        parts |= {"fit": FIT, "encoder": str(second), "backbone": BACKBONE}
    config = settings(tmp_path / "c.json", **parts)
    run(command(folder, config, tmp_path / "whole"), tmp_path)
    arguments = command(folder, config, tmp_path / "killed")
    target = random.Random(os.getpid()).randint(3, 36)
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.DEVNULL
    )
    states = tmp_path / "killed" / "states"
    while process.poll() is None:
        numbers = [int(path.name[6:]) for path in states.glob("state-*")]
        if numbers and max(numbers) >= target:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.json").exists()
    run(arguments, tmp_path)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["head", "backbone"])
def test_two_processes_give_the_model_of_one(kind, request, tmp_path):
    folder, second, *_ = request.getfixturevalue(f"{kind}_data")
    parts = {"fit": FIT, "run": {"micro_tokens": 300}}
    if kind == "backbone":
        parts |= {"encoder": str(second), "backbone": {**BACKBONE, "batch_size": 7}}
    config = settings(tmp_path / "c.json", **parts)
    found = []
    for processes in (1, 2):
        # On processors alone the launcher starts several processes under this name only.
        several = ["--multi_gpu"] if processes > 1 else ["--cpu"]
        launcher = ["accelerate.commands.launch", *several, "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0", "-m"]
        out = tmp_path / f"out{processes}"
        facts = run(command(folder, config, out, launcher), tmp_path)
        assert facts.pop("processes") == processes
        found.append((facts, load_file(out / "model.safetensors"), out))
    (one, one_weights, one_out), (two, two_weights, two_out) = found
    assert one["validation_nll"] == pytest.approx(two["validation_nll"], abs=LOSS_TOLERANCE)
    assert one["train_nll"] == pytest.approx(two["train_nll"], abs=LOSS_TOLERANCE)
    for name, weights in one_weights.items():
        np.testing.assert_allclose(two_weights[name], weights, atol=WEIGHT_TOLERANCE)
    if kind == "backbone":
        assert one["training"] == two["training"]
        there = load_file(two_out / "backbone" / "model.safetensors")
        for name, weights in load_file(one_out / "backbone" / "model.safetensors").items():
            np.testing.assert_allclose(there[name], weights, atol=WEIGHT_TOLERANCE)
