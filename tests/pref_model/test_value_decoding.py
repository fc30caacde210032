"""Value-augmented decoding on a causal model so small that every response can be listed."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pref_model.errors import BadArray, BadSetting
from pref_model.value_decoding import (
    DecodeConfig,
    augmented_logits,
    decode,
    rollouts_of,
    sample_responses,
)
from pref_model.value_head import (
    Rollouts,
    ValueConfig,
    ValueHead,
    lambda_returns,
    train_value_head,
)

V, T, D_REWARDS = 5, 3, 2
PROMPT = [1, 2]
RESPONSES = list(product(range(V), repeat=T))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def rewards():
    """Two base rewards of each response: how much of token 0 and of 3; and the last token's own."""
    found = {}
    own = np.random.default_rng(1).standard_normal(V)
    for one in RESPONSES:
        found[one] = np.array([one.count(0) - one.count(3), own[one[-1]]])
    return found


@pytest.fixture(scope="module")
def chances(model):
    """pi(y | x) of every response."""
    with torch.no_grad():
        ids = torch.tensor([[*PROMPT, *one] for one in RESPONSES])
        logs = torch.log_softmax(model(ids).logits.double(), -1)
    steps = [
        logs[:, len(PROMPT) - 1 + t].gather(1, ids[:, len(PROMPT) + t, None]) for t in range(T)
    ]
    pi = torch.cat(steps, 1).sum(1).exp().numpy()
    assert pi.sum() == pytest.approx(1.0)
    return dict(zip(RESPONSES, pi, strict=True))


def value(prefix, chances, score):
    """E[score(y) | y begins with prefix] under the model."""
    mine = [one for one in RESPONSES if one[: len(prefix)] == prefix]
    weight = np.array([chances[one] for one in mine])
    return np.tensordot(weight / weight.sum(), np.array([score(one) for one in mine]), 1)


def decoded(chances, value_of, beta):
    """Distribution of responses when every token is drawn by `augmented_logits`."""
    found = {}
    for one in RESPONSES:
        chance = 1.0
        for t in range(T):
            tokens = [(*one[:t], token) for token in range(V)]
            prefix = sum(chances[y] for y in RESPONSES if y[:t] == one[:t])
            base = [sum(chances[y] for y in RESPONSES if y[: t + 1] == a) / prefix for a in tokens]
            logits = augmented_logits(
                torch.tensor(base, dtype=torch.float64).log(),
                torch.tensor([value_of(a) for a in tokens], dtype=torch.float64),
                beta,
            )
            chance *= float(torch.softmax(logits, 0)[one[t]])
        found[one] = chance
    return found


def tilted(chances, score, beta):
    """The optimum of E r - KL / beta: pi exp(beta r) / Z."""
    raw = {one: chances[one] * np.exp(beta * score(one)) for one in RESPONSES}
    total = sum(raw.values())
    return {one: weight / total for one, weight in raw.items()}


def kl(p, q):
    return sum(p[one] * np.log(p[one] / q[one]) for one in RESPONSES)


def mean(p, score):
    return sum(p[one] * score(one) for one in RESPONSES)


@pytest.mark.parametrize("beta", [0.3, 3.0])
def test_with_soft_values_the_responses_follow_the_kl_tilted_distribution(chances, rewards, beta):
    def score(one):
        return float(rewards[one] @ (1.0, -0.5))

    def soft(prefix):
        return float(np.log(value(prefix, chances, lambda y: np.exp(beta * score(y)))) / beta)

    found, exact = decoded(chances, soft, beta), tilted(chances, score, beta)
    np.testing.assert_allclose([found[y] for y in RESPONSES], [exact[y] for y in RESPONSES], 1e-9)


