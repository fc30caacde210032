"""The two commands of `pref_model.vas`, on a tiny language model in a folder."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pref_model import vas
from pref_model.checkpoint import save_model
from pref_model.encoder import load_encoder
from pref_model.model import FitConfig, RewardModel

# Loads a language model and an encoder.
pytestmark = pytest.mark.slow

WORDS = ["<end>", "tell", "me", "of", "roses", "kindly", "please", "rude", "no", "more"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model, fitted base rewards, prompts and users."""
    root = tmp_path_factory.mktemp("vas")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(root / "lm")
    words = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<end>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(root / "lm")
    width = load_encoder().width
    rng = np.random.default_rng(0)
    model = RewardModel(
        head=(rng.standard_normal((2, width)) / np.sqrt(width)).astype(np.float32),
        feature_mean=np.zeros(width, np.float32),
        feature_scale=np.ones(width, np.float32),
        user_weights=np.zeros((1, 2), np.float32),
        config=FitConfig(d=2),
        head_l2=1.0,
    )
    (root / "rewards").mkdir()
    for name, content in save_model(model, "pref").items():
        (root / "rewards" / name).write_bytes(content)
    (root / "prompts.txt").write_text("tell me of roses\n\nno more\n")
    (root / "users.json").write_text(json.dumps({"ann": [1.0, 0.0], "bob": [-1.0, 0.0]}))
    return root


def words(folder, action, *more):
    common = ["--model", str(folder / "lm"), "--prompts", str(folder / "prompts.txt")]
    return [action, *common, "--max-new-tokens", "6", "--device", "cpu", *more]


@pytest.fixture(scope="module")
def head(folder):
    given = ("--rewards", str(folder / "rewards"), "--out", str(folder / "head"))
    assert vas.main(words(folder, "train", *given, "--samples", "24", "--steps", "400")) == 0
    return folder / "head"


def written(folder, head, capsys, *more):
    given = ("--head", str(head), "--weights", str(folder / "users.json"))
    capsys.readouterr()
    assert vas.main(words(folder, "write", *given, *more)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_head_is_trained_on_a_model_by_name_and_writes_for_every_user(folder, head, capsys):
    lines = written(folder, head, capsys, "--beta", "20", "--top-k", "10")
    assert [(line["user"], line["prompt"]) for line in lines] == [
        (user, prompt) for user in ("ann", "bob") for prompt in ("tell me of roses", "no more")
    ]
    ann, bob = (
        [line["response"] for line in lines if line["user"] == one] for one in ("ann", "bob")
    )
    assert ann != bob
    assert all("<end>" not in one for one in ann)


def test_with_beta_0_all_users_get_the_model_s_own_response(folder, head, capsys):
    lines = written(folder, head, capsys, "--beta", "0")
    assert lines[0]["response"] == lines[2]["response"]
    assert lines[1]["response"] == lines[3]["response"]


def test_what_cannot_be_read_is_one_line_and_exit_code_2(folder, head, capsys, tmp_path):
    given = ("--head", str(tmp_path), "--weights", str(folder / "users.json"))
    assert vas.main(words(folder, "write", *given)) == 2
    found = capsys.readouterr().err.strip()
    assert found.startswith("error: value head ")
    assert "\n" not in found
    settings = json.loads((head / "head.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "head.json").write_text(json.dumps(settings | {"model": "another"}))
    (other / "head.safetensors").write_bytes((head / "head.safetensors").read_bytes())
    given = ("--head", str(other), "--weights", str(folder / "users.json"))
    assert vas.main(words(folder, "write", *given)) == 2
    assert "trained on another" in capsys.readouterr().err
