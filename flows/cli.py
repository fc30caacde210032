"""The command line. It parses, calls one function, and turns known errors into one line."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from flows import own_commands
from flows._options import (
    AlignOption,
    BaseUrlOption,
    JsonOption,
    JudgeOption,
    MaxCallsOption,
    MaxCostOption,
    ModeOption,
    PrismOption,
    PrismProfileOption,
    ProfileOption,
    PromptsOption,
    ResponderOption,
    SetOption,
    WarehouseOption,
)

app = typer.Typer(
    name="pref",
    help="Preference matrices, base rewards and personalized responses as Prefect flows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run_app = typer.Typer(no_args_is_help=True, help="Run a flow from prompts to report.")
app.add_typer(run_app, name="run")
plan_app = typer.Typer(no_args_is_help=True, help="Say what a run would cost, before any call.")
app.add_typer(plan_app, name="plan")
run_app.command("own")(own_commands.run_own)
plan_app.command("own")(own_commands.plan_own)
app.command("ingest")(own_commands.ingest)
app.command("export")(own_commands.export)

batch_app = typer.Typer(no_args_is_help=True, help="Look after batches of --mode batch.")
app.add_typer(batch_app, name="batch")

DEFAULT_WAREHOUSE = "pref-data"
# What typer makes of a KeyboardInterrupt.
INTERRUPTED = 130


@run_app.command("attributes")
def run_attributes(
    profile: ProfileOption = "quickstart",
    prompts: PromptsOption = None,
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    judge_model: JudgeOption = None,
    responder_model: ResponderOption = None,
    mode: ModeOption = None,
    max_calls: MaxCallsOption = None,
    max_cost_usd: MaxCostOption = None,
    align_to: AlignOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Regenerate the Attributes matrix, train on it, adapt new users, measure, report."""
    options = {
        **_options(warehouse, llm_base_url, judge_model, responder_model, mode),
        "ingest.prompts": prompts,
        "calls.max_calls": max_calls,
        "calls.max_cost_usd": max_cost_usd,
        "fit.align_to": align_to,
    }
    run_flow("attributes", flow_config("attributes", profile, options, set_), as_json=as_json)


