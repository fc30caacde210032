"""What travels between flows and tasks: JSON only, so that any worker can carry it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from tasks._settings import without_password
from tasks.config import CallSettings, SimulatorConfig


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagePlan(_Json):
    """One stage's work, fully named: the same plan always gives the same bytes.

    ``places`` says where inputs outside the warehouse lie (their content hash is in ``config``);
    ``how`` says on what device and how fast a stage trains. The version depends on neither.
    """

    stage: str
    warehouse: str
    version: str
    version_sha256: str
    code_sha256: str
    config: dict[str, Any]
    parents: dict[str, str]
    places: dict[str, str] = {}
    how: dict[str, Any] = {}


class CallPlan(_Json):
    """How calls are made; nothing here changes what is written, and nothing is secret.

    ``ledger`` is without its password, which each process has in its environment. ``needs``
    names abilities of `tasks._llm.probe` that the judge must have.
    """

    base_url: str | None
    endpoint_name: str
    simulator: SimulatorConfig
    ledger: Annotated[str, AfterValidator(without_password)]
    settings: CallSettings
    judge_model: str = ""
    needs: tuple[str, ...] = ()


def per_worker(calls: CallPlan) -> CallPlan:
    """A plan as one of several processes follows it: with its share of the limits.

    Every process has an engine of its own, so limits hold together only if each keeps to a share.
    """
    settings = calls.settings
    n = settings.workers
    if settings.runner == "threads" or settings.mode == "batch" or n == 1:
        return calls
    shares = {
        "max_in_flight": max(1, settings.max_in_flight // n),
        "requests_per_min": _share(settings.requests_per_min, n),
        "tokens_per_min": _share(settings.tokens_per_min, n),
    }
    return calls.model_copy(update={"settings": settings.model_copy(update=shares)})


class CallCount(_Json):
    """Calls, tokens and money of a shard, a dataset or a run.

    ``cost_usd`` is what all the replies cost when they were bought; ``spent_usd`` is the part of
    it spent now. Both are None when a model has no known price.
    """

    made: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    spent_usd: float | None = 0.0

    def __add__(self, other: CallCount) -> CallCount:
        return CallCount(
            made=self.made + other.made,
            reused=self.reused + other.reused,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost_usd=_sum(self.cost_usd, other.cost_usd),
            spent_usd=_sum(self.spent_usd, other.spent_usd),
        )


class DatasetRef(_Json):
    """A committed dataset version, by name; what a stage task returns and Prefect caches."""

    dataset: str
    version: str
    n_rows: int
    content_sha256: str


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _share(limit: float | None, n: int) -> float | None:
    return None if limit is None else limit / n