def test_expected_rewards_agree_with_the_tilt_to_first_order_in_beta(chances, rewards):
    def score(one):
        return float(rewards[one] @ (1.0, -0.5))

    def expected(prefix):
        return float(value(prefix, chances, score))

    gaps = []
    for beta in (0.05, 0.1, 0.2):
        found, exact = decoded(chances, expected, beta), tilted(chances, score, beta)
        assert kl(found, exact) < 0.02 * kl(chances, exact)
        gaps.append(kl(found, exact))
    # KL of an error of second order grows with the fourth power.
    assert 12 < gaps[1] / gaps[0] < 20
    assert 12 < gaps[2] / gaps[1] < 20


@pytest.fixture(scope="module")
def trained(model, rewards):
    responses = sample_responses(model, PROMPT, 2000, max_new_tokens=T)
    scores = torch.tensor(np.array([rewards[tuple(one)] for one in responses]))
    rollouts = rollouts_of(model, [PROMPT] * len(responses), responses, scores, batch_size=500)
    config = ValueConfig(hidden=64, steps=350, batch_size=200, learning_rate=5e-3)
    return train_value_head(rollouts, config)


def prefixes():
    return [one[:t] for t in range(T + 1) for one in RESPONSES if not any(one[t:])]


def test_one_head_learns_the_expected_base_rewards_of_every_prefix(
    model, trained, chances, rewards
):
    exact = np.array([value(one, chances, lambda y: rewards[y]) for one in prefixes()])
    found = []
    with torch.no_grad():
        for one in prefixes():
            out = model(torch.tensor([[*PROMPT, *one]]), output_hidden_states=True)
            found.append(trained(out.hidden_states[-1][0, -1]).numpy())
    weight = np.array([sum(chances[y] for y in RESPONSES if y[: len(p)] == p) for p in prefixes()])
    error = np.average((np.array(found) - exact) ** 2, axis=0, weights=weight)
    spread = np.average((exact - np.average(exact, 0, weight)) ** 2, axis=0, weights=weight)
    assert np.all(error < 0.05 * spread)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.5, -1.0)])
def test_the_same_head_steers_every_user_toward_the_user_s_own_reward(
    model, trained, chances, rewards, weights
):
    def score(one):
        return float(rewards[one] @ weights)

    def learned(prefix):
        with torch.no_grad():
            out = model(torch.tensor([[*PROMPT, *prefix]]), output_hidden_states=True)
            return float(trained(out.hidden_states[-1][0, -1]).numpy() @ weights)

    known = {one: learned(one) for one in prefixes()}
    found, exact = decoded(chances, known.__getitem__, 1.0), tilted(chances, score, 1.0)
    assert mean(found, score) > mean(chances, score) + 0.3
    assert kl(found, exact) < 0.25 * kl(chances, exact)


def test_decoding_takes_the_path_that_listing_all_tokens_gives(model, trained, chances):
    weights = (1.0, 0.5)
    path: list[int] = []
    for _ in range(T):
        ids = [[*PROMPT, *path, token] for token in range(V)]
        with torch.no_grad():
            out = model(torch.tensor(ids), output_hidden_states=True)
            base = torch.log_softmax(model(torch.tensor([[*PROMPT, *path]])).logits[0, -1], -1)
        values = trained(out.hidden_states[-1][:, -1]) @ torch.tensor(weights)
        path.append(int(augmented_logits(base, values, 3.0).argmax()))
    config = DecodeConfig(beta=3.0, top_k=V, max_new_tokens=T, temperature=0.0)
    assert decode(model, trained, weights, PROMPT, config) == path
    # One token to choose from is the model's own best, whatever the values say.
    alone = DecodeConfig(beta=9.0, top_k=1, max_new_tokens=1)
    best = max(range(V), key=lambda token: value_of_first(chances, token))
    assert decode(model, trained, weights, PROMPT, alone) == [best]


def value_of_first(chances, token):
    return sum(chance for one, chance in chances.items() if one[0] == token)


