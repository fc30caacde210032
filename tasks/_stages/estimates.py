"""What a stage's calls need in tokens and money, before their texts are known or made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompts.catalog import load_template
from tasks._llm.prices import PriceTable
from tasks.config import AttributesConfig, CallSettings, FlowConfig, PrismConfig, Sampling

CHARACTERS_A_TOKEN = 4.0
# A response, a prompt and a verdict of ordinary length, where their texts are not known yet.
USUAL_RESPONSE_TOKENS = 300
USUAL_PROMPT_TOKENS = 30
USUAL_PROFILE_TOKENS = 60
# PRISM's participants tell of themselves at length.
USUAL_PRISM_PROFILE_TOKENS = 250
VERDICT_TOKENS = 6
# What providers promise of a batch.
BATCH_HOURS = 24.0


class StageCost(NamedTuple):
    """What one stage still needs.

    ``calls`` are still to be made, ``held`` are in the ledger or in a committed dataset. Tokens
    and money are for ``calls``: low takes usual lengths, high the longest replies allowed.
    ``is_exact`` says whether the requests are known, or only their number. Costs are None where
    the model has no known price, hours where no rate limit is given.
    """

    stage: str
    model: str
    calls: int
    held: int
    is_exact: bool
    prompt_tokens_low: int
    prompt_tokens_high: int
    completion_tokens_low: int
    completion_tokens_high: int
    cost_low_usd: float | None
    cost_high_usd: float | None
    hours_low: float | None = None
    hours_high: float | None = None


def with_hours(cost: StageCost, settings: CallSettings) -> StageCost:
    """The cost with the time that the rate limits of the settings alone make the calls take.

    Batches are not limited by the minute: they take up to a day, and are started together.
    """
    if settings.mode == "batch":
        return cost._replace(hours_low=0.0, hours_high=BATCH_HOURS if cost.calls else 0.0)
    requests_per_min, tokens_per_min = settings.requests_per_min, settings.tokens_per_min
    if requests_per_min is None and tokens_per_min is None:
        return cost

    def hours(n_tokens: int) -> float:
        minutes = [cost.calls / requests_per_min] if requests_per_min else []
        minutes += [n_tokens / tokens_per_min] if tokens_per_min else []
        return max(minutes) / 60

    return cost._replace(
        hours_low=hours(cost.prompt_tokens_low + cost.completion_tokens_low),
        hours_high=hours(cost.prompt_tokens_high + cost.completion_tokens_high),
    )


class Extent(NamedTuple):
    """How large a run is, as far as that is known before it.

    Attributes:
        n_prompts: Prompts with a pair.
        n_personas: Users.
        profile_tokens: A profile of ordinary length.
        response_sampling: How the responses that are shown to judges are sampled.
    """

    n_prompts: int
    n_personas: int
    profile_tokens: int
    response_sampling: Sampling


def attributes_extent(config: AttributesConfig) -> Extent:
    """The extent of an attributes run, which its configuration settles."""
    n_personas = config.ingest.n_personas or 84
    return Extent(
        config.ingest.n_prompts, n_personas, USUAL_PROFILE_TOKENS, config.respond.sampling
    )


def prism_extent(config: PrismConfig, n_prompts: int, n_personas: int) -> Extent:
    """The extent of a PRISM run once its prompts and personas are counted."""
    return Extent(n_prompts, n_personas, USUAL_PRISM_PROFILE_TOKENS, config.revise.sampling)


def priced(
    stage: str,
    config: Mapping[str, Any],
    prices: PriceTable,
    lengths: Sequence[int],
    *,
    held: int = 0,
    longer: int = 0,
    is_exact: bool = True,
    is_batch: bool = False,
) -> StageCost:
    """The cost of calls by the length of their prompts.

    Args:
        stage: Name of the stage.
        config: Its configuration: model and sampling.
        prices: List prices.
        lengths: Prompt tokens of each call to make.
        held: Calls in hand.
        longer: Prompt tokens that the calls together may have more, at most.
        is_exact: Whether the prompts are known.
        is_batch: Whether the calls are made in batches, at their price.
    """
    longest = longest_reply(config["sampling"])
    model = str(config.get("judge_model") or config["responder_model"])
    usual = min(VERDICT_TOKENS if "judge_model" in config else USUAL_RESPONSE_TOKENS, longest)
    price = prices.lookup(model)
    low_in, low_out = sum(lengths), usual * len(lengths)
    high_in, high_out = low_in + max(0, longer), longest * len(lengths)
    return StageCost(
        stage=stage,
        model=model,
        calls=len(lengths),
        held=held,
        is_exact=is_exact,
        prompt_tokens_low=low_in,
        prompt_tokens_high=high_in,
        completion_tokens_low=low_out,
        completion_tokens_high=high_out,
        cost_low_usd=price.cost_usd(low_in, low_out, is_batch=is_batch) if price else None,
        cost_high_usd=price.cost_usd(high_in, high_out, is_batch=is_batch) if price else None,
    )


def expected(
    stage: str,
    stage_config: Mapping[str, Any],
    config: FlowConfig,
    extent: Extent,
    prices: PriceTable,
    prompts: Sequence[str] = (),
) -> StageCost:
    """A stage's whole cost from the configuration alone, texts at their usual length.

    Args:
        stage: ``respond``, ``revise``, ``judge``, ``check``,
            ``label``, ``pool``, ``summarize``, ``write``, ``win`` or ``check_win``.
        stage_config: The stage's part of the configuration.
        config: The flow's configuration.
        extent: How many prompts and personas there are.
        prices: List prices.
        prompts: Prompt texts, where they are known.
    """
    n_prompts, n_personas = extent.n_prompts, extent.n_personas
    held_out = max(1, round(config.split.new_pair_share * n_prompts))
    new_prompts = min(held_out, config.win.n_prompts or held_out)
    new_users = max(1, round(config.split.new_user_share * n_personas))
    n_orders = 2 * config.judge.repeats
    judges = min(config.design.personas_per_pair or n_personas, n_personas)
    also = config.win.also
    n_samples = config.win.n_samples if "samples" in also else 0
    n_writers = len({*also} - {"samples"})
    n_shown = 2 * config.win.n_answers
    further = {*config.win.also_answers} - {config.win.n_answers}
    n_further = sum(count <= n_prompts - held_out for count in further)
    # PReF, the model per user and the best plain sample may choose anew after other answers.
    n_choices = 3 + len(also) + n_further * (2 + ("samples" in also))
    n_calls, shown, template = {
        "respond": (2 * n_prompts, 0, "template"),
        "revise": (2 * n_prompts, 2, "rewrite_template"),
        "judge": (judges * n_prompts * n_orders, 2, "template"),
        "label": (config.fit.d, 2 * config.interpret.n_examples, "template"),
        "check": (_n_checks(config, judges * n_prompts), 2, "template"),
        "pool": (new_prompts * (1 + n_samples + config.win.pool_size), 1, "revise_template"),
        "summarize": (new_users * ("summary" in also), n_shown, "summary_template"),
        "write": (
            new_users * new_prompts * n_writers,
            # Only a writer with the answers in context is shown them.
            round(n_shown * ("in_context" in also) / max(1, n_writers)),
            "in_context_template",
        ),
        # Where choices agree, one comparison serves them all.
        "win": (new_users * new_prompts * n_choices * n_orders, 2, "template"),
        "check_win": (_n_win_checks(config, new_users * new_prompts), 2, "template"),
    }[stage]
    texts = load_template(stage_config[template])
    fixed = (len(texts.system_text) + len(texts.user_text)) / CHARACTERS_A_TOKEN
    asked = sum(map(len, prompts)) / len(prompts) / CHARACTERS_A_TOKEN if prompts else None
    length = fixed + extent.profile_tokens + shown * USUAL_RESPONSE_TOKENS
    length += USUAL_PROMPT_TOKENS if asked is None else asked
    longer = longest_reply(extent.response_sampling) - USUAL_RESPONSE_TOKENS
    return priced(
        stage,
        stage_config,
        prices,
        [round(length)] * n_calls,
        longer=n_calls * shown * longer,
        is_exact=False,
        is_batch=config.calls.mode == "batch",
    )


def _n_checks(config: FlowConfig, n_cells: int) -> int:
    """Questions that check the judge; a quarter of the controls is asked in one order only."""
    audit = config.audit
    again = min(audit.sample, n_cells) if audit.second_judge_model else 0
    return round(1.75 * config.design.control_share * n_cells) + 2 * (again + audit.human_sample)


def _n_win_checks(config: FlowConfig, n_places: int) -> int:
    """Questions that check the judge of win rates, for so many places of user and prompt."""
    again = min(config.audit.win_sample, 3 * n_places) if config.audit.second_judge_model else 0
    return 2 * (min(config.win.n_identical, n_places) + again)


def longest_reply(sampling: Mapping[str, Any]) -> int:
    """The longest reply a call's sampling allows, in tokens."""
    return int(sampling.get("max_tokens") or sampling.get("max_completion_tokens") or 4096)


def prompt_tokens(messages: Sequence[Mapping[str, object]]) -> int:
    """Tokens of a rendered prompt, estimated: characters / 4, and 4 a message."""
    characters = sum(len(str(message["content"])) for message in messages)
    return round(characters / CHARACTERS_A_TOKEN) + 4 * len(messages)
