"""Runs steps one after another and remembers which dataset versions they gave."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from prefect.runtime import flow_run

from tasks import _runs as runs
from tasks._engines import close_engines, endpoint_address, endpoint_name
from tasks._openlineage import LineageSender
from tasks._settings import read_environment
from tasks._stages.calls import n_shards
from tasks._stages.configs import stage_configs, stage_places
from tasks._stages.stage import Inputs
from tasks.checks import DATA_CHECKS, gate
from tasks.config import AnyFlowConfig, CallSettings, FlowConfig, as_json
from tasks.errors import StageFailed
from tasks.publish import progress, publish, publish_lineage
from tasks.steps import CallStep, PartStep, Step
from tasks.types import CallCount, CallPlan, StagePlan
from warehouse.errors import WarehouseBusy
from warehouse.runs import RunRecord

RunShards = Callable[[StagePlan, CallPlan, int], CallCount]


class StageEvent(NamedTuple):
    """A stage begins (``calls`` is None) or has ended."""

    stage: str
    is_reused: bool
    n_calls: int
    calls: CallCount | None
    n_rows: dict[str, int]


def call_plan(config: FlowConfig) -> CallPlan:
    """How the calls of a run are made; holds no secret."""
    ledger = read_environment().ledger_url or str(
        runs.warehouse_at(config.warehouse).root / "ledger.sqlite"
    )
    return CallPlan(
        base_url=endpoint_address(config.llm),
        endpoint_name=endpoint_name(config.llm),
        simulator=config.llm.simulator,
        ledger=ledger,
        settings=config.calls,
        judge_model=config.llm.judge_model,
        needs=_needs(config),
    )


def _needs(config: FlowConfig) -> tuple[str, ...]:
    """What the endpoint must honor beyond plain answers, for this configuration."""
    wanted = {
        "batch": config.calls.mode == "batch",
        "verdict_logprobs": config.judge.is_soft,
        # Without counts of tokens a cap of money cannot be held.
        "usage": config.calls.max_cost_usd is not None,
    }
    return tuple(name for name, is_needed in wanted.items() if is_needed)


class Chain(AbstractContextManager["Chain"]):
    """One run of a flow on one warehouse, which it keeps to itself while it lasts.

    Args:
        flow: Name of the flow.
        config: The flow's configuration.
        run_shards: Makes a stage's calls, shard by shard; None for a flow that makes none.
    """

    def __init__(
        self, flow: str, config: AnyFlowConfig, run_shards: RunShards | None = None
    ) -> None:
        self.flow = flow
        self.datasets: dict[str, str] = {}
        self.warnings: list[str] = []
        self._artifacts: dict[str, str] = {}
        self._reused: set[str] = set()
        self._lineage: LineageSender | None = None
        self.count = CallCount()
        self._config = config
        self._run_shards = run_shards
        self._stage_configs = stage_configs(config)
        self._places = stage_places(config)
        self._calls = call_plan(config) if isinstance(config, FlowConfig) else None
        self._warehouse = runs.warehouse_at(config.warehouse)
        self._run_id = str(flow_run.id or uuid.uuid4())
        self._started_at = datetime.now(UTC)
        self._lock: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> Self:
        """Locks the warehouse and records that the run began.

        Raises:
            WarehouseBusy: Another run is at work there, for longer than the settings let us wait.
        """
        settings = self._calls.settings if self._calls else CallSettings()
        target = read_environment().openlineage
        if target is not None:
            self._lineage = LineageSender(target, self._warehouse.root, self.flow, self._run_id)
        self._lock = self._locked(settings.wait_for_warehouse_s)
        self._record(is_running=True, is_complete=False)
        if self._lineage is not None:
            self._lineage.began()
        return self

    def _locked(self, wait_s: float) -> AbstractContextManager[None]:
        end_s = time.monotonic() + wait_s
        while True:
            lock = self._warehouse.lock()
            try:
                lock.__enter__()
            except WarehouseBusy:
                if time.monotonic() >= end_s:
                    raise
                time.sleep(min(1.0, wait_s))
            else:
                return lock

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops what the run started, and records which versions it made or found."""
        try:
            close_engines()
            if self.datasets and kind is None:
                publish_lineage(
                    self._warehouse.location, self.datasets, self._artifacts, sorted(self._reused)
                )
            self._record(is_running=False, is_complete=kind is None)
            if self._lineage is not None:
                self._lineage.ended(error)
        finally:
            self._lock.__exit__(kind, error, trace)

    def told(self) -> dict[str, Any]:
        """Calls, money and datasets of the run so far."""
        return {
            "calls_made": self.count.made,
            "calls_reused": self.count.reused,
            "cost_usd": self.count.spent_usd,
            "datasets": dict(self.datasets),
            "warnings": self.warned(),
        }

    def warned(self) -> list[str]:
        """What went on although something is not as it should be."""
        fault = self._lineage.fault if self._lineage is not None else None
        return [*self.warnings, *([fault] if fault else [])]

    def step(self, step: Step) -> None:
        """Runs a stage that makes no calls, or finds its datasets."""
        plan = self._plan(step)
        is_reused = bool(runs.manifests_of(plan, step.stage))
        _tell(StageEvent(step.stage.name, is_reused, 0, None, {}))
        # A cached result whose dataset is gone must not count as a hit.
        refs = step.task.with_options(refresh_cache=not is_reused)(plan)
        self._finish(plan, refs, is_reused, CallCount())

    def check(self) -> None:
        """Checks every dataset so far, and stops here if one of them fails.

        Raises:
            StageFailed: What failed, and in which rows.
        """
        self.step(DATA_CHECKS)
        self.warnings = gate(self._warehouse.location, self.datasets["data_checks"])

    def adopt(self, versions: Mapping[str, str]) -> None:
        """Takes versions that are there as this run's own."""
        self.datasets |= versions

    def parts(self, step: PartStep) -> None:
        """Runs a stage arm by arm, then commits its datasets; or finds them."""
        plan = self._plan(step)
        is_reused = bool(runs.manifests_of(plan, step.stage))
        if not is_reused:
            arms = plan.config["arms"]
            tell_done = progress(step.stage.name, "arms", len(arms))
            for n_done, name in enumerate(arms, 1):
                _tell(StageEvent(name, False, 0, None, {}))
                n_cells = step.part(plan, self._config, name)
                _tell(StageEvent(name, not n_cells, 0, CallCount(), {"cells": n_cells}))
                tell_done(n_done)
        _tell(StageEvent(step.stage.name, is_reused, 0, None, {}))
        refs = step.task.with_options(refresh_cache=not is_reused)(plan)
        self._finish(plan, refs, is_reused, CallCount())

    def calls(self, step: CallStep) -> None:
        """Runs a stage's calls shard by shard, then commits its datasets; or finds them."""
        if self._calls is None or self._run_shards is None:
            raise StageFailed(
                f"stage {step.stage.name}: the {self.flow} flow makes no calls; expected a flow"
                " with a model to ask; this is a fault of the program"
            )
        plan = self._plan(step)
        found = runs.manifests_of(plan, step.stage)
        if found:
            _tell(StageEvent(step.stage.name, True, 0, None, {}))
            count = _as_reused(found[0].calls)
        else:
            inputs = Inputs(self._warehouse, plan)
            n_calls = step.stage.n_cells(inputs) * step.stage.calls_per_cell(inputs)
            _tell(StageEvent(step.stage.name, False, n_calls, None, {}))
            wanted = n_shards(step.stage, inputs, self._calls.settings.shard_size)
            count = self._run_shards(plan, self._calls, wanted) if wanted else CallCount()
        refs = step.task.with_options(refresh_cache=not found)(plan, self._calls)
        self._finish(plan, refs, bool(found), count)

    def _plan(self, step: Step | PartStep | CallStep) -> StagePlan:
        return runs.plan_stage(
            step.stage,
            self._config.warehouse,
            self._stage_configs[step.stage.name],
            self.datasets,
            self._places,
            as_json(self._config.training) if isinstance(self._config, FlowConfig) else None,
        )

    def _finish(
        self, plan: StagePlan, refs: list[dict[str, Any]], is_reused: bool, count: CallCount
    ) -> None:
        for ref in refs:
            self.datasets[ref["dataset"]] = ref["version"]
        names = {ref["dataset"] for ref in refs}
        self._reused = self._reused | names if is_reused else self._reused - names
        self.count = self.count + count
        self._artifacts |= publish(plan, refs, is_reused, self._artifacts)
        if self._lineage is not None and not is_reused:
            self._lineage.made(
                [self._warehouse.manifest(one, plan.version) for one in sorted(names)]
            )
        rows = {ref["dataset"]: ref["n_rows"] for ref in refs}
        _tell(StageEvent(plan.stage, is_reused, 0, count, rows))

    def _record(self, *, is_running: bool, is_complete: bool) -> None:
        record = RunRecord(
            run_id=self._run_id,
            flow=self.flow,
            started_at=self._started_at,
            finished_at=None if is_running else datetime.now(UTC),
            datasets=self.datasets,
            is_complete=is_complete,
            config=as_json(self._config),
        )
        self._warehouse.record_run(record)


_watcher: Callable[[StageEvent], None] | None = None


def watch(watcher: Callable[[StageEvent], None] | None) -> None:
    """Tells ``watcher`` when stages of this process begin and end."""
    global _watcher
    _watcher = watcher


def _tell(event: StageEvent) -> None:
    if _watcher is not None:
        _watcher(event)


def _as_reused(calls: Any) -> CallCount:
    return CallCount(
        reused=calls.made + calls.reused,
        prompt_tokens=calls.prompt_tokens,
        completion_tokens=calls.completion_tokens,
        cost_usd=calls.cost_usd,
    )