def test_draws_follow_the_decoder_s_distribution_and_beta_0_is_the_model_itself(
    model, trained, chances
):
    config = DecodeConfig(beta=0.0, top_k=V, max_new_tokens=1)
    drawn = [decode(model, trained, (1.0, 0.0), PROMPT, config, seed=n)[0] for n in range(200)]
    exact = np.array([value_of_first(chances, token) for token in range(V)])
    found = np.bincount(drawn, minlength=V) / len(drawn)
    assert np.all(np.abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / len(drawn)) + 1e-9)


def test_samples_follow_the_model_and_end_where_they_end(model, chances):
    drawn = sample_responses(model, PROMPT, 4000, max_new_tokens=T, seed=1)
    first = np.bincount([one[0] for one in drawn], minlength=V) / len(drawn)
    exact = np.array([value_of_first(chances, token) for token in range(V)])
    assert np.all(np.abs(first - exact) < 0.04)
    ended = sample_responses(model, PROMPT, 200, max_new_tokens=T, end_ids=(0,), seed=2)
    for one in ended:
        assert 0 not in one[:-1]
        assert len(one) == T or one[-1] == 0


def test_targets_are_the_sum_over_steps_ahead():
    rng = np.random.default_rng(3)
    values, rewards = rng.standard_normal((4, 6, 2)), rng.standard_normal((4, 2))
    lengths, trace = [5, 3, 1, 4], 0.8
    found = lambda_returns(
        torch.tensor(values), torch.tensor(rewards), torch.tensor(lengths), trace
    ).numpy()
    for row, length in enumerate(lengths):
        for t in range(length + 1):
            n_ahead = max(length - t - 1, 0)
            slow = trace**n_ahead * rewards[row]
            for n in range(1, n_ahead + 1):
                slow = slow + (1 - trace) * trace ** (n - 1) * values[row, t + n]
            np.testing.assert_allclose(found[row, t], slow, atol=1e-12)


def test_with_trace_1_every_target_is_the_reward():
    values = torch.randn(2, 4, 1, generator=torch.Generator().manual_seed(0))
    found = lambda_returns(values, torch.tensor([[2.0], [3.0]]), torch.tensor([3, 2]), 1.0)
    assert (found[0] == 2.0).all()
    assert (found[1, :3] == 3.0).all()


def test_states_do_not_depend_on_the_batch_they_are_read_in(model):
    responses = [[1], [0, 3, 2], [4, 4]]
    rewards = torch.zeros(3, 1)
    alone, together = (
        rollouts_of(model, [PROMPT, [3], [1, 2, 3]], responses, rewards, batch_size=size)
        for size in (1, 3)
    )
    torch.testing.assert_close(alone.states, together.states, atol=1e-5, rtol=1e-5)
    assert alone.lengths.tolist() == [1, 3, 2]


def test_the_same_seed_gives_the_same_head(model):
    states = torch.randn(20, 3, 8, generator=torch.Generator().manual_seed(1))
    rollouts = Rollouts(states, torch.full((20,), 2), states[:, 2, :2])
    heads = [train_value_head(rollouts, ValueConfig(steps=5), seed=4) for _ in range(2)]
    torch.testing.assert_close(heads[0](states), heads[1](states), atol=0, rtol=0)


def test_bad_requests_are_told(model):
    states = torch.zeros(2, 2, 4)
    with pytest.raises(BadArray, match="expected N responses"):
        train_value_head(Rollouts(states, torch.tensor([2, 1]), torch.zeros(2, 1)))
    with pytest.raises(BadArray, match="finite"):
        train_value_head(Rollouts(states, torch.tensor([1, 1]), torch.full((2, 1), torch.nan)))
    with pytest.raises(BadArray, match="weights"):
        decode(model, ValueHead(32, 2), (1.0,), PROMPT)
    with pytest.raises(BadSetting):
        DecodeConfig(top_k=0)
    with pytest.raises(BadSetting):
        ValueConfig(trace=1.5)
