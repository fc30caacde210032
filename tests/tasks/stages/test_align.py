from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks._stages.fit import STAGE
from tasks.errors import InputRejected
from tests.tasks.stages import worlds
from tests.tasks.stages.conftest import Bench
from warehouse.errors import DatasetMissing


@pytest.fixture
def first(bench: Bench) -> str:
    """The version of a model that user weights are stored with."""
    worlds.put_world(bench)
    return bench.run(STAGE, **worlds.FIT).version


def new_answers(bench: Bench) -> None:
    """The same users answer anew, and a fifth of them think otherwise than before."""
    margins = worlds.true_margins()
    margins[::5] = -margins[::5]
    worlds.put_preferences(bench, margins, seed=4)


def held_out_margins(bench: Bench, weights: str, rewards: str) -> NDArray[np.float64]:
    """Margins (U, M) on held-out pairs of one version's users by another's base rewards."""
    phi = {row["response_id"]: row["base_rewards"] for row in bench.rows("base_rewards", rewards)}
    users = np.array([row["weights"] for row in bench.rows("user_weights", weights)])
    held_out = worlds.ids("p", worlds.N_PAIRS)[worlds.N_SEEN_PAIRS :]
    pairs = np.array([np.subtract(phi[f"{p}/a"], phi[f"{p}/b"]) for p in held_out])
    return np.asarray(users @ pairs.T)


def test_stored_weights_rank_held_out_pairs_as_before_up_to_the_reported_share(
    bench: Bench, first: str
) -> None:
    new_answers(bench)
    aligned = bench.run(STAGE, **worlds.FIT, align_to="previous").version
    (row,) = bench.rows("alignment")
    assert (row["aligned_to_version"], row["n_shared_pairs"]) == (first, worlds.N_PAIRS)
    before = held_out_margins(bench, first, first)
    after = held_out_margins(bench, first, aligned)
    flipped = np.sign(before) != np.sign(after)
    assert row["changed_cells_share"] == pytest.approx(flipped.mean(), abs=2e-3)
    assert row["changed_users_share"] == pytest.approx(flipped.any(axis=1).mean(), abs=0.04)
    error = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert row["alignment_error_share"] == pytest.approx(error, rel=1e-3)
    assert flipped.mean() < 0.15
    # Without the alignment the same weights are of no use.
    loose = bench.run(STAGE, **worlds.FIT).version
    assert bench.rows("alignment") == []
    lost = np.sign(before) != np.sign(held_out_margins(bench, first, loose))
    assert lost.mean() > 2 * flipped.mean()


def test_alignment_changes_no_margin_of_the_retrain_s_own_users(bench: Bench, first: str) -> None:
    new_answers(bench)
    loose = bench.run(STAGE, **worlds.FIT).version
    aligned = bench.run(STAGE, **worlds.FIT, align_to=first).version
    np.testing.assert_allclose(
        held_out_margins(bench, loose, loose),
        held_out_margins(bench, aligned, aligned),
        rtol=1e-3,
        atol=1e-3,
    )


def test_base_rewards_are_stored_in_their_canonical_basis(bench: Bench, first: str) -> None:
    users = np.array([row["weights"] for row in bench.rows("user_weights", first)])
    np.testing.assert_allclose(users.T @ users / len(users), np.eye(worlds.D), atol=1e-4)
    assert np.all(users.mean(axis=0) > 0)


def test_the_same_retrain_is_found_again_and_the_next_one_follows_it(
    bench: Bench, first: str
) -> None:
    new_answers(bench)
    second = bench.run(STAGE, **worlds.FIT, align_to="previous")
    again = bench.inputs(STAGE, **worlds.FIT, align_to="previous").plan
    assert again == second
    assert second.parents["models"] == first
    assert "align_to" not in second.config
    worlds.put_preferences(bench, worlds.true_margins(), seed=5)
    third = bench.inputs(STAGE, **worlds.FIT, align_to="previous").plan
    assert third.parents["models"] == second.version


def test_without_an_earlier_model_previous_starts_a_basis_of_its_own(bench: Bench) -> None:
    worlds.put_world(bench)
    plain = bench.inputs(STAGE, **worlds.FIT).plan
    assert bench.inputs(STAGE, **worlds.FIT, align_to="previous").plan == plain


def other_encoder() -> NDArray[np.float64]:
    """The same texts seen by another encoder: another width, and no linear map of the first."""
    rng = np.random.default_rng(6)
    vectors = worlds.embeddings()
    mixed = vectors @ rng.standard_normal((worlds.WIDTH, 30)) / np.sqrt(worlds.WIDTH)
    return np.hstack([np.tanh(mixed), 0.1 * mixed])


def test_another_encoder_is_aligned_by_the_texts_that_both_models_scored(
    bench: Bench, first: str
) -> None:
    worlds.put_embeddings(bench, other_encoder())
    aligned = bench.run(STAGE, **{**worlds.FIT, "encoder_id": "other"}, align_to=first).version
    (row,) = bench.rows("alignment")
    assert not row["is_same_encoder"]
    assert row["n_shared_pairs"] == worlds.N_PAIRS
    before = held_out_margins(bench, first, first)
    after = held_out_margins(bench, first, aligned)
    flipped = np.sign(before) != np.sign(after)
    assert row["changed_cells_share"] == pytest.approx(flipped.mean(), abs=2e-3)
    assert flipped.mean() < 0.2


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"encoder_id": "other"}, "scored 0 of the 80 pairs"), ({"d": 2}, "set fit.d=3")],
)
def test_where_nothing_is_shared_the_alignment_is_refused_in_one_line(
    bench: Bench, first: str, changed: dict[str, Any], says: str
) -> None:
    worlds.put_texts(bench, style="Well. ")
    worlds.put_embeddings(bench, worlds.embeddings())
    with pytest.raises(InputRejected, match=says) as caught:
        bench.run(STAGE, **{**worlds.FIT, **changed}, align_to=first)
    assert "\n" not in str(caught.value)


def test_an_unknown_version_is_refused_before_anything_runs(bench: Bench, first: str) -> None:
    with pytest.raises(DatasetMissing, match=first):
        bench.inputs(STAGE, **worlds.FIT, align_to="0123456789ab")
