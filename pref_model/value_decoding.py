"""Value-augmented decoding: a frozen causal language model steered by lambda^T V at every token.

METHOD section 6 (VAS, arXiv 2405.06639). One value head serves every user, who brings only weights.
It trains nothing and knows no prompts' templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from pref_model.errors import BadArray, BadSetting
from pref_model.value_head import Rollouts, ValueHead


@dataclass(frozen=True)
class DecodeConfig:
    """How a response is written.

    Attributes:
        beta: How strongly values move the choice; 0 leaves the model as it is.
        top_k: Tokens considered, the likeliest of the model.
        max_new_tokens: Longest response.
        temperature: Of the draw among them after values are added; 0 takes the best.
    """

    beta: float = 3.0
    top_k: int = 20
    max_new_tokens: int = 256
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.max_new_tokens < 1 or self.temperature < 0.0:
            raise BadSetting(
                f"decoding: found top_k={self.top_k}, max_new_tokens={self.max_new_tokens},"
                f" temperature={self.temperature}, expected positive numbers, temperature >= 0"
            )


def augmented_logits(logits: torch.Tensor, values: torch.Tensor, beta: float) -> torch.Tensor:
    """Return l_a + beta (V(s + a) - mean_a' V(s + a')) for the tokens that are considered.

    With V the soft value (1 / beta) log E[exp(beta r) | s + a] over all tokens, the sequences drawn
    are distributed as pi(y) exp(beta r(y)) / Z, the optimum of reward less KL / beta; the expected
    reward that a head learns agrees with it to first order in beta. The mean cancels in the
    softmax; it keeps the logits of the size that the model gave them.

    Args:
        logits: (..., k) of the model.
        values: (..., k) V of the prefix with each token added, for one user.
        beta: Strength.
    """
    return logits + beta * (values - values.mean(-1, keepdim=True))


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    head: ValueHead,
    weights: Sequence[float],
    prompt_ids: Sequence[int],
    config: DecodeConfig | None = None,
    *,
    end_ids: Sequence[int] = (),
    seed: int = 0,
) -> list[int]:
    """Write one response for a user: tokens after the prompt, the end token included.

    Every step runs the model once on the top_k one-token extensions of the prefix; the row of the
    token drawn is the prefix of the next step.

    Args:
        model: A causal language model.
        head: Trained on the same model's states.
        weights: (d,) the user's lambda.
        prompt_ids: Token ids of the prompt.
        config: Settings; the defaults if None.
        end_ids: Tokens after which the response is over.
        seed: Of the draws.

    Raises:
        BadArray: No prompt, or as many weights as the head has outputs were expected.
    """
    config = config or DecodeConfig()
    if len(weights) != len(head.center) or not len(prompt_ids):
        raise BadArray(
            f"decoding: found {len(weights)} weights and {len(prompt_ids)} prompt tokens, expected"
            f" {len(head.center)} weights and at least one token"
        )
    device = model.device
    user = torch.as_tensor(list(weights), dtype=head.center.dtype, device=head.center.device)
    generator = torch.Generator("cpu").manual_seed(seed)
    cache = DynamicCache(config=model.config)
    ids = torch.as_tensor([list(prompt_ids)], device=device)
    logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -1]
    k = min(config.top_k, logits.shape[-1])
    written: list[int] = []
    while len(written) < config.max_new_tokens:
        base, tokens = logits.float().topk(k)
        cache.batch_repeat_interleave(k)
        out = model(
            input_ids=tokens[:, None],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        values = head(out.hidden_states[-1][:, -1].to(user.device)) @ user
        row = _drawn(augmented_logits(base, values.to(base.device), config.beta), config, generator)
        written.append(int(tokens[row]))
        if written[-1] in end_ids:
            break
        cache.batch_select_indices(torch.as_tensor([row], device=device))
        logits = out.logits[row, -1]
    return written


def _drawn(scores: torch.Tensor, config: DecodeConfig, generator: torch.Generator) -> int:
    if config.temperature == 0.0:
        return int(scores.argmax())
    chances = torch.softmax(scores.double().cpu() / config.temperature, -1)
    return int(torch.multinomial(chances, 1, generator=generator))


@torch.no_grad()
def sample_responses(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    n: int,
    *,
    max_new_tokens: int = 256,
    end_ids: Sequence[int] = (),
    seed: int = 0,
) -> list[list[int]]:
    """Draw n responses from the frozen model itself, at temperature 1 and without cuts.

    Returns:
        Token ids of each, the end token included.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    cache = DynamicCache(config=model.config)
    ids = torch.as_tensor([list(prompt_ids)] * n, device=model.device)
    found: list[list[int]] = [[] for _ in range(n)]
    is_open = torch.ones(n, dtype=torch.bool)
    ends = torch.as_tensor(list(end_ids), dtype=torch.long)
    for _ in range(max_new_tokens):
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
        chances = torch.softmax(logits.double().cpu(), -1)
        drawn = torch.multinomial(chances, 1, generator=generator)
        for row in torch.nonzero(is_open)[:, 0].tolist():
            found[row].append(int(drawn[row]))
        is_open &= ~torch.isin(drawn[:, 0], ends)
        if not bool(is_open.any()):
            break
        ids = drawn.to(model.device)
    return found


@torch.no_grad()
def rollouts_of(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    rewards: torch.Tensor,
    *,
    batch_size: int = 8,
) -> Rollouts:
    """Read the states that a head learns from: after the prompt and after each response token.

    Args:
        model: The frozen model.
        prompts: (N) token ids.
        responses: (N) token ids, each of at least one token.
        rewards: (N, d) base rewards of the responses.
        batch_size: Texts a forward pass.
    """
    lengths = torch.as_tensor([len(one) for one in responses])
    if len(prompts) != len(responses) or len(responses) != len(rewards) or not len(responses):
        raise BadArray(
            f"rollouts: found {len(prompts)} prompts, {len(responses)} responses and"
            f" {len(rewards)} rewards, expected as many of each"
        )
    width = int(model.config.get_text_config().hidden_size)
    states = torch.zeros(len(responses), int(lengths.max()) + 1, width)
    for low in range(0, len(responses), batch_size):
        rows = range(low, min(low + batch_size, len(responses)))
        texts = [[*prompts[row], *responses[row]] for row in rows]
        longest = max(map(len, texts))
        # Padding stands behind, where a causal model's earlier states cannot see it.
        ids = torch.as_tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.as_tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts])
        out = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            output_hidden_states=True,
            use_cache=False,
        )
        for place, row in enumerate(rows):
            first = len(prompts[row]) - 1
            found = out.hidden_states[-1][place, first : first + len(responses[row]) + 1]
            states[row, : len(found)] = found.float().cpu()
    return Rollouts(states, lengths, rewards.float())
