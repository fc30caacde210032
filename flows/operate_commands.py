"""Commands beside the runs: batches, probes, deployments, servers."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flows._options import (
    AlignOption,
    BaseUrlOption,
    JsonOption,
    JudgeOption,
    MaxCostOption,
    ModeOption,
    PrismOption,
    PromptsOption,
    ResponderOption,
    SetOption,
    WarehouseOption,
)
from flows._output import open_store, printable, show_rows
from flows._running import flow_config, llm_options


def batch_list(
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Only batches that are not done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List batches: status, calls, answered, failed. Asks the endpoint about open ones."""
    from tasks.batch_desk import BatchDesk, as_row

    with BatchDesk(open_store(warehouse), llm_base_url) as desk:
        show_rows([as_row(one) for one in desk.list(is_open=open_)], as_json=as_json)


def batch_collect(
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    prices: Annotated[str | None, typer.Option(help="A price table of your own (TOML).")] = None,
) -> None:
    """Store what ended batches have brought. Sends nothing; a run with --mode batch does it too."""
    from tasks.batch_desk import BatchDesk

    with BatchDesk(open_store(warehouse), llm_base_url, prices) as desk:
        n_replies, cost_usd = desk.collect()
    sys.stdout.write(f"{n_replies:,} replies collected, US$ {cost_usd:.2f}\n")


def batch_cancel(
    batch: Annotated[str, typer.Argument(help="As `pref batch list` shows it.")],
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
) -> None:
    """Cancel a batch at its endpoint. What it has finished is kept, by the next collect or run."""
    from tasks.batch_desk import BatchDesk

    with BatchDesk(open_store(warehouse), llm_base_url) as desk:
        sys.stdout.write(f"{printable(batch)}: {desk.cancel(batch)}\n")


def batch_forget(
    batch: Annotated[str, typer.Argument(help="As `pref batch list` shows it.")],
    warehouse: WarehouseOption = None,
) -> None:
    """Give a batch up: its replies are lost and its calls may be bought again."""
    from tasks.batch_desk import BatchDesk

    with BatchDesk(open_store(warehouse)) as desk:
        n_calls = desk.forget(batch)
    sys.stdout.write(f"{printable(batch)}: given up; {n_calls:,} calls may be bought again\n")


def probe(
    url: Annotated[str, typer.Argument(help="An OpenAI-compatible endpoint.")],
    model: Annotated[str, typer.Option(help="Model to ask for.")],
    as_json: JsonOption = False,
) -> None:
    """Tell what an endpoint honors, refuses or silently ignores, from about a dozen small calls."""
    from tasks.probing import probe_endpoint

    result = probe_endpoint(url, model)
    if as_json:
        sys.stdout.write(json.dumps(result.as_json(), indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(result.lines()) + "\n")


def simulate(
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 8080,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A simulator setting, such as seed=1.")
    ] = None,
) -> None:
    """Serve the simulated language model until interrupted. Its answers are simulated."""
    from tasks.simulation import serve

    serve(port, set_ or [])


def deploy(
    flow: Annotated[str, typer.Argument(help="attributes or prism.")] = "attributes",
    profile: Annotated[str | None, typer.Option(help="As `pref run` takes it.")] = None,
    prompts: PromptsOption = None,
    prism: PrismOption = None,
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    judge_model: JudgeOption = None,
    responder_model: ResponderOption = None,
    mode: ModeOption = None,
    max_cost_usd: MaxCostOption = None,
    align_to: AlignOption = "previous",
    set_: SetOption = None,
    work_pool: Annotated[
        str | None, typer.Option(help="Process pool whose workers run them; default: this process.")
    ] = None,
    label: Annotated[
        str, typer.Option(help="Put before the deployments' names, to tell warehouses apart.")
    ] = "",
    regenerate: Annotated[str, typer.Option(help="Cron, UTC; empty for none.")] = "0 3 * * 1",
    retrain: Annotated[str, typer.Option(help="Cron, UTC; empty for none.")] = "0 5 * * *",
) -> None:
    """Deploy regenerating weekly, retraining nightly and on new preferences, then measuring."""
    from tasks._settings import prepare_prefect
    from tasks.server import require_server

    options = llm_options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["calls.max_cost_usd"] = max_cost_usd
    options["fit.align_to"] = align_to
    options["ingest.prism" if flow == "prism" else "ingest.prompts"] = (
        prism if flow == "prism" else prompts
    )
    default = "quickstart-prism" if flow == "prism" else "quickstart"
    config = flow_config(flow, profile or default, options, set_)
    prepare_prefect(config.warehouse)
    require_server()
    from flows.deployments import Schedules, deployments, register, serve_here

    found = deployments(config, Schedules(regenerate, retrain), work_pool, label)
    if work_pool is None:
        serve_here(found)
        return
    for name in register(found, work_pool):
        sys.stdout.write(f"{name}\n")
    sys.stdout.write(f"start a worker with: prefect worker start --pool {work_pool}\n")


def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of API and UI.")] = 4200,
) -> None:
    """Run a Prefect server with its UI, set up so that no task run is lost."""
    from tasks.server import become_server

    become_server(host, port)
