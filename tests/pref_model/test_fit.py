import numpy as np
import pytest
import torch

from pref_model.adapt import UserPrior
from pref_model.baselines import (
    choose_user_ridge,
    fit_classic,
    fit_user_heads,
)
from pref_model.errors import BadArray, BadSetting
from pref_model.fit import Factorization, Start, fit_reward_model, prepare_features
from pref_model.likelihood import log_likelihood, margin_gradient
from pref_model.metrics import auc_per_user
from pref_model.model import FitConfig, RunConfig
from pref_model.questions import run_questionnaire
from pref_model.types import make_preferences

CONFIG = FitConfig(d=3, head_l2=(1.0, 10.0), steps=150)
TRAIN_USERS, NEW_USERS = np.arange(45), np.arange(45, 60)
TRAIN_PAIRS, NEW_PAIRS = np.arange(60), np.arange(60, 80)


@pytest.fixture(scope="module")
def world(planted_world):
    return planted_world()


@pytest.fixture(scope="module")
def parts(world, cells):
    return (
        cells(world.labels, TRAIN_USERS, TRAIN_PAIRS),
        cells(world.labels, TRAIN_USERS, NEW_PAIRS),
    )


@pytest.fixture(scope="module")
def model(world, parts):
    return fit_reward_model(world.differences, parts[0], 45, CONFIG, RunConfig(), parts[1])


def test_planted_world_is_recovered_up_to_an_invertible_map(world, model):
    found = model.pair_features(world.differences)[NEW_PAIRS]
    true = world.pair_features[NEW_PAIRS]
    fitted = found @ np.linalg.lstsq(found, true, rcond=None)[0]
    assert 1.0 - np.sum((true - fitted) ** 2) / np.sum(true**2) > 0.75


def test_margins_of_training_users_on_new_pairs_follow_the_truth(world, model):
    margin = model.user_weights @ model.pair_features(world.differences)[NEW_PAIRS].T
    true = world.user_weights[TRAIN_USERS] @ world.pair_features[NEW_PAIRS].T
    assert np.corrcoef(margin.ravel(), true.ravel())[0, 1] > 0.85


def test_ten_answers_beat_classic_rlhf_by_a_tenth_of_auc(world, parts, model):
    phi = model.pair_features(world.differences)
    found = run_questionnaire(
        phi[TRAIN_PAIRS],
        TRAIN_PAIRS,
        world.labels[np.ix_(NEW_USERS, TRAIN_PAIRS)],
        UserPrior.from_users(model.user_weights),
        "d_optimal",
        10,
        [f"u{u}" for u in NEW_USERS],
    )
    test = world.labels[np.ix_(NEW_USERS, NEW_PAIRS)]
    ours = np.nanmean(auc_per_user(found.means[-1] @ phi[NEW_PAIRS].T, test))
    classic = fit_classic(world.differences, parts[0], 45, CONFIG, RunConfig(), parts[1])
    score = classic.pair_features(world.differences)[NEW_PAIRS, 0]
    baseline = np.nanmean(auc_per_user(np.tile(score, (15, 1)), test))
    assert ours > 0.75
    assert ours - baseline > 0.10


def test_the_same_seed_gives_the_same_bits_and_the_kept_look_is_the_best(world, parts, model):
    again = fit_reward_model(world.differences, parts[0], 45, CONFIG, RunConfig(), parts[1])
    np.testing.assert_array_equal(again.head, model.head)
    np.testing.assert_array_equal(again.user_weights, model.user_weights)
    margin = model.user_weights.astype(float) @ model.pair_features(world.differences).T
    user, pair, label, _ = parts[1]
    here = -log_likelihood(margin[user, pair], label).mean()
    assert here == pytest.approx(min(p.validation_nll for p in model.history), rel=1e-4)