@run_app.command("prism")
def run_prism(
    prism: PrismOption = None,
    profile: PrismProfileOption = "quickstart-prism",
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    judge_model: JudgeOption = None,
    responder_model: ResponderOption = None,
    mode: ModeOption = None,
    max_calls: MaxCallsOption = None,
    max_cost_usd: MaxCostOption = None,
    align_to: AlignOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Regenerate the augmented PRISM matrix, train on it, adapt new users, measure, report."""
    options = {
        **_options(warehouse, llm_base_url, judge_model, responder_model, mode),
        "ingest.prism": prism,
        "calls.max_calls": max_calls,
        "calls.max_cost_usd": max_cost_usd,
        "fit.align_to": align_to,
    }
    run_flow("prism", flow_config("prism", profile, options, set_), as_json=as_json)


@plan_app.command("attributes")
def plan_attributes(
    profile: ProfileOption = "quickstart",
    prompts: PromptsOption = None,
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    judge_model: JudgeOption = None,
    responder_model: ResponderOption = None,
    mode: ModeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what `run attributes` would still buy: calls, tokens, money. Makes no call."""
    options = _options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["ingest.prompts"] = prompts
    plan_flow(flow_config("attributes", profile, options, set_), as_json=as_json)


@plan_app.command("prism")
def plan_prism(
    prism: PrismOption = None,
    profile: PrismProfileOption = "quickstart-prism",
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    judge_model: JudgeOption = None,
    responder_model: ResponderOption = None,
    mode: ModeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what `run prism` would still buy, and what its design can teach. Makes no call."""
    options = _options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["ingest.prism"] = prism
    plan_flow(flow_config("prism", profile, options, set_), as_json=as_json)


def plan_flow(config: Any, *, as_json: bool) -> None:
    """Prints what a run of this configuration would still buy."""
    from flows._console import print_design, print_plan
    from tasks import planning

    plan = planning.plan_run(config)
    if as_json:
        found: dict[str, Any] = {"stages": [cost._asdict() for cost in plan.costs], "design": None}
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


def _options(
    warehouse: str | None,
    base_url: str | None,
    judge_model: str | None,
    responder_model: str | None,
    mode: str | None,
) -> dict[str, Any]:
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

    return build_config(_model(flow), profile, options, overrides or [])


def _model(flow: str) -> Any:
    from tasks.config import AttributesConfig, OwnConfig, PrismConfig
    from tasks.errors import InputRejected

    models = {"attributes": AttributesConfig, "prism": PrismConfig, "own": OwnConfig}
    if flow not in models:
        raise InputRejected(f"flow: {flow!r} is no flow; expected {' or '.join(models)}; name one")
    return models[flow]


def run_flow(name: str, config: Any, *, as_json: bool) -> None:
    """Runs a flow with its progress on standard error, and prints what it came to."""
    from flows._console import Display, print_own_summary, print_summary
    from tasks._settings import prepare_prefect

    started = time.monotonic()
    prepare_prefect(config.warehouse)
    with Display() as display:
        display.note(f"warehouse {config.warehouse}; starting Prefect …")
        from tasks import chain, preflight
        from tasks.server import start_server

        preflight.check(config)
        chain.watch(display.stage)
        preflight.listen(display.calls)
        start_server()
        if name == "prism":
            from flows.prism import prism

            found = prism(config)
        elif name == "own":
            from flows.own import own

            found = own(config)
        else:
            from flows.attributes import attributes

            found = attributes(config)
    found["wall_s"] = round(time.monotonic() - started, 2)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, allow_nan=False) + "\n")
    else:
        (print_own_summary if name == "own" else print_summary)(found)


@app.command()
def settings(
    flow: Annotated[str, typer.Argument(help="attributes, prism or own.")] = "attributes",
) -> None:
    """List every setting that ``--set`` takes, with its default."""
    from rich.console import Console
    from rich.table import Table

    from flows.profiles import settings as every_setting

    table = Table("setting", "default", "", box=None, pad_edge=False)
    for name, default, description in every_setting(_model(flow)):
        table.add_row(name, default, description)
    Console().print(table, highlight=False)


@app.command()
def datasets(warehouse: WarehouseOption = None, as_json: JsonOption = False) -> None:
    """List dataset versions: rows, bytes, parents, calls, cost."""
    store = open_store(warehouse)
    current = store.current()
    rows = [
        {
            "dataset": one.dataset,
            "version": one.version,
            "is_current": current.get(one.dataset) == one.version,
            "n_rows": one.n_rows,
            "n_bytes": one.n_bytes,
            "calls": one.calls.made + one.calls.reused,
            "cost_usd": one.calls.cost_usd,
            "finished_at": one.finished_at.isoformat(timespec="seconds"),
        }
        for one in store.manifests()
    ]
    _show(rows, as_json=as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the datasets and `cells`.")],
    warehouse: WarehouseOption = None,
    at: Annotated[
        list[str] | None, typer.Option(help="Read dataset=version instead of the current one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Query the current versions of the datasets with DuckDB."""
    from tasks.errors import InputRejected
    from warehouse.views import query as run_query

    versions: dict[str, str] = {}
    for one in at or []:
        name, equals, version = one.partition("=")
        if not equals:
            raise InputRejected(f"--at: {one!r} has no '='; expected dataset=version; add one")
        versions[name] = version
    _show(run_query(open_store(warehouse), query, versions).to_pylist(), as_json=as_json)


@app.command()
def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A dataset; with --forward also call:KEY, template:NAME, model:NAME, persona:ID,"
            " prompt:ID, pair:ID or response:ID."
        ),
    ],
    version: Annotated[str | None, typer.Argument(help="Its version; default: current.")] = None,
    forward: Annotated[
        bool, typer.Option("--forward", help="Show what was built on it instead.")
    ] = False,
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset was made from, down to the prompts; or what was built on something."""
    if forward:
        _forward(open_store(warehouse), name, version, as_json=as_json)
        return
    from warehouse.lineage import lineage_tree, render_lines, to_json

    tree = lineage_tree(open_store(warehouse), name, version)
    if as_json:
        sys.stdout.write(json.dumps(to_json(tree), indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(render_lines(tree)) + "\n")


def _forward(store: Any, name: str, version: str | None, *, as_json: bool) -> None:
    from warehouse.forward import uses

    current = store.current()
    rows = [
        {
            "dataset": one.manifest.dataset,
            "version": one.manifest.version,
            "is_current": current.get(one.manifest.dataset) == one.manifest.version,
            "rows_naming_it": one.n_rows,
            "through": ", ".join(one.via),
        }
        for one in uses(store, name, version)
    ]
    _show(rows, as_json=as_json)


@app.command()
def gc(
    warehouse: WarehouseOption = None,
    keep_runs: Annotated[
        int, typer.Option(min=1, help="Complete runs of each flow whose datasets are kept.")
    ] = 3,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them, not only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List dataset versions that nothing refers to; remove them with --delete. Calls are kept."""
    from warehouse.cleaning import clean, unreferenced

    found = (clean if delete else unreferenced)(open_store(warehouse), keep_runs)
    rows = [
        {
            "dataset": one.dataset,
            "version": one.version,
            "n_rows": one.n_rows,
            "n_bytes": one.n_bytes,
        }
        for one in found
    ]
    _show(rows, as_json=as_json)
    if rows and not as_json:
        n_bytes = sum(one.n_bytes for one in found)
        done = "removed" if delete else "would be removed; pass --delete"
        sys.stdout.write(f"{len(rows)} versions, {n_bytes / 1e6:.1f} MB: {done}\n")


