"""A team's own data, from its users' answers to report, as cached, restartable stages."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.chain import Chain
from tasks.config import OwnConfig
from tasks.own import (
    ACCURACY,
    ADAPT_OWN,
    ASSEMBLE_OWN,
    FIT_OWN,
    FORM,
    INGEST_OWN,
    REPORT_OWN,
    SPLIT_OWN,
)
from tasks.summary import summarize_own
from tasks.train import ENCODE


@flow(name="own", persist_result=False)
def own(config: OwnConfig) -> dict[str, Any]:
    """Trains base rewards on what real users answered, adapts held-out users and measures them.

    Nobody is asked anything, neither a person nor a model: all answers are in the data. Most
    users may have pairs that nobody else saw. A fifth of the users is held out; half of the
    prompts of each held-out user is for learning that user's weights, the other half for asking
    whether we rank its responses as the user did.

    Args:
        config: See `tasks.config.OwnConfig`. ``ingest.data`` is the folder; by default what
            `pref ingest` imported last.

    Returns:
        The summary that ``pref run own --json`` prints.
    """
    with Chain("own", config) as chain:
        # The matrix: texts and users, each answer, a cell for each user and pair.
        chain.step(INGEST_OWN)
        chain.step(ASSEMBLE_OWN)
        chain.step(SPLIT_OWN)
        chain.check()
        # The model: base rewards from seen users, then some answers of each new one.
        chain.step(ENCODE)
        chain.step(FORM)
        chain.step(FIT_OWN)
        chain.step(ADAPT_OWN)
        # The proof: new users' other pairs, ranked as they did?
        chain.step(ACCURACY)
        chain.check()
        chain.step(REPORT_OWN)
    return summarize_own(config, chain)