def test_order_of_cells_changes_no_bit(world, parts, model):
    rng = np.random.default_rng(0)
    order = rng.permutation(parts[0].user.size)
    # Same pairs, shuffled users within them: grouping must not depend on the file's order.
    shuffled = make_preferences(*(column[order] for column in parts[0]))
    again = fit_reward_model(world.differences, shuffled, 45, CONFIG, RunConfig(), parts[1])
    np.testing.assert_allclose(again.head, model.head, atol=1e-4)


def test_swapping_every_pair_changes_no_base_reward(world, parts, model):
    swapped = [p._replace(label=1.0 - p.label) for p in parts]
    again = fit_reward_model(-world.differences, swapped[0], 45, CONFIG, RunConfig(), swapped[1])
    a = model.user_weights @ model.pair_features(world.differences).T
    b = again.user_weights @ again.pair_features(world.differences).T
    np.testing.assert_allclose(a, b, atol=1e-2)


def test_loss_gradient_equals_the_closed_form_at_extreme_margins():
    rng = np.random.default_rng(0)
    x, head = rng.standard_normal((5, 4)), 300.0 * rng.standard_normal((2, 4))
    users = rng.standard_normal((3, 2))
    module = Factorization(Start(head, users), is_user_learned=True).double()
    pair, user = torch.arange(5), torch.tensor([0, 1, 2, 0, 1])
    label = torch.tensor([0.0, 0.5, 1.0, 1.0, 0.25], dtype=torch.float64)
    from pref_model.likelihood import torch_log_likelihood

    module.zero_grad()
    torch_log_likelihood(module(torch.as_tensor(x), pair, user), label).sum().backward()
    head32 = module.head.detach().numpy()
    users32 = module.users.detach().numpy()
    phi = x @ head32.T
    pull = margin_gradient(np.sum(phi * users32[user], axis=1), label.numpy())
    expected = (pull[:, None] * users32[user]).T @ x
    np.testing.assert_allclose(module.head.grad.numpy(), expected, rtol=1e-9)


def test_early_stopping_never_ends_worse_than_the_closed_start(world, parts):
    start = fit_reward_model(
        world.differences,
        parts[0],
        45,
        FitConfig(d=3, head_l2=(1.0,), steps=0),
        RunConfig(),
        parts[1],
    )
    fitted = fit_reward_model(
        world.differences, parts[0], 45, FitConfig(d=3, head_l2=(1.0,)), RunConfig(), parts[1]
    )
    best = min(p.validation_nll for p in fitted.history)
    assert best <= start.history[0].validation_nll


def test_weight_zero_and_a_validation_part_of_other_pairs_leave_no_trace(world, parts, model):
    train = parts[0]
    extra = make_preferences(
        np.append(train.user, 0),
        np.append(train.pair, 3),
        np.append(train.label, 1.0),
        np.append(train.weight, 0.0),
    )
    again = fit_reward_model(world.differences, extra, 45, CONFIG, RunConfig(), parts[1])
    np.testing.assert_array_equal(again.head, model.head)


def test_scale_comes_from_training_pairs_only_and_silent_features_stay_silent(world, parts):
    differences = np.hstack([world.differences, np.zeros((80, 1))])
    differences[NEW_PAIRS, -1] = 50.0  # never differs in training
    scaled, scale, _, _ = prepare_features(differences, parts[0], 45, parts[1], "half")
    assert np.all(scaled[:, -1] == 0.0)
    assert np.mean(np.sum(scaled[TRAIN_PAIRS] ** 2, axis=1)) == pytest.approx(40 / 41, rel=1e-3)
    other = differences.copy()
    other[NEW_PAIRS, :-1] *= 100.0
    np.testing.assert_array_equal(prepare_features(other, parts[0], 45, None, "half")[1], scale)
    model = fit_reward_model(differences, parts[0], 45, CONFIG, RunConfig(), None)
    assert np.all(model.head[:, -1] == 0.0)


def test_without_a_validation_part_all_steps_run_at_the_middle_strength(world, parts):
    config = FitConfig(d=2, head_l2=(0.1, 5.0, 90.0), steps=20)
    fitted = fit_reward_model(world.differences, parts[0], 45, config, RunConfig())
    assert fitted.head_l2 == 5.0
    assert [point.step for point in fitted.history] == [0, 10, 20]
    assert all(point.validation_nll is None for point in fitted.history)


