import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._llm.replies import read_soft_verdict


def body(*tokens: tuple[str, dict[str, float]]) -> bytes:
    entries: list[dict[str, Any]] = [
        {
            "token": token,
            "logprob": math.log(tops[token]),
            "top_logprobs": [
                {"token": one, "logprob": math.log(prob)} for one, prob in tops.items()
            ],
        }
        for token, tops in tokens
    ]
    return json.dumps({"choices": [{"logprobs": {"content": entries}}]}).encode()


def test_the_variants_of_a_token_are_summed() -> None:
    found = read_soft_verdict(body((" 1", {" 1": 0.5, "1": 0.1, "2": 0.15, "2\n": 0.05})), "12")
    assert found is not None
    assert found.first_prob == pytest.approx(0.6 / 0.8)
    assert (found.low_prob, found.high_prob) == (found.first_prob, found.first_prob)
    assert found.origin == "logprobs"


def test_the_last_verdict_token_counts() -> None:
    both = [("1", {"1": 0.9, "2": 0.1}), (".", {".": 1.0}), ("2", {"1": 0.3, "2": 0.7})]
    found = read_soft_verdict(body(*both), "12")
    assert found is not None
    assert found.first_prob == pytest.approx(0.3)


def test_a_missing_rival_is_a_bound_and_not_a_zero() -> None:
    found = read_soft_verdict(body(("1", {"1": 0.9, "x": 0.04, "y": 0.03})), "12")
    assert found is not None
    assert found.origin == "logprobs_bound"
    assert found.high_prob == 1.0
    # The rival has at most what the least likely reported token has.
    assert found.low_prob == pytest.approx(0.9 / 0.93)
    other = read_soft_verdict(body(("2", {"2": 0.9, "x": 0.04, "y": 0.03})), "12")
    assert other is not None
    assert (other.low_prob, other.high_prob) == (0.0, pytest.approx(1 - 0.9 / 0.93))
    alone = read_soft_verdict(body(("1", {"1": 0.6})), "12")
    assert alone is not None
    assert alone.low_prob == pytest.approx(0.6)


@given(st.floats(0.01, 0.98), st.floats(0.001, 1.0))
def test_swapping_the_options_mirrors_the_range(first: float, share: float) -> None:
    second = (1 - first) * share
    report = body(("1", {"1": first, "2": second}))
    one, two = read_soft_verdict(report, ["1", "2"]), read_soft_verdict(report, ["2", "1"])
    assert one is not None
    assert two is not None
    assert one.first_prob == pytest.approx(1 - two.first_prob)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"logprobs": null}]}',
        b'{"choices": [{"logprobs": {"content": [7, {"token": "1", "logprob": "x"}]}}]}',
        b'{"choices": [{"logprobs": {"content": [{"token": "1", "logprob": NaN}]}}]}',
        body(("x", {"x": 1.0})),
    ],
)
def test_replies_without_usable_log_probabilities_have_no_soft_verdict(reply: bytes) -> None:
    assert read_soft_verdict(reply, "12") is None
