from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tasks._llm.types import CallReply, CallRequest
from tasks._stages.calls import Complete
from tasks._stages.fit import STAGE as FIT
from tasks._stages.interpret import LABEL_STAGE, STAGE
from tests.tasks.stages import worlds
from tests.tasks.stages.conftest import Bench, reply_to

LABEL: dict[str, Any] = {
    "endpoint_name": "test",
    "judge_model": "simulated-judge",
    "sampling": {},
    "template": "label_base_reward",
}


@pytest.fixture
def fitted(bench: Bench) -> Bench:
    worlds.put_world(bench)
    bench.run(FIT, **worlds.FIT)
    bench.run(STAGE, n_examples=4)
    return bench


def test_explained_shares_fall_and_sum_to_the_whole(fitted: Bench) -> None:
    shares = [row["explained_share"] for row in fitted.rows("base_reward_facts")]
    assert len(shares) == worlds.D
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)


def test_parts_of_an_earlier_model_s_basis_may_overlap_beyond_the_whole(fitted: Bench) -> None:
    # The second base reward takes back half of what the first one says, for every user alike.
    rewards = [
        {**row, "base_rewards": [first := row["base_rewards"][0], -0.5 * first]}
        for row in fitted.rows("base_rewards")
    ]
    users = [{**row, "weights": [1.0, 1.0]} for row in fitted.rows("user_weights")]
    fitted.put("base_rewards", rewards)
    fitted.put("user_weights", users)
    fitted.run(STAGE, n_examples=4)
    shares = [row["explained_share"] for row in fitted.rows("base_reward_facts")]
    assert shares == pytest.approx([4.0, 1.0])


def test_examples_are_the_ends_of_the_order_within_prompts(fitted: Bench) -> None:
    phi = {row["response_id"]: row["base_rewards"] for row in fitted.rows("base_rewards")}
    rows = fitted.rows("base_reward_examples")
    assert len(rows) == worlds.D * 2 * 4
    for row in rows:
        prompt, side = row["response_id"].split("/")
        k = row["base_reward"] - 1
        other = phi[f"{prompt}/{'b' if side == 'a' else 'a'}"][k]
        assert row["deviation_logit"] == pytest.approx((phi[row["response_id"]][k] - other) / 2)
    best = max(abs(phi[f"{p}/a"][0] - phi[f"{p}/b"][0]) / 2 for p in worlds.ids("p", 80))
    (top,) = [
        row for row in rows if (row["base_reward"], row["end"], row["place"]) == (1, "top", 1)
    ]
    assert top["deviation_logit"] == pytest.approx(best, rel=1e-5)


def test_weights_that_follow_a_trait_correlate_with_it(bench: Bench) -> None:
    worlds.put_texts(bench)
    personas = bench.rows("personas")
    for number, row in enumerate(personas):
        row["trait_1"] = "formal" if number % 2 else "informal"
        row["trait_2"] = "polite" if number % 3 else "rude"
    bench.put("personas", personas)
    users = worlds.ids("u", 32)
    sign = np.where(np.arange(32) % 2, 1.0, -1.0)
    bench.put(
        "user_weights",
        [{"persona_id": u, "weights": [s, 1.0]} for u, s in zip(users, sign, strict=True)],
    )
    bench.put(
        "base_rewards",
        [
            {"response_id": row["response_id"], "base_rewards": [float(n % 5), 1.0]}
            for n, row in enumerate(bench.rows("responses"))
        ],
    )
    bench.run(STAGE, n_examples=2)
    found = {
        (row["base_reward"], row["attribute"]): row["correlation"]
        for row in bench.rows("trait_correlations")
    }
    assert found[1, "formality"] == pytest.approx(1.0)
    assert abs(found[1, "politeness"]) < 0.2
    assert found[1, "humor"] is None
    assert found[2, "formality"] is None


def test_without_known_traits_there_are_no_correlations(bench: Bench) -> None:
    worlds.put_world(bench)
    bench.put(
        "personas", [{**row, "trait_1": None, "trait_2": None} for row in bench.rows("personas")]
    )
    bench.run(FIT, **worlds.FIT)
    bench.run(STAGE, n_examples=2)
    assert bench.rows("trait_correlations") == []


def test_every_base_reward_gets_a_label_or_a_reason(
    fitted: Bench, simulated: Callable[..., Complete]
) -> None:
    inputs = fitted.inputs(LABEL_STAGE, **LABEL)
    assert LABEL_STAGE.n_cells(inputs) == worlds.D
    seen: list[CallRequest] = []

    def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
        seen.extend(requests)
        texts = ["LABEL: <script>alert(1)</script>", "Hard to say.", None]
        return [reply_to(call, text) for call, text in zip(requests, texts, strict=True)]

    rows = LABEL_STAGE.run_cells(inputs, 0, worlds.D, complete).to_pylist()
    assert [row["label"] for row in rows] == ["<script>alert(1)</script>", None, None]
    assert [row["unparsed_reason"] for row in rows] == [None, "no_label", "empty"]
    # What is shown are the texts, not who wrote them nor what they score.
    shown = str(seen[0].messages)
    assert "Response 4:" in shown
    assert "pair_a" not in shown
