import numpy as np
import pytest
from scipy.special import expit

from pref_model import reference
from pref_model.adapt import UserPrior, adapt_users
from pref_model.errors import BadArray, BadSetting
from pref_model.metrics import auc_per_user
from pref_model.questions import (
    RULES,
    least_known_direction,
    question_scores,
    run_questionnaire,
)


def beliefs(n_users=3, n_pairs=11, d=4, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    root = scale * rng.standard_normal((n_users, d, d))
    return (
        rng.standard_normal((n_pairs, d)),
        scale * rng.standard_normal((n_users, d)),
        root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d),
        rng.standard_normal((6, d)),
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_every_rule_equals_its_formula_written_as_loops(rule, scale):
    features, mean, covariance, targets = beliefs(scale=scale)
    found = question_scores(rule, features, mean, covariance, targets)
    for u in range(len(mean)):
        for m in range(len(features)):
            expected = reference.question_score(rule, features[m], mean[u], covariance[u], targets)
            tolerance = 5e-8 if rule == "bald" else 1e-9  # bald interpolates an integral
            assert found[u, m] == pytest.approx(expected, rel=1e-8, abs=tolerance)


@pytest.mark.parametrize("rule", RULES)
def test_swapping_the_responses_of_a_pair_changes_no_score(rule):
    features, mean, covariance, targets = beliefs()
    np.testing.assert_allclose(
        question_scores(rule, features, mean, covariance, targets),
        question_scores(rule, -features, mean, covariance, -targets),
        atol=1e-12,
    )


@pytest.mark.parametrize("rule", RULES)
def test_scores_stay_finite_at_extreme_beliefs(rule):
    features, mean, covariance, _ = beliefs(scale=400.0)
    scores = question_scores(rule, features, mean, covariance)
    assert np.all(np.isfinite(scores))
    assert np.all(scores >= 0.0)


def test_eq_9_asks_what_is_already_certain_and_d_optimal_does_not():
    features = np.array([[10.0, 0.0], [0.0, 1.0]])
    mean, covariance = np.array([[5.0, 0.0]]), np.eye(2)[None]
    assert question_scores("variance", features, mean, covariance).argmax() == 0
    assert question_scores("d_optimal", features, mean, covariance).argmax() == 1
    assert question_scores("bald", features, mean, covariance).argmax() == 1


def test_the_top_eigenvector_has_the_largest_variance_of_all_unit_pairs():
    _, _, covariance, _ = beliefs(n_users=5)
    direction, variance = least_known_direction(covariance)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1.0)
    others = np.random.default_rng(0).standard_normal((500, 4))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    for u in range(5):
        own = question_scores(
            "variance", direction[u : u + 1], np.zeros((1, 4)), covariance[u : u + 1]
        )
        assert own[0, 0] == pytest.approx(variance[u])
        assert (
            question_scores("variance", others, np.zeros((1, 4)), covariance[u : u + 1]).max()
            <= variance[u]
        )
        alone, alone_variance = least_known_direction(covariance[u])
        np.testing.assert_array_equal(alone, direction[u])
        assert alone_variance == pytest.approx(variance[u])


def test_many_candidates_score_as_each_of_them_does_alone():
    rng = np.random.default_rng(2)
    features, (_, mean, covariance, targets) = rng.standard_normal((9001, 4)), beliefs(n_users=2)
    for rule in RULES:
        whole = question_scores(rule, features, mean, covariance, targets)
        some = question_scores(rule, features[4090:4100], mean, covariance, targets)
        np.testing.assert_allclose(whole[:, 4090:4100], some, rtol=1e-12, atol=1e-15)


@pytest.fixture(scope="module")
def survey():
    rng = np.random.default_rng(0)
    users, features = rng.standard_normal((12, 3)), 2.0 * rng.standard_normal((40, 3))
    answers = (rng.random((12, 40)) < expit(users @ features.T)).astype(float)
    answers[rng.random(answers.shape) < 0.2] = np.nan
    prompts = np.repeat(np.arange(20), 2) + 700
    return features, prompts, answers, [f"user-{i}" for i in range(12)]


@pytest.mark.parametrize("rule", RULES)
def test_no_prompt_is_repeated_and_no_missing_answer_is_asked(rule, survey):
    features, prompts, answers, keys = survey
    found = run_questionnaire(features, prompts, answers, UserPrior.ridge(3, 1.0), rule, 15, keys)
    for u in range(12):
        asked = found.asked[u]
        assert np.all(asked >= 0)
        assert np.unique(prompts[asked]).size == 15
        np.testing.assert_array_equal(found.answers[u], answers[u, asked])
        assert not np.isnan(found.answers[u]).any()


