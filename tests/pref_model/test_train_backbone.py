import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from benchmarks.training import embed, tiny_backbone, token_world
from pref_model.backbone import Backbone, LoraLinear, add_lora, merge_lora
from pref_model.backbone_config import BackboneConfig, BackboneRun
from pref_model.backbone_texts import make_token_texts, pad_texts
from pref_model.errors import BadArray, BadSetting
from pref_model.likelihood import log_likelihood
from pref_model.model import FitConfig, RunConfig
from pref_model.train_backbone import fit_backbone

FIT = FitConfig(d=4, head_l2=(3.0,), steps=30)
CONFIG = BackboneConfig(
    backbone_learning_rate=3e-3, steps=36, batch_size=16, warmup_steps=2, evaluate_every=6
)


@pytest.fixture(scope="module")
def world():
    return token_world(n_users=50, n_pairs=60)


def tiny_bert():
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=80,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    return Backbone(BertModel(config).eval(), (1, 2), "mean", has_length=True)


def fitted(world, backbone=None, config=CONFIG, run=None, fit=FIT, is_validated=True):
    backbone = backbone or tiny_backbone()
    found = fit_backbone(
        backbone,
        world.texts,
        world.first,
        world.second,
        world.part("train"),
        world.n_seen_users,
        fit,
        config,
        run or BackboneRun(),
        world.part("validation") if is_validated else None,
    )
    return backbone, found


@pytest.fixture(scope="module")
def trained(world):
    return fitted(world)


def weights_of(backbone, found):
    parts = [found.model.head.ravel(), found.model.user_weights.ravel()]
    return np.concatenate(parts + [p.numpy().ravel() for p in backbone.network.parameters()])


def test_training_starts_at_the_frozen_fit_and_improves_on_it(world, trained):
    history = trained[1].model.history
    _, frozen = fitted(world, config=BackboneConfig(steps=0))
    assert history[0] == frozen.model.history[0]
    assert min(p.validation_nll for p in history) < history[0].validation_nll - 0.01


def test_kept_weights_give_the_best_look_when_texts_are_encoded_again(world, trained):
    backbone, found = trained
    embeddings = embed(backbone, world.texts)
    phi = found.model.pair_features(embeddings[world.first] - embeddings[world.second])
    user, pair, label, _ = world.part("validation")
    margin = np.sum(found.model.user_weights[user].astype(float) * phi[pair], axis=1)
    best = min(p.validation_nll for p in found.model.history)
    assert -log_likelihood(margin, label).mean() == pytest.approx(best, abs=1e-5)


def test_two_passes_a_pair_serve_every_label(world, trained):
    cells = world.part("train").user.size
    assert trained[1].passes_an_epoch == 2 * world.n_seen_pairs
    assert trained[1].passes.training == 2 * world.n_seen_pairs * 12  # 36 steps, 3 an epoch
    _, single = fitted(
        world, config=BackboneConfig(steps=1, batch_size=64, grouping="label"), fit=FIT
    )
    assert single.passes_an_epoch == 2 * cells
    assert single.passes.training == 2 * 64


def test_both_groupings_sum_to_the_same_gradient_step_on_the_whole_data(world):
    n_cells = world.part("train").user.size
    found = []
    for grouping, size in (("pair", world.n_seen_pairs), ("label", n_cells)):
        config = BackboneConfig(
            backbone_learning_rate=1e-3, steps=1, batch_size=size, grouping=grouping, clip_norm=0.0
        )
        found.append(weights_of(*fitted(world, config=config, is_validated=False)))
    np.testing.assert_allclose(found[0], found[1], atol=5e-5)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_bert])
def test_cutting_a_step_into_small_forward_passes_changes_only_rounding(world, make):
    config = BackboneConfig(steps=2, batch_size=8, warmup_steps=0, evaluate_every=2)
    whole = weights_of(*fitted(world, make(), config, is_validated=False))
    cut = weights_of(
        *fitted(world, make(), config, BackboneRun(micro_tokens=1), is_validated=False)
    )
    np.testing.assert_allclose(cut, whole, atol=2e-4)


