from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
)

from pref_model.checkpoint import load_model
from tasks._stages import encode, fit, tune
from tasks._stages.stage import Inputs
from tasks.config import EncoderConfig, FlowBackboneConfig, FlowFitConfig
from tests.tasks.stages import worlds
from tests.tasks.stages.conftest import Bench
from warehouse.store import Warehouse

WORDS = list("abcdefghijklmnopqrstuvwx")
FIT = FlowFitConfig(d=2, head_l2=(3.0,), steps=60)
TUNING = FlowBackboneConfig(
    is_trained=True,
    backbone_learning_rate=3e-3,
    steps=60,
    batch_size=16,
    warmup_steps=2,
    evaluate_every=10,
)


def save_network(folder: Path, kind: str) -> Path:
    """A network of a few thousand random weights, with a tokenizer of letters."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    network = (
        Qwen2Model(Qwen2Config(num_key_value_heads=1, **sizes))
        if kind == "qwen2"
        else BertModel(BertConfig(**sizes))
    )
    network.save_pretrained(folder)
    symbols = [*WORDS, *sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(WORDS))]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *symbols]
    vocabulary = {word: place for place, word in enumerate(names)}
    # transformers rebuilds its own class for Qwen2, which is byte-level BPE.
    plain = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if kind == "bert":
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    return folder


def put_word_world(bench: Bench) -> None:
    """Users who care for how often two words occur in a response, some for and some against."""
    rng = np.random.default_rng(0)
    worlds.put_texts(bench)
    rows = bench.rows("responses")
    counts = np.zeros((len(rows), 2))
    for number, row in enumerate(rows):
        words = rng.choice(WORDS, 10, p=[0.15, 0.15, *[0.7 / 22] * 22])
        row["response_text"] = " ".join(words)
        counts[number] = [(words == WORDS[0]).sum(), (words == WORDS[1]).sum()]
    pairs = bench.rows("pairs")
    bench.put("responses", rows, ("prompts",))
    bench.put("pairs", pairs, ("prompts", "responses"))
    users = 1.5 * rng.standard_normal((worlds.N_USERS, 2))
    worlds.put_preferences(bench, users @ (counts[0::2] - counts[1::2]).T, seed=3)


def tuning(folder: Path, **changed: Any) -> dict[str, Any]:
    encoder = encode.describe_encoder(EncoderConfig(name=str(folder), max_tokens=48))
    config = tune.describe_tuning(encoder, FIT, TUNING, seed=0)
    return {**config, "backbone": {**config["backbone"], **changed}}


def fitting(config: dict[str, Any]) -> dict[str, Any]:
    return {**config["fit"], "encoder_id": config["encoder"]["encoder_id"], "seed": 0}


def best_look(bench: Bench) -> float:
    """Validation likelihood of the fit that was kept, nats a label."""
    folder = bench.warehouse.folder("models", bench.versions["models"])
    looks = load_model(folder, "pref").history
    return min(point.validation_nll for point in looks if point.validation_nll is not None)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [("qwen2", {}), ("bert", {"lora_rank": 4, "backbone_learning_rate": 1e-2})],
)
def test_a_trained_network_goes_through_encoding_and_fit_and_predicts_better(
    bench: Bench, tmp_path: Path, kind: str, changed: dict[str, Any]
) -> None:
    put_word_world(bench)
    config = tuning(save_network(tmp_path / kind, kind), **changed)
    bench.run(encode.STAGE, **config["encoder"])
    bench.run(fit.STAGE, **fitting(config))
    frozen = best_look(bench)
    plan = bench.run(tune.STAGE, **config)
    assert not list(bench.warehouse.staging("tune", plan.version).iterdir())
    (row,) = bench.rows("backbones")
    assert row["start_validation_nll"] == pytest.approx(frozen, abs=1e-3)
    assert row["validation_nll"] < frozen - 0.02
    encoded = bench.run(encode.STAGE, **config["encoder"])
    assert encoded.parents["backbones"] == plan.version
    bench.run(fit.STAGE, **fitting(config))
    # The head is fitted again on the trained features, and loses nothing by it.
    assert best_look(bench) < row["validation_nll"] + 0.02
    (used,) = {model["encoder"] for model in bench.rows("models")}
    assert used.endswith(f":tuned={plan.version}")


def test_speed_is_no_part_of_the_version_and_rounding_is(bench: Bench, tmp_path: Path) -> None:
    put_word_world(bench)
    config = tuning(save_network(tmp_path / "qwen2", "qwen2"))
    plan = bench.inputs(tune.STAGE, **config).plan
    assert "device" not in json.dumps(plan.config)
    rounded = bench.inputs(tune.STAGE, **tuning(tmp_path / "qwen2", precision="bf16")).plan
    assert rounded.version != plan.version


_PROGRAM = """
import json, sys
from tasks._runs import RunIds, run_stage
from tasks._stages.tune import STAGE
from tasks.types import StagePlan
run_stage(StagePlan.model_validate_json(sys.argv[1]), STAGE, RunIds("test", None))
"""


def states(warehouse: Warehouse, version: str) -> list[Path]:
    return list(warehouse.staging("tune", version).glob("out/states/state-*"))


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    bench: Bench, tmp_path: Path
) -> None:
    put_word_world(bench)
    config = tuning(save_network(tmp_path / "qwen2", "qwen2"), steps=400, patience=400)
    plan = bench.inputs(tune.STAGE, **config).plan
    plan = plan.model_copy(update={"how": {"checkpoint_every": 20}})
    words = [sys.executable, "-c", _PROGRAM, plan.model_dump_json()]
    process = subprocess.Popen(words)
    while not states(bench.warehouse, plan.version):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.0)  # the training program is told to end, which is not waited for
    at_kill = states(bench.warehouse, plan.version)
    time.sleep(2.0)
    assert states(bench.warehouse, plan.version) == at_kill
    assert not bench.warehouse.has("backbones", plan.version)
    subprocess.run(words, check=True)
    resumed = bench.warehouse.manifest("backbones", plan.version).content_sha256
    folder = bench.warehouse.folder("backbones", plan.version)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    subprocess.run(words, check=True)
    assert bench.warehouse.manifest("backbones", plan.version).content_sha256 == resumed


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(bench: Bench, tmp_path: Path) -> None:
    put_word_world(bench)
    config = tuning(save_network(tmp_path / "qwen2", "qwen2"), steps=6)
    found = []
    for processes in (1, 2):
        plan = bench.inputs(tune.STAGE, **config).plan
        inputs = Inputs(bench.warehouse, plan.model_copy(update={"how": {"processes": processes}}))
        files = tune.STAGE.build(inputs)["backbones"].files
        found.append(load_file(files["backbone/model.safetensors"]))
        bench.warehouse.clear_staging("tune", plan.version)
    for name, weights in found[0].items():
        np.testing.assert_allclose(found[1][name], weights, atol=1e-4)
