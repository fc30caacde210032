"""The Attributes data set, from prompts to report, as one flow of cached, restartable stages."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.shards import run_shards
from tasks.assemble import ASSEMBLE, SPLIT
from tasks.chain import Chain
from tasks.config import AttributesConfig, Until
from tasks.evaluate import AUC, CHECK_WIN, REPORT, WIN, WIN_RATES
from tasks.ingest import INGEST
from tasks.interpret import INTERPRET, LABEL
from tasks.judge import CHECK, DESIGN, JUDGE, JUDGE_CHECKS
from tasks.personalize import POOL, SELECT, SUMMARIZE, WRITE
from tasks.respond import RESPOND
from tasks.summary import summarize
from tasks.train import ADAPT, ENCODE, ENCODE_POOL, FIT, RANK, TUNE


@flow(name="attributes", persist_result=False)
def attributes(config: AttributesConfig, until: Until = "report") -> dict[str, Any]:
    """Regenerates the Attributes preference matrix, trains base rewards and measures them.

    84 users, each with two of 14 traits, judge pairs of contrasting responses in both orders.
    A fifth of the users and of the prompts is held out. Base rewards are learnt from the rest;
    held-out users are then known by a few answers each, and measured on held-out prompts: do we
    rank responses as they do, and do they prefer the response chosen for them?

    Every stage writes immutable dataset versions named by what they depend on. A stage whose
    version exists is not run; a reply that was bought is never bought again.

    Args:
        config: See `tasks.config.AttributesConfig`; each field says what it does. The default
            runs on the embedded simulator, and its answers are simulated.
        until: The last stage: with "split" the matrix is regenerated, with "auc" base rewards are
            trained on it too, with "report" all is measured and told.

    Returns:
        The summary that ``pref run attributes --json`` prints; of a part, its calls and datasets.
    """
    with Chain("attributes", config, run_shards) as chain:
        # The matrix: prompts and users, two responses a prompt, every verdict in both orders.
        chain.step(INGEST)
        chain.calls(RESPOND)
        chain.step(DESIGN)
        chain.calls(JUDGE)
        chain.calls(CHECK)
        chain.step(ASSEMBLE)
        chain.step(SPLIT)
        chain.check()
        if until == "split":
            return chain.told()
        # The model: base rewards from seen users, then a few questions to each new one.
        if config.backbone.is_trained:
            chain.step(TUNE)
        chain.step(ENCODE)
        chain.step(JUDGE_CHECKS)
        chain.step(RANK)
        chain.step(FIT)
        chain.step(ADAPT)
        chain.step(AUC)
        if until == "auc":
            return chain.told()
        # What the base rewards are about, in the words of a model that reads both ends of each.
        chain.step(INTERPRET)
        chain.calls(LABEL)
        # The proof: a response chosen for each new user against the base response.
        chain.calls(POOL)
        chain.step(ENCODE_POOL)
        chain.calls(SUMMARIZE)
        chain.calls(WRITE)
        chain.step(SELECT)
        chain.calls(WIN)
        chain.calls(CHECK_WIN)
        chain.step(WIN_RATES)
        chain.check()
        chain.step(REPORT)
    return summarize(config, chain)
