"""What running a stage leaves behind in the process."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pyarrow as pa

from tasks._stages.data_checks import STAGE
from tasks._stages.stage import Inputs, Output
from tasks.config import ChecksConfig, as_json
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.conftest import bench as bench
from tests.tasks.stages.worlds import put_world


def test_a_stage_s_tables_are_shared_while_it_runs_and_let_go_when_it_has_committed(
    bench: Bench,
) -> None:
    put_world(bench)
    seen: list[weakref.ref[pa.Table]] = []

    def build(inputs: Inputs) -> dict[str, Output]:
        table = inputs.read("preferences")
        assert inputs.read("preferences") is table
        seen.append(weakref.ref(table))
        return STAGE.build(inputs)

    bench.run(replace(STAGE, build=build), **as_json(ChecksConfig()), flow="attributes")
    assert [one() for one in seen] == [None]
