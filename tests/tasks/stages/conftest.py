"""A warehouse in a folder, and the simulated model answering in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks._llm.simulator.judge import JUDGE_MODELS, judge_truth
from tasks._llm.simulator.responder import respond
from tasks._llm.simulator.settings import SimulatorSettings
from tasks._llm.types import CallReply, CallRequest
from tasks._runs import RunIds, plan_stage, run_stage
from tasks._stages.calls import CallStage, Complete
from tasks._stages.stage import Inputs, Stage
from tasks.types import StagePlan
from warehouse.manifest import Provenance
from warehouse.store import Warehouse, open_warehouse
from warehouse.tables import TABLES


def reply_to(call: CallRequest, text: str | None, finish_reason: str = "stop") -> CallReply:
    """A bought reply with this text."""
    return CallReply(
        key=call.key,
        status=200,
        body=(text or "").encode(),
        text=text,
        refusal=None,
        finish_reason=finish_reason,
        prompt_tokens=10,
        completion_tokens=2,
        cached_tokens=None,
        cost_usd=0.001,
        is_reused=False,
    )


@pytest.fixture
def simulated() -> Callable[..., Complete]:
    """Makes a `Complete` that answers as the simulator would, without a server."""

    def make(**settings: Any) -> Complete:
        told = SimulatorSettings(**settings)

        def complete(requests: Sequence[CallRequest]) -> list[CallReply]:
            replies = []
            for call in requests:
                messages = list(call.messages)
                if call.model in JUDGE_MODELS:
                    truth = judge_truth(
                        messages, told, model=call.model, request_seed=call.sampling.get("seed")
                    )
                    replies.append(reply_to(call, truth.reply))
                else:
                    seed = call.sampling.get("seed")
                    replies.append(reply_to(call, respond(messages, told, request_seed=seed)))
            return replies

        return complete

    return make


class Bench:
    """A warehouse with a helper to commit rows and to look at a stage's inputs."""

    def __init__(self, root: Path) -> None:
        self.warehouse: Warehouse = open_warehouse(root)
        self.versions: dict[str, str] = {}

    def put(
        self, dataset: str, rows: list[dict[str, Any]] | pa.Table, made_from: Sequence[str] = ()
    ) -> None:
        """Commits rows as a version of a dataset."""
        schema = TABLES[dataset].schema
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema)
        content = hashlib.sha256(str(table.to_pylist()).encode()).hexdigest()
        provenance = Provenance(
            stage="test",
            code_sha256=content,
            config={"dataset": dataset},
            parents={name: self.versions[name] for name in made_from},
            flow_run_id="test",
            started_at=datetime.now(UTC),
            libraries={},
        )
        manifest = self.warehouse.commit(TABLES[dataset], provenance, table)
        self.versions[dataset] = manifest.version

    def inputs(self, stage: Stage | CallStage, **config: Any) -> Inputs:
        """What a stage with this configuration reads."""
        plan = plan_stage(stage, str(self.warehouse.root), config, self.versions)
        return Inputs(self.warehouse, plan)

    def run(self, stage: Stage, **config: Any) -> StagePlan:
        """Commits what a stage makes, as a flow would."""
        plan = self.inputs(stage, **config).plan
        run_stage(plan, stage, RunIds("test", None))
        self.versions |= dict.fromkeys(stage.writes, plan.version)
        return plan

    def rows(self, dataset: str, version: str | None = None) -> list[dict[str, Any]]:
        """Rows of a dataset, as last put or run."""
        found = self.warehouse.read(dataset, version or self.versions[dataset])
        return list(found.to_pylist())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "warehouse")
