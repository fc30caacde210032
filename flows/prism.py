"""The augmented PRISM data set, from survey to report, as cached, restartable stages."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.shards import run_shards
from tasks.assemble import ASSEMBLE, SPLIT
from tasks.chain import Chain
from tasks.config import PrismConfig, Until
from tasks.evaluate import AUC, CHECK_WIN, WIN, WIN_RATES
from tasks.interpret import INTERPRET, LABEL
from tasks.judge import DESIGN, JUDGE, JUDGE_CHECKS
from tasks.personalize import POOL, SELECT, SUMMARIZE, WRITE
from tasks.prism import CHECK, CHOOSE, PRISM, RATE, REPORT, REVISE, SIFT
from tasks.summary import summarize
from tasks.train import ADAPT, ENCODE, ENCODE_POOL, FIT, RANK, TUNE


@flow(name="prism", persist_result=False)
def prism(config: PrismConfig, until: Until = "report") -> dict[str, Any]:
    """Regenerates PRISM's augmented preference matrix, trains base rewards and measures them.

    Users are PRISM's participants, known by what they told in a survey. Prompts are what they
    opened conversations with, where opinions may divide. Each prompt's pair is a response that a
    participant got, against a revision of it written for a random participant. Only some users
    judge each pair, so most of the matrix stays unknown. From there on all is as in `attributes`.

    The verdicts are a judge's who plays the participants, not the participants' own.

    Args:
        config: See `tasks.config.PrismConfig`. ``ingest.prism`` has no default: PRISM is not part
            of this package. By default every prompt is kept and nobody rates them.
        until: The last stage, as in `attributes`.

    Returns:
        The summary that ``pref run prism --json`` prints; of a part, its calls and datasets.
    """
    with Chain("prism", config, run_shards) as chain:
        # The prompts: participants and conversations, filters, a rating of controversy.
        chain.step(PRISM)
        chain.step(SIFT)
        chain.calls(RATE)
        chain.step(CHOOSE)
        # The matrix: a response against its revision, judged by some users in both orders.
        chain.calls(REVISE)
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