def test_dropping_ties_and_other_starts_fit_too(world, parts):
    for config in (
        FitConfig(d=2, ties="drop", head_l2=(3.0,), steps=20),
        FitConfig(d=2, start="random", head_l2=(3.0,), steps=20),
        FitConfig(d=2, start="svd_raw", head_l2=(3.0,), steps=20),
        FitConfig(d=1, head_l2=(3.0,), steps=20),
    ):
        fitted = fit_reward_model(world.differences, parts[0], 45, config, RunConfig(), parts[1])
        assert fitted.head.shape == (config.d, 40)
        assert np.all(np.isfinite(fitted.user_weights))


def test_response_features_differ_by_the_pair_features(world, model):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 7, 40))
    np.testing.assert_allclose(
        model.response_features(first) - model.response_features(second),
        model.pair_features(first - second),
        atol=1e-10,
    )


def test_classic_is_blind_to_users_and_per_user_heads_learn_from_many_answers(world, parts):
    classic = fit_classic(world.differences, parts[0], 45, CONFIG, RunConfig(), parts[1])
    assert classic.head.shape == (1, 40)
    assert np.all(classic.user_weights == 1.0)
    true = world.user_weights.mean(axis=0) @ world.pair_features.T
    found = classic.pair_features(world.differences)[:, 0]
    assert np.corrcoef(found[NEW_PAIRS], true[NEW_PAIRS])[0, 1] > 0.8


def test_per_user_head_solves_the_full_ridge_problem_also_with_repeated_rows():
    rng = np.random.default_rng(0)
    differences = rng.standard_normal((3, 6, 50))
    differences[:, 5] = differences[:, 4]
    labels = rng.choice([0.0, 0.5, 1.0], (3, 6))
    labels[1, 2] = np.nan
    scale = rng.uniform(0.5, 2.0, 50)
    asked = np.arange(18).reshape(3, 6)
    fitted = fit_user_heads(differences.reshape(18, 50), asked, labels, scale, 0.3)
    for u in range(3):
        used = ~np.isnan(labels[u])
        x = differences[u, used] / scale
        pull = margin_gradient(x @ fitted.heads[u], labels[u, used])
        np.testing.assert_allclose(x.T @ pull, 0.3 * fitted.heads[u], atol=1e-7)


def test_per_user_ridge_is_chosen_on_training_users(world):
    chosen = choose_user_ridge(
        world.differences,
        world.labels[TRAIN_USERS],
        TRAIN_PAIRS,
        NEW_PAIRS,
        np.full(40, np.sqrt(40.0)),
        10,
        ridges=(1e-6, 0.3, 1e6),
    )
    assert chosen == 0.3
    with pytest.raises(BadArray, match="10 answers"):
        choose_user_ridge(
            world.differences, world.labels, TRAIN_PAIRS[:5], NEW_PAIRS, np.ones(40), 10
        )


def test_bad_requests_are_told_in_one_line(world, parts):
    with pytest.raises(BadSetting, match="d=0"):
        FitConfig(d=0)
    with pytest.raises(BadSetting, match="head_l2"):
        FitConfig(head_l2=())
    with pytest.raises(BadArray, match="no training preference"):
        fit_reward_model(world.differences, make_preferences([], [], []), 45, CONFIG, RunConfig())
    with pytest.raises(BadArray, match="expected 0 to 9"):
        fit_reward_model(world.differences[:10], parts[0], 45, CONFIG, RunConfig())
    with pytest.raises(BadSetting, match="device 'tpu'"):
        fit_reward_model(world.differences, parts[0], 45, CONFIG, RunConfig(device="tpu"))
    broken = world.differences.copy()
    broken[4, 0] = np.nan
    with pytest.raises(BadArray, match="row 4"):
        fit_reward_model(broken, parts[0], 45, CONFIG, RunConfig())