@app.command()
def diff(
    name: Annotated[str, typer.Argument(help="A dataset.")],
    older: Annotated[str, typer.Argument(help="One version.")],
    newer: Annotated[str, typer.Argument(help="The other version.")],
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions of a dataset: rows, and what they were made from."""
    from warehouse.diff import diff as compare

    found = compare(open_store(warehouse), name, older, newer)
    if as_json:
        sys.stdout.write(json.dumps(found._asdict(), indent=1) + "\n")
        return
    for kind in ("added", "removed", "changed"):
        count, some = getattr(found, f"n_{kind}"), found.examples[kind]
        shown = f" ({', '.join(some)}{', …' if count > len(some) else ''})" if some else ""
        sys.stdout.write(f"{count:,} rows {kind}{printable(shown)}\n")
    _show([dict(zip(("what", older, newer), row, strict=True)) for row in found.causes])


@app.command()
def audit(warehouse: WarehouseOption = None, as_json: JsonOption = False) -> None:
    """Verify every dataset: bytes, manifests, parents, rows, split, links to the call ledger."""
    from tasks.auditing import audit_all

    n_versions, findings = audit_all(open_store(warehouse))
    if as_json:
        rows = [one._asdict() for one in findings]
        found = {"n_versions": n_versions, "findings": rows}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        for one in findings:
            sys.stdout.write(f"{one.dataset} {one.version}: {printable(one.problem)}\n")
        sys.stdout.write(f"{n_versions} versions verified, {len(findings)} findings\n")
    if findings:
        raise typer.Exit(1)


@batch_app.command("list")
def batch_list(
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Only batches that are not done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List batches: status, calls, answered, failed. Asks the endpoint about open ones."""
    from tasks.batch_desk import BatchDesk, as_row

    with BatchDesk(open_store(warehouse), llm_base_url) as desk:
        _show([as_row(one) for one in desk.list(is_open=open_)], as_json=as_json)


@batch_app.command("collect")
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


@batch_app.command("cancel")
def batch_cancel(
    batch: Annotated[str, typer.Argument(help="As `pref batch list` shows it.")],
    warehouse: WarehouseOption = None,
    llm_base_url: BaseUrlOption = None,
) -> None:
    """Cancel a batch at its endpoint. What it has finished is kept, by the next collect or run."""
    from tasks.batch_desk import BatchDesk

    with BatchDesk(open_store(warehouse), llm_base_url) as desk:
        sys.stdout.write(f"{printable(batch)}: {desk.cancel(batch)}\n")


@batch_app.command("forget")
def batch_forget(
    batch: Annotated[str, typer.Argument(help="As `pref batch list` shows it.")],
    warehouse: WarehouseOption = None,
) -> None:
    """Give a batch up: its replies are lost and its calls may be bought again."""
    from tasks.batch_desk import BatchDesk

    with BatchDesk(open_store(warehouse)) as desk:
        n_calls = desk.forget(batch)
    sys.stdout.write(f"{printable(batch)}: given up; {n_calls:,} calls may be bought again\n")


@app.command()
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


@app.command()
def simulate(
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 8080,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A simulator setting, such as seed=1.")
    ] = None,
) -> None:
    """Serve the simulated language model until interrupted. Its answers are simulated."""
    from tasks.simulation import serve

    serve(port, set_ or [])


@app.command()
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
    from tasks._settings import prepare_prefect, require_server

    options = _options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["calls.max_cost_usd"] = max_cost_usd
    options["fit.align_to"] = align_to
    options["ingest.prism" if flow == "prism" else "ingest.prompts"] = (
        prism if flow == "prism" else prompts
    )
    default = "quickstart-prism" if flow == "prism" else "quickstart"
    config = _config(flow, profile or default, options, set_)
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


@app.command()
def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of API and UI.")] = 4200,
) -> None:
    """Run a Prefect server with its UI, set up so that no task run is lost."""
    from tasks.server import run_server

    raise typer.Exit(run_server(host, port))


def open_store(warehouse: str | None) -> Any:
    """The warehouse in a folder that must be there."""
    from warehouse.store import open_warehouse

    return open_warehouse(warehouse or DEFAULT_WAREHOUSE, create=False)


def _show(rows: list[dict[str, Any]], *, as_json: bool = False) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1, default=str) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        sys.stdout.write("no rows\n")
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        # Text from models may hold markup or control characters: shown as they are, made harmless.
        table.add_row(*(Text(printable(value)) for value in row.values()))
    Console().print(table)


def printable(value: Any) -> str:
    """A value as one line of text that a terminal can be shown."""
    text = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    return "".join(one if one.isprintable() else " " for one in text)


def main() -> None:
    """Runs the command line; known errors become one line and their exit code."""
    from tasks.errors import exit_code_of

    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        sys.stderr.write(f"pref: {' '.join(str(error).split())}\n")
    if code == INTERRUPTED:
        sys.stderr.write("pref: interrupted; finished calls are kept, run the same command again\n")
        code = 1
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
