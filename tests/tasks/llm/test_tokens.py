import hashlib
import json
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tasks._llm import tokens
from tasks._llm.tokens import TokenCount, count_tokens

MODEL = "planted/tiny"


@pytest.fixture(autouse=True)
def without_network_or_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    tokens._counter.cache_clear()


def write_tokenizer(folder: Path) -> None:
    """One token a word."""
    words = {"[UNK]": 0, "which": 1, "one": 2}
    folder.mkdir(parents=True)
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    whole = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(whole))


def test_a_model_in_a_folder_is_counted_by_its_own_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tiny")
    assert count_tokens(str(tmp_path / "tiny"), "which one which") == TokenCount(3, False)
    assert count_tokens(str(tmp_path / "tiny"), "") == TokenCount(0, False)


def test_a_model_in_the_local_cache_is_counted_by_its_own_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--planted--tiny"
    write_tokenizer(place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert count_tokens(MODEL, "which one") == TokenCount(2, False)


@pytest.mark.parametrize(
    "model",
    [MODEL, "gpt-4o", "simulated-judge", "a/b/c", "", "../..", "/nowhere", "x y", "a" * 300],
)
def test_without_a_tokenizer_at_hand_the_count_is_an_estimate_and_says_so(model: str) -> None:
    assert count_tokens(model, "x" * 401) == TokenCount(101, True)


def test_a_tokenizer_that_cannot_be_read_leaves_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert count_tokens(str(tmp_path), "x" * 8) == TokenCount(2, True)


@pytest.mark.parametrize("is_at_hand", [True, False])
def test_tiktoken_counts_only_where_its_file_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_at_hand: bool
) -> None:
    library = ModuleType("tiktoken")
    encoding = SimpleNamespace(encode=lambda text, disallowed_special: text.split())
    vars(library).update(
        encoding_name_for_model={"gpt-4o": "o200k_base"}.__getitem__,
        get_encoding=lambda name: encoding,
    )
    monkeypatch.setitem(sys.modules, "tiktoken", library)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    if is_at_hand:
        address = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
        (tmp_path / hashlib.sha1(address.encode()).hexdigest()).touch()
    expected = TokenCount(3, False) if is_at_hand else TokenCount(2, True)
    assert count_tokens("gpt-4o", "a b cdef") == expected
    assert count_tokens("unheard-of", "a b cdef").is_estimate
