import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from pref_model import length_control
from pref_model.errors import BadArray
from pref_model.length_control import Comparisons, length_controlled

N_USERS, N_PROMPTS = 30, 25


def judged(rng, *, quality=0.3, length=0.0, gap_mean=150.0, spread=1.0):
    """Every user on every prompt; the judge follows quality, and length as far as it is told."""
    user = np.repeat(np.arange(N_USERS), N_PROMPTS)
    prompt = np.tile(np.arange(N_PROMPTS), N_USERS)
    gap = gap_mean + 200.0 * rng.standard_normal(len(user))
    margin = quality + spread * rng.standard_normal(N_PROMPTS)[prompt]
    chance = expit(margin + length * np.tanh(gap / gap.std()))
    value = rng.binomial(2, chance) / 2.0
    return Comparisons(user, prompt, value, gap), float(expit(margin).mean())


def rate_of(comparisons, **options):
    return length_controlled({"pref": comparisons}, N_PROMPTS, **options)["pref"]


def raw(one):
    kept = ~np.isnan(one.value)
    return np.mean([one.value[kept & (one.user == user)].mean() for user in np.unique(one.user)])


def test_a_liking_for_length_is_taken_out_and_quality_stays():
    one, at_equal_length = judged(np.random.default_rng(0), length=2.0)
    found = rate_of(one)
    assert raw(one) > at_equal_length + 0.1
    assert found.rate.mean == pytest.approx(at_equal_length, abs=0.05)
    assert found.rate.low < at_equal_length < found.rate.high
    assert found.length_logit == pytest.approx(2.0, abs=0.5)
    assert found.mean_gap == pytest.approx(150.0, abs=25.0)


def test_where_length_does_not_matter_the_rate_stays_the_raw_one():
    one, _ = judged(np.random.default_rng(1))
    found = rate_of(one)
    assert found.rate.mean == pytest.approx(raw(one), abs=0.03)
    assert abs(found.length_logit) < 0.4


def test_with_equal_lengths_the_rate_is_exactly_the_raw_one():
    one, _ = judged(np.random.default_rng(2))
    one = one._replace(length_gap=np.zeros(len(one.user)))
    # Users with unequal numbers of comparisons: each keeps the same say.
    one = Comparisons(*(part[7:] for part in one))
    one.value[40:50] = np.nan
    assert rate_of(one).rate.mean == pytest.approx(raw(one), abs=1e-12)


def test_swapping_the_responses_mirrors_the_rate():
    one, _ = judged(np.random.default_rng(3), length=1.0)
    mirrored = one._replace(value=1.0 - one.value, length_gap=-one.length_gap)
    here, there = rate_of(one), rate_of(mirrored)
    assert there.rate.mean == pytest.approx(1.0 - here.rate.mean, abs=1e-9)
    assert there.length_logit == pytest.approx(here.length_logit, abs=1e-7)


def test_neither_the_unit_of_length_nor_the_order_of_rows_matters():
    rng = np.random.default_rng(4)
    one, _ = judged(rng, length=1.0)
    order = rng.permutation(len(one.user))
    shuffled = Comparisons(*(part[order] for part in one))
    scaled = shuffled._replace(length_gap=shuffled.length_gap / 6.0)
    here, there = rate_of(one), rate_of(scaled)
    assert there.rate.mean == pytest.approx(here.rate.mean, abs=1e-9)
    assert there.rate.low == pytest.approx(here.rate.low, abs=1e-9)


def test_newton_s_maximum_is_a_general_optimizer_s():
    one, _ = judged(np.random.default_rng(5), length=1.5)
    rng = np.random.default_rng(6)
    design = np.stack(
        [np.ones(len(one.user)), np.tanh(one.length_gap / 200), rng.standard_normal(len(one.user))],
        axis=1,
    )
    weight, ridge = rng.random(len(one.user)), np.array([0.0, 0.5, 2.0])

    def loss(b):
        margin = design @ b
        fit = weight @ (one.value * margin - np.logaddexp(0.0, margin))
        return -fit + 0.5 * ridge @ b**2

    slow = minimize(loss, np.zeros(3), method="BFGS", tol=1e-10).x
    fast = length_control._fitted(design, one.value, weight, ridge).weights
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_the_one_step_bootstrap_is_close_to_fitting_every_draw_anew():
    one, _ = judged(np.random.default_rng(7), length=1.0)
    found = rate_of(one, draws=4000)
    rng = np.random.default_rng(8)
    difficulty = length_control._difficulties({"pref": one}, N_PROMPTS)
    rates = []
    for _ in range(400):
        rows = np.concatenate(
            [np.flatnonzero(one.user == u) for u in rng.integers(0, N_USERS, N_USERS)]
        )
        design = np.stack(
            [
                np.ones(len(rows)),
                np.tanh(one.length_gap[rows] / one.length_gap.std()),
                difficulty[one.prompt[rows]],
            ],
            axis=1,
        )
        ridge = np.array([0.0, 0.01, 0.01])
        b = length_control._fitted(design, one.value[rows], np.ones(len(rows)), ridge).weights
        rates.append(expit(b[0] + b[2] * difficulty[one.prompt[rows]]).mean())
    low, high = np.quantile(rates, [0.025, 0.975])
    assert found.rate.low == pytest.approx(low, abs=0.012)
    assert found.rate.high == pytest.approx(high, abs=0.012)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_outcome_throughout_leaves_the_raw_rate(outcome):
    one, _ = judged(np.random.default_rng(9))
    found = rate_of(one._replace(value=np.full(len(one.user), outcome)))
    assert found.rate[:3] == (outcome, outcome, outcome)
    assert np.isnan(found.length_logit)


def test_wins_that_length_alone_decides_stay_finite():
    one, _ = judged(np.random.default_rng(10), gap_mean=0.0)
    found = rate_of(one._replace(value=(one.length_gap > 0.0) * 1.0))
    assert np.isfinite(found.length_logit)
    assert found.length_logit > 5.0
    assert 0.0 < found.rate.mean < 1.0


def test_a_gap_that_never_changes_cannot_be_told_apart_and_says_so():
    one, _ = judged(np.random.default_rng(11))
    found = rate_of(one._replace(length_gap=np.full(len(one.user), 80.0)))
    assert found.rate.n == 0
    assert np.isnan(found.rate.mean)
    assert found.mean_gap == 80.0


def test_methods_without_comparisons_and_bad_columns_are_told():
    one, _ = judged(np.random.default_rng(12))
    empty = Comparisons(*(part[:0] for part in one))
    found = length_controlled({"pref": one, "classic": empty}, N_PROMPTS)
    assert found["classic"].rate.n == 0
    assert found["pref"].rate.n == N_USERS
    with pytest.raises(BadArray, match="length gap"):
        rate_of(one._replace(length_gap=np.full(len(one.user), np.inf)))
    with pytest.raises(BadArray, match="four columns"):
        rate_of(one._replace(user=one.user[1:]))
