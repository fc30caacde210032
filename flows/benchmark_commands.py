"""Commands of the benchmark. They parse, call one function, and print what it found."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flows._options import JsonOption, OwnProfileOption, SetOption, WarehouseOption
from flows._running import flow_config, run_flow

SeedsOption = Annotated[int | None, typer.Option(help="Splits; the paper's is 10.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(help="An arm, or a group: methods, ablations, rewards, labels, questions."),
]
ProcessesOption = Annotated[int | None, typer.Option(help="Seeds at once.")]


def benchmark(
    seeds: SeedsOption = None,
    only: OnlyOption = None,
    processes: ProcessesOption = None,
    profile: OwnProfileOption = None,
    warehouse: WarehouseOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the paper's protocol on the warehouse's matrix: methods, ablations, questions, ...."""
    options = {"warehouse": warehouse, "seeds": seeds, "only": only, "processes": processes}
    config = flow_config("benchmark", profile, options, set_)
    if not as_json:
        _show_plan(config)
    run_flow("benchmark", config, as_json=as_json)


def plan_benchmark(
    seeds: SeedsOption = None,
    only: OnlyOption = None,
    processes: ProcessesOption = None,
    profile: OwnProfileOption = None,
    warehouse: WarehouseOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which cells `benchmark` would compute, and how long that takes. Computes none."""
    from tasks.benchmark_plan import plan_benchmark as outlook

    options = {"warehouse": warehouse, "seeds": seeds, "only": only, "processes": processes}
    config = flow_config("benchmark", profile, options, set_)
    if as_json:
        sys.stdout.write(json.dumps(outlook(config), indent=1) + "\n")
    else:
        _show_plan(config)


def _show_plan(config: object) -> None:
    from flows._console import print_benchmark_plan
    from tasks.benchmark_plan import plan_benchmark as outlook
    from tasks.config import BenchmarkConfig

    if isinstance(config, BenchmarkConfig):
        print_benchmark_plan(outlook(config))