@pytest.mark.parametrize("rule", ["random", "d_optimal", "bald"])
def test_a_user_is_asked_the_same_whoever_else_is_there(rule, survey):
    features, prompts, answers, keys = survey
    prior = UserPrior.ridge(3, 1.0)
    whole = run_questionnaire(features, prompts, answers, prior, rule, 8, keys, seed=4)
    some = [7, 2]
    part = run_questionnaire(
        features, prompts, answers[some], prior, rule, 8, [keys[i] for i in some], seed=4
    )
    np.testing.assert_array_equal(part.asked, whole.asked[some])
    np.testing.assert_allclose(part.means, whole.means[:, some], atol=1e-7)


def test_random_questions_differ_by_user_and_by_seed_and_repeat_with_both(survey):
    features, prompts, answers, keys = survey
    prior = UserPrior.ridge(3, 1.0)

    def asked(seed):
        return run_questionnaire(
            features, prompts, answers, prior, "random", 8, keys, seed=seed
        ).asked

    np.testing.assert_array_equal(asked(1), asked(1))
    assert not np.array_equal(asked(1), asked(2))
    assert not np.array_equal(asked(1)[0], asked(1)[1])


def test_kept_posteriors_are_those_of_the_answers_so_far(survey):
    features, prompts, answers, keys = survey
    prior = UserPrior(np.array([0.5, 0.0, -0.5]), np.diag([2.0, 1.0, 0.5]))
    found = run_questionnaire(
        features, prompts, answers, prior, "d_optimal", 6, keys, n_answers=(0, 3, 6)
    )
    assert found.n_answers == (0, 3, 6)
    np.testing.assert_allclose(found.means[0], np.tile(prior.mean, (12, 1)))
    for place, k in ((1, 3), (2, 6)):
        again = adapt_users(
            features[found.asked[:, :k]], found.answers[:, :k], np.ones((12, k)), prior
        )
        np.testing.assert_allclose(found.means[place], again.mean, atol=1e-7)
        np.testing.assert_allclose(found.covariances[place], again.covariance, atol=1e-7)


def test_a_user_with_nothing_left_to_ask_is_marked_and_keeps_the_last_belief(survey):
    features, _, answers, keys = survey
    prompts = np.repeat(np.arange(4), 10)
    answers = answers.copy()
    answers[0] = np.nan
    prior = UserPrior.ridge(3, 1.0)
    found = run_questionnaire(features, prompts, answers, prior, "bald", 6, keys, n_answers=(4, 6))
    assert np.all(found.asked[0] == -1)
    assert np.all(found.asked[1:, 4:] == -1)
    assert np.all(np.isnan(found.answers[1:, 4:]))
    np.testing.assert_allclose(found.means[0, 0], 0.0)
    np.testing.assert_allclose(found.means[0], found.means[1], atol=1e-7)


def test_active_questions_learn_a_planted_world_faster_than_random_ones():
    rng = np.random.default_rng(5)
    users = rng.standard_normal((150, 6))
    features = 3.0 * rng.standard_normal((200, 6)) / np.sqrt(6)
    features[:100] *= 0.2  # half of the pairs hardly differ
    probability = expit(users @ features.T)
    answers = (rng.random(probability.shape) < probability).astype(float)
    test = rng.standard_normal((100, 6))
    truth = (users @ test.T > 0).astype(float)
    keys = [str(i) for i in range(150)]

    def quality(rule):
        found = run_questionnaire(
            features, np.arange(200), answers, UserPrior.ridge(6, 1.0), rule, 10, keys
        )
        return np.nanmean(auc_per_user(found.means[-1] @ test.T, truth))

    random = quality("random")
    for rule in ("d_optimal", "bald", "v_optimal", "authors"):
        assert quality(rule) > random + 0.03, rule


def test_bad_requests_are_told_in_one_line(survey):
    features, prompts, answers, keys = survey
    prior = UserPrior.ridge(3, 1.0)
    with pytest.raises(BadSetting, match="rule 'best'"):
        question_scores("best", features, np.zeros((1, 3)), np.eye(3)[None])
    with pytest.raises(BadArray, match="user keys"):
        run_questionnaire(features, prompts, answers, prior, "bald", 3, keys[:2])
    with pytest.raises(BadSetting, match="from 0 to 3"):
        run_questionnaire(features, prompts, answers, prior, "bald", 3, keys, n_answers=(5,))
    with pytest.raises(BadArray, match="columns of answers"):
        run_questionnaire(features[:3], prompts, answers, prior, "bald", 3, keys)