def test_gradient_checkpointing_and_compiling_change_only_rounding(world):
    config = BackboneConfig(steps=2, batch_size=8, warmup_steps=0, evaluate_every=2)
    plain = weights_of(*fitted(world, config=config, is_validated=False))
    for run in (
        BackboneRun(has_gradient_checkpointing=True),
        BackboneRun(compile_backend="eager", pad_multiple=48),
    ):
        found = weights_of(*fitted(world, config=config, run=run, is_validated=False))
        np.testing.assert_allclose(found, plain, atol=2e-4)


def test_bf16_keeps_float32_masters_and_follows_float32(world, trained):
    backbone, found = fitted(world, run=BackboneRun(precision="bf16"))
    assert {p.dtype for p in backbone.network.parameters()} == {torch.float32}
    here = min(p.validation_nll for p in found.model.history)
    there = min(p.validation_nll for p in trained[1].model.history)
    assert here == pytest.approx(there, abs=0.02)


def test_adapters_leave_the_base_alone_until_they_are_merged(world):
    config = BackboneConfig(
        backbone_learning_rate=1e-2, steps=24, batch_size=16, lora_rank=4, evaluate_every=6
    )
    backbone, found = fitted(world, config=config)
    assert not any(isinstance(module, LoraLinear) for module in backbone.modules())
    fresh = tiny_backbone()
    changed = [
        name
        for (name, a), b in zip(
            backbone.network.named_parameters(), fresh.network.parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert changed
    assert all("proj" in name and name.endswith("weight") for name in changed)
    losses = [p.validation_nll for p in found.model.history]
    assert min(losses) < losses[0]


def test_a_fresh_adapter_computes_what_the_network_did():
    plain, adapted = tiny_bert(), tiny_bert()
    texts = make_token_texts(np.arange(1, 30), np.array([0, 12, 29]))
    before = embed(plain, texts)
    assert add_lora(adapted, 3, 8.0) > 10
    np.testing.assert_array_equal(embed(adapted, texts), before)
    merge_lora(adapted)
    np.testing.assert_array_equal(embed(adapted, texts), before)


def test_padding_changes_no_embedding():
    texts = make_token_texts(np.arange(1, 30), np.array([0, 4, 29]), np.array([1, 2]))
    for backbone in (tiny_backbone(), tiny_bert()):
        with torch.no_grad():
            alone = backbone(*pad_texts(texts, np.array([0]), 0))
            padded = backbone(*pad_texts(texts, np.array([0, 1]), 0, multiple=32))
        np.testing.assert_allclose(padded[0].numpy(), alone[0].numpy(), atol=1e-5)


def test_the_same_seed_gives_the_same_bits(world, trained):
    again = fitted(world)
    assert weights_of(*again).tobytes() == weights_of(*trained).tobytes()


def test_without_validation_the_last_step_is_kept(world):
    _, found = fitted(world, is_validated=False)
    assert [p.step for p in found.model.history] == [0, 6, 12, 18, 24, 30, 36]
    assert all(p.validation_nll is None for p in found.model.history)


def test_bad_requests_are_told_in_one_line(world):
    with pytest.raises(BadSetting, match="grouping='user'"):
        BackboneConfig(grouping="user")
    with pytest.raises(BadSetting, match="batch_size=0"):
        BackboneConfig(batch_size=0)
    with pytest.raises(BadSetting, match="precision='fp8'"):
        BackboneRun(precision="fp8")
    with pytest.raises(BadArray, match="expected 0 to 119"):
        fit_backbone(
            tiny_backbone(),
            world.texts,
            world.first,
            world.second + 1,
            world.part("train"),
            world.n_seen_users,
            FIT,
            CONFIG,
            BackboneRun(RunConfig()),
        )
    with pytest.raises(BadArray, match="no empty text"):
        make_token_texts(np.arange(4), np.array([0, 2, 2, 4]))
    with pytest.raises(BadArray, match="empty or outlying response"):
        make_token_texts(np.arange(4), np.array([0, 4]), np.array([4]))
