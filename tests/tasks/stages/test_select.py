"""Best-of-N choices: after every number of answers, by the weights known then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pref_model.checkpoint import load_model
from tasks._stages.adapt import STAGE as ADAPT_STAGE
from tasks._stages.fit import STAGE as FIT_STAGE
from tasks._stages.personalize import SELECT_STAGE
from tasks.errors import InputRejected
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.worlds import FIT, N_PAIRS, N_SEEN_PAIRS, WIDTH, ids, put_world

ADAPT = {
    "answers": [3, 5, N_SEEN_PAIRS], "rule": "d_optimal", "prior": "training_users",
    "weights": "equal", "seed": 0,
}  # fmt: skip
NEW = ids("p", N_PAIRS)[N_SEEN_PAIRS:]
POOL = [f"{p}/{name}" for p in NEW for name in ("base", "r0", "r1", "r2")]
VECTORS = dict(zip(POOL, np.random.default_rng(5).standard_normal((len(POOL), WIDTH)), strict=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root: Path = tmp_path_factory.mktemp("select")
    bench = Bench(root / "warehouse")
    put_world(bench)
    bench.run(FIT_STAGE, **FIT)
    bench.run(ADAPT_STAGE, **ADAPT)
    bench.put(
        "pool_responses",
        [
            {
                "response_id": one,
                "prompt_id": one.split("/")[0],
                "response_role": "base" if one.endswith("base") else "revision",
                "response_text": one,
                "request_key": one,
                "response_model": "m",
            }
            for one in POOL
        ],
        ("prompts",),
    )
    rows = [{"response_id": one, "embedding": list(VECTORS[one])} for one in POOL]
    bench.put("pool_embeddings", rows, ("pool_responses",))
    bench.put("personal_responses", [])
    return bench


def test_each_number_of_answers_chooses_by_its_own_weights(filled: Bench) -> None:
    filled.run(SELECT_STAGE, n_answers=5, also_answers=[3, 999])
    chosen = filled.rows("selections")
    assert {row["n_answers"] for row in chosen} == {3, 5}
    models = filled.warehouse.folder("models", filled.versions["models"])
    model = load_model(models, "pref")
    weights = {
        (row["persona_id"], row["n_answers"]): np.array(row["weights"])
        for row in filled.rows("adapted_weights")
        if row["method"] == "pref"
    }
    mine = [row for row in chosen if row["method"] == "pref"]
    assert len(mine) == 2 * 8 * len(NEW)
    for row in mine:
        names = [f"{row['prompt_id']}/r{number}" for number in range(3)]
        features = model.pair_features(np.array([VECTORS[one] for one in names]))
        rewards = features @ weights[row["persona_id"], row["n_answers"]]
        assert row["response_id"] == names[int(np.argmax(rewards))]
    by_count = [[r["response_id"] for r in mine if r["n_answers"] == n] for n in (3, 5)]
    assert by_count[0] != by_count[1]
    # One reward for everybody learns nothing from answers.
    classic = {
        (row["persona_id"], row["prompt_id"], row["response_id"])
        for row in chosen
        if row["method"] == "classic"
    }
    assert len(classic) == 8 * len(NEW)


def test_more_answers_than_there_were_questions_is_one_line(filled: Bench) -> None:
    with pytest.raises(InputRejected, match=r"win\.n_answers: 7, .* expected one of 3, 5, 60; set"):
        filled.run(SELECT_STAGE, n_answers=7, also_answers=[3])
