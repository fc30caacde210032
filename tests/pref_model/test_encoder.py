import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from pref_model import encoder_spec
from pref_model.encoder import load_encoder
from pref_model.encoder_spec import MINILM_SHA256, resolve_encoder
from pref_model.errors import BadArray, BadSetting, EncoderMismatch, EncoderMissing

WORDS = [*"abcdefghij", "what", "is", "red", "green", "blue", "one", "two", "three"]
WORDS += ["yes", "no", "please", "thanks"]
PROMPTS = ["what is a b c", "red green blue one two three a b", "what is", "a", "b c", "d"]
ANSWERS = ["red", "green blue please " * 9, "", "one two three", "yes", "no no no thanks"]


def tokenizer(**special):
    names = [*special.values(), "[UNK]"]
    vocabulary = {word: i for i, word in enumerate([*names, *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", **special)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=48,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer(pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "causal"])
@pytest.mark.parametrize("context", ["response", "prompt_response"])
def test_embeddings_do_not_depend_on_batching_order_or_company(kind, context, request):
    spec = resolve_encoder(str(request.getfixturevalue(kind)), context=context)
    encoder = load_encoder(spec)
    whole = encoder.encode(PROMPTS, ANSWERS).embeddings
    assert whole.dtype == np.float32
    assert whole.shape == (6, encoder.width)
    np.testing.assert_allclose(
        encoder.encode(PROMPTS, ANSWERS, batch_tokens=1).embeddings, whole, atol=1e-5
    )
    order = [4, 0, 5, 2, 1, 3, 0]
    again = encoder.encode([PROMPTS[i] for i in order], [ANSWERS[i] for i in order])
    np.testing.assert_allclose(again.embeddings, whole[order], atol=1e-5)
    assert encoder.encode([], []).embeddings.shape == (0, encoder.width)


def test_bert_pools_the_mean_of_response_tokens_at_each_layer(bert):
    spec = resolve_encoder(str(bert), layers=(1, 3), context="prompt_response")
    found = load_encoder(spec).encode(["what is a"], ["red green"]).embeddings[0]
    network = BertModel.from_pretrained(bert).eval()
    names = tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    ids = names.convert_tokens_to_ids(["[CLS]", "what", "is", "a", "red", "green", "[SEP]"])
    with torch.no_grad():
        states = network(torch.tensor([ids]), output_hidden_states=True).hidden_states
    expected = [states[layer][0, 4:6].mean(dim=0).numpy() for layer in (1, 3)]
    np.testing.assert_allclose(found[:-1], np.concatenate(expected), atol=1e-5)
    assert found[-1] == pytest.approx(np.log1p(2.0))


def test_causal_models_pool_the_last_real_token_of_the_last_layer(causal):
    spec = resolve_encoder(str(causal))
    assert (spec.pooling, spec.layers, spec.context) == ("last", (2,), "prompt_response")
    encoder = load_encoder(spec)
    found = encoder.encode(["what is"] * 2, ["red", "red green blue one two"]).embeddings
    network = Qwen2ForCausalLM.from_pretrained(causal).eval()
    words = AutoTokenizer.from_pretrained(causal)  # the class transformers picks for Qwen2
    ids = words("what is\n\n")["input_ids"] + words("red")["input_ids"]
    with torch.no_grad():
        state = network.model(torch.tensor([ids])).last_hidden_state
    np.testing.assert_allclose(found[0], state[0, -1].numpy(), atol=1e-5)


def test_batches_come_in_few_shapes_and_none_is_longer_than_the_network_takes(bert, monkeypatch):
    # 48 positions are a multiple of what lengths are rounded up to; 41 are none.
    encoder = load_encoder(resolve_encoder(str(bert), max_tokens=41, context="response"))
    shapes = []
    network = encoder.backbone.forward

    def seen(ids, *rest):
        shapes.append(tuple(ids.shape))
        return network(ids, *rest)

    monkeypatch.setattr(encoder.backbone, "forward", seen)
    texts = [" ".join(["a"] * n) for n in range(1, 60)]
    found = encoder.encode([""] * len(texts), texts, batch_tokens=160)
    assert found.n_truncated == 20
    assert {length for _, length in shapes} == {16, 32, 41}
    assert len(set(shapes)) <= 2 * 3
    assert all(size * length <= 160 for size, length in shapes)


def test_long_texts_are_cut_and_counted_and_a_long_prompt_leaves_room_for_the_response(bert):
    encoder = load_encoder(resolve_encoder(str(bert), max_tokens=12, context="prompt_response"))
    found = encoder.encode(["a " * 50, "a", "a"], ["b " * 50, "c " * 50, "c"])
    assert found.n_truncated == 2
    np.testing.assert_array_equal(found.n_tokens, [5, 9, 1])


def test_the_prompt_is_read_only_where_the_context_says_so(bert):
    alone = load_encoder(resolve_encoder(str(bert), context="response"))
    a = alone.encode(["what is a", "red"], ["blue one", "blue one"]).embeddings
    np.testing.assert_array_equal(a[0], a[1])
    aware = load_encoder(resolve_encoder(str(bert), context="prompt_response"))
    b = aware.encode(["what is a", "red"], ["blue one", "blue one"]).embeddings
    assert np.abs(b[0] - b[1]).max() > 1e-3


def test_identity_changes_with_everything_that_changes_an_embedding(bert):
    base = resolve_encoder(str(bert))
    others = [
        resolve_encoder(str(bert), layers=(1,)),
        resolve_encoder(str(bert), layers=(-1,)),
        resolve_encoder(str(bert), pooling="last"),
        resolve_encoder(str(bert), context="prompt_response"),
        resolve_encoder(str(bert), has_length=False),
        resolve_encoder(str(bert), max_tokens=20),
    ]
    assert len({spec.encoder_id for spec in [base, *others]}) == 7
    assert base.encoder_id == resolve_encoder(str(bert)).encoder_id
    assert str(bert) not in base.encoder_id


def test_identity_is_known_without_loading_torch():
    program = (
        "import sys\n"
        "from pref_model.encoder_spec import resolve_encoder\n"
        "print(resolve_encoder().encoder_id)\n"
        "import pref_model.adapt, pref_model.questions, pref_model.metrics, pref_model.svd\n"
        "import pref_model.distill, pref_model.likelihood, pref_model.checkpoint\n"
        "import pref_model.baselines, pref_model.bestofn, pref_model.model\n"
        "assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert MINILM_SHA256[:12] in done.stdout


def test_shipped_weights_that_are_not_the_promised_ones_are_refused(monkeypatch):
    monkeypatch.setattr(encoder_spec, "MINILM_SHA256", "0" * 64)
    with pytest.raises(EncoderMismatch, match="expected 000") as caught:
        resolve_encoder()
    assert "\n" not in str(caught.value)


def test_minilm_hears_paraphrase_in_its_last_layer_and_tone_in_the_lower_ones():
    texts = [
        "How do I boil an egg?",
        "What is the way to cook an egg in boiling water?",
        "The parliament passed a law on fishing.",
    ]
    last = load_encoder(resolve_encoder(layers=(6,), has_length=False))
    e = last.encode([""] * 3, texts).embeddings
    e = e / np.linalg.norm(e, axis=1, keepdims=True)
    assert e[0] @ e[1] > 0.7
    assert e[0] @ e[2] < 0.3
    default = resolve_encoder()
    assert default.layers == (1, 2, 3)
    assert default.sha256 == MINILM_SHA256
    assert load_encoder(default).width == 3 * 384 + 1


def test_missing_and_foreign_folders_are_told_in_one_line(tmp_path, monkeypatch, bert):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, words in [
        (str(tmp_path / "nowhere"), "no such folder"),
        (str(tmp_path), "config.json"),
        ("somebody/unheard-of-model", "HF_HUB_OFFLINE"),
    ]:
        with pytest.raises(EncoderMissing, match=words) as caught:
            resolve_encoder(name)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(EncoderMissing, match="safetensors"):
        resolve_encoder(str(tmp_path))
    with pytest.raises(BadSetting, match="layers"):
        resolve_encoder(str(bert), layers=(9,))
    with pytest.raises(BadSetting, match="max_tokens=4096"):
        resolve_encoder(str(bert), max_tokens=4096)
    with pytest.raises(BadSetting, match="int3"):
        load_encoder(str(bert), dtype="int3")
    with pytest.raises(BadArray, match="2 prompts"):
        load_encoder(str(bert)).encode(["a", "b"], ["c"])
