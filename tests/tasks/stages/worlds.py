"""A small known world, committed dataset by dataset, that a fit can be run on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tasks.stages.conftest import Bench

N_USERS, N_PAIRS, WIDTH, D = 40, 80, 12, 3
N_SEEN_USERS, N_SEEN_PAIRS = 32, 60
FIT: dict[str, Any] = {
    "d": D,
    "start": "svd",
    "user_l2": 1.0,
    "head_l2": [1.0],
    "head_learning_rate": 0.003,
    "user_learning_rate": 0.01,
    "steps": 60,
    "batch_pairs": 16,
    "evaluate_every": 10,
    "patience": 5,
    "ties": "half",
    "encoder_id": "tiny",
    "seed": 0,
}


def ids(letter: str, count: int) -> list[str]:
    return [f"{letter}{number:03d}" for number in range(count)]


def embeddings() -> NDArray[np.float64]:
    """(2 M, WIDTH): the responses A and B of each pair in turn."""
    return np.random.default_rng(1).standard_normal((2 * N_PAIRS, WIDTH))


def true_margins() -> NDArray[np.float64]:
    """(U, M) logits of a world with D base rewards."""
    rng = np.random.default_rng(2)
    users = rng.standard_normal((N_USERS, D)) * (3.0, 2.0, 1.0)
    heads = rng.standard_normal((D, WIDTH)) / np.sqrt(WIDTH)
    vectors = embeddings()
    return users @ heads @ (vectors[0::2] - vectors[1::2]).T


def put_texts(bench: Bench, *, style: str = "") -> None:
    """Prompts, personas, responses, pairs and the split; ``style`` changes every response."""
    users, prompts = ids("u", N_USERS), ids("p", N_PAIRS)
    bench.put(
        "prompts",
        [{"prompt_id": p, "prompt_text": f"Ask {p}?", "prompt_source": "test"} for p in prompts],
    )
    bench.put(
        "personas",
        [
            {
                "persona_id": user,
                "persona_kind": "attributes",
                "trait_1": "concise",
                "trait_2": "formal",
                "profile_text": "You.",
                "system_text": None,
            }
            for user in users
        ],
    )
    bench.put(
        "responses",
        [
            {
                "response_id": f"{p}/{side}",
                "prompt_id": p,
                "response_role": f"pair_{side}",
                "style": None,
                "parent_response_id": None,
                "response_text": f"{style}Answer {side} to {p}.",
                "finish_reason": "stop",
                "request_key": f"{p}{side}",
                "response_model": "m",
                "toward_persona_id": None,
            }
            for p in prompts
            for side in "ab"
        ],
        ("prompts",),
    )
    bench.put(
        "pairs",
        [
            {
                "pair_id": p,
                "prompt_id": p,
                "response_a_id": f"{p}/a",
                "response_b_id": f"{p}/b",
            }
            for p in prompts
        ],
        ("prompts", "responses"),
    )
    sides = [("pair", p, row < N_SEEN_PAIRS) for row, p in enumerate(prompts)]
    sides += [("persona", user, row < N_SEEN_USERS) for row, user in enumerate(users)]
    bench.put(
        "splits",
        [
            {"entity_kind": kind, "entity_id": one, "side": "seen" if is_seen else "new"}
            for kind, one, is_seen in sides
        ],
    )


def put_embeddings(bench: Bench, vectors: NDArray[np.float64]) -> None:
    """Embeddings of the responses that were put, rows as in `embeddings`."""
    texts = [f"{p}/{side}" for p in ids("p", N_PAIRS) for side in "ab"]
    rows = [
        {"response_id": one, "embedding": list(vector)}
        for one, vector in zip(texts, vectors, strict=True)
    ]
    bench.put("embeddings", rows, ("prompts", "responses"))


def put_preferences(bench: Bench, margins: NDArray[np.float64], seed: int) -> None:
    """Answers drawn from the margins, twice a cell, so that there are ties."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((2, *margins.shape)) < 1.0 / (1.0 + np.exp(-margins))
    answers = drawn.mean(axis=0)
    bench.put(
        "preferences",
        [
            {
                "persona_id": user,
                "pair_id": pair,
                "preference_prob": float(answers[u, m]),
                "n_valid": 2,
                "n_asked": 2,
                "is_tie": answers[u, m] == 0.5,
            }
            for u, user in enumerate(ids("u", N_USERS))
            for m, pair in enumerate(ids("p", N_PAIRS))
        ],
    )


def put_world(bench: Bench) -> None:
    """Everything that a fit reads."""
    put_texts(bench)
    put_embeddings(bench, embeddings())
    put_preferences(bench, true_margins(), seed=3)
