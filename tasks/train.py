"""Tasks of the tune, encode, rank, fit and adapt stages; the work is in modules of those names."""

from __future__ import annotations

from typing import Any

from tasks._runs import inputs_of, run_stage
from tasks._stages.adapt import STAGE as ADAPT_STAGE
from tasks._stages.encode import POOL_STAGE as ENCODE_POOL_STAGE
from tasks._stages.encode import STAGE as ENCODE_STAGE
from tasks._stages.fit import STAGE as FIT_STAGE
from tasks._stages.rank import STAGE as RANK_STAGE
from tasks._stages.tune import STAGE as TUNE_STAGE
from tasks._stages.tune import steps_done
from tasks.caching import run_ids, stage_task
from tasks.publish import watched
from tasks.steps import Step
from tasks.types import StagePlan


@stage_task("tune")
def tune(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``backbones``: a trained encoder. No calls; goes on from its last saved state."""
    steps = int(plan.config["backbone"]["steps"])
    with watched("tune", "steps", steps, lambda: steps_done(inputs_of(plan))):
        return run_stage(plan, TUNE_STAGE, run_ids())


@stage_task("encode")
def encode(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``embeddings``. No calls, one encoder pass a text; safe to run again."""
    return run_stage(plan, ENCODE_STAGE, run_ids())


@stage_task("encode pool")
def encode_pool(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``pool_embeddings``. No calls, one encoder pass a text; safe to run again."""
    return run_stage(plan, ENCODE_POOL_STAGE, run_ids())


@stage_task("rank")
def rank(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``rank_curve``: how many base rewards answers support. No calls; safe to run again."""
    return run_stage(plan, RANK_STAGE, run_ids())


@stage_task("fit")
def fit(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes models, base rewards, user weights, ``alignment``. No calls; safe to run again."""
    return run_stage(plan, FIT_STAGE, run_ids())


@stage_task("adapt")
def adapt(plan: StagePlan) -> list[dict[str, Any]]:
    """Writes ``adapted_weights`` and ``questions``. No calls; safe to run again."""
    return run_stage(plan, ADAPT_STAGE, run_ids())


TUNE = Step(tune, TUNE_STAGE)
ENCODE = Step(encode, ENCODE_STAGE)
ENCODE_POOL = Step(encode_pool, ENCODE_POOL_STAGE)
RANK = Step(rank, RANK_STAGE)
FIT = Step(fit, FIT_STAGE)
ADAPT = Step(adapt, ADAPT_STAGE)
