"""Features of form: they see length, structure and punctuation, and are finite on anything."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pref_model.text_features import NAMES, text_features


def one(text: str) -> dict[str, float]:
    return dict(zip(NAMES, text_features([text])[0].tolist(), strict=True))


def test_each_feature_moves_with_what_it_is_named_after() -> None:
    plain = one("A cat sat down. It was warm.")
    for text, name in (
        ("A cat sat down. It was warm. It slept until it was dark again.", "log_words"),
        ("A cat sat down.\nIt was warm.", "log_lines"),
        ("- A cat sat down.\n- It was warm.", "log_list_items"),
        ("A **cat** sat down. It was warm.", "has_markup"),
        ("A cat sat down? It was warm?", "questions_per_sentence"),
        ("A cat sat down! It was warm!", "exclamations_per_sentence"),
        ("A cat, sat, down. It was warm.", "commas_per_word"),
        ("I sat down. We were warm.", "first_person_per_word"),
        ("A CAT sat down. It was WARM.", "capitals_per_character"),
        ("A cat sat at 10:30. It was 30 degrees.", "digits_per_character"),
        ('A "cat" sat down. It was warm.', "quotes_per_word"),
    ):
        assert one(text)[name] > plain[name], name


def test_repeating_a_text_changes_lengths_and_leaves_rates() -> None:
    text = "A cat sat down, quietly! Was it warm? "
    once, often = one(text), one(text * 7)
    for name in NAMES:
        if name.startswith("log_") and name not in ("log_list_items", "log_lines"):
            assert often[name] > once[name]
        elif name.endswith(("_per_word", "_per_sentence", "_per_character")):
            assert abs(often[name] - once[name]) < 1e-6


@given(st.lists(st.text(), max_size=4))
def test_every_text_has_a_finite_row(texts: list[str]) -> None:
    found = text_features(texts)
    assert found.shape == (len(texts), len(NAMES))
    assert np.all(np.isfinite(found))
    assert np.all(found >= 0.0)
