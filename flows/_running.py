"""From a command's options to a configuration, and a flow or a plan run with it."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any

from flows._interrupts import noted


def plan_flow(config: Any, *, as_json: bool) -> None:
    """Prints what a run of this configuration would still buy."""
    from flows._console import print_changes, print_design, print_plan
    from tasks import planning

    plan = planning.plan_run(config)
    if as_json:
        found: dict[str, Any] = {
            "stages": [cost._asdict() for cost in plan.costs],
            "design": None,
            "changes": [{**one._asdict(), "is_same": one.is_same} for one in plan.changes],
        }
        if plan.design is not None:
            found["design"] = {**plan.design._asdict(), "can_identify": plan.design.can_identify}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    if not plan.costs:
        sys.stdout.write("0 calls: this flow asks no model\n")
        return
    print_plan(plan.costs, planning.endpoint(config), planning.prices_as_of(config))
    if plan.design is not None:
        print_design(plan.design)
    print_changes(plan.changes)


def llm_options(
    warehouse: str | None,
    base_url: str | None,
    judge_model: str | None,
    responder_model: str | None,
    mode: str | None,
) -> dict[str, Any]:
    """What every command with a model to ask takes, by the names of the settings."""
    return {
        "warehouse": warehouse,
        "llm.base_url": base_url,
        "llm.judge_model": judge_model,
        "llm.responder_model": responder_model,
        "calls.mode": mode,
    }


def flow_config(
    flow: str, profile: str | None, options: dict[str, Any], overrides: list[str] | None
) -> Any:
    """The configuration of a flow, by the name it has on the command line."""
    from flows.profiles import build_config

    return build_config(flow_model(flow), profile, options, overrides or [])


def flow_model(flow: str) -> Any:
    """The configuration class of a flow.

    Raises:
        InputRejected: No such flow.
    """
    from tasks.config import AttributesConfig, BenchmarkConfig, OwnConfig, PrismConfig
    from tasks.errors import InputRejected

    models = {
        "attributes": AttributesConfig,
        "prism": PrismConfig,
        "own": OwnConfig,
        "benchmark": BenchmarkConfig,
    }
    if flow not in models:
        raise InputRejected(f"flow: {flow!r} is no flow; expected {' or '.join(models)}; name one")
    return models[flow]


def run_flow(name: str, config: Any, *, as_json: bool) -> None:
    """Runs a flow with its progress on standard error, and prints what it came to."""
    from flows._console import Display, print_benchmark, print_own_summary, print_summary
    from flows._output import printable
    from tasks._settings import prepare_prefect

    started = time.monotonic()
    prepare_prefect(config.warehouse)
    with Display() as display, ExitStack() as starting:
        starting.enter_context(noted())
        display.note(f"warehouse {config.warehouse}; starting Prefect …")
        from tasks import preflight
        from tasks.server import prefect_server

        preflight.check(config)
        with prefect_server() as wait_for_server:
            from tasks import chain

            flow = _flow(name)
            chain.watch(display.stage)
            preflight.listen(display.calls)
            wait_for_server()
            starting.close()
            found = flow(config)
            found["wall_s"] = round(time.monotonic() - started, 2)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, allow_nan=False) + "\n")
    else:
        show = {"own": print_own_summary, "benchmark": print_benchmark}
        show.get(name, print_summary)(found)
        for line in found.get("warnings", ()):
            sys.stdout.write(printable(f"warning: {line}") + "\n")


def _flow(name: str) -> Any:
    if name == "prism":
        from flows.prism import prism

        return prism
    if name == "own":
        from flows.own import own

        return own
    if name == "benchmark":
        from flows.benchmark import benchmark

        return benchmark
    from flows.attributes import attributes

    return attributes
