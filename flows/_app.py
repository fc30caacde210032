"""The command line: which commands there are."""

from __future__ import annotations

from collections.abc import Callable

import typer

from flows import (
    benchmark_commands,
    data_commands,
    operate_commands,
    own_commands,
    run_commands,
    show_commands,
)


def _group(help_: str, **commands: Callable[..., None]) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=help_)
    for name, command in commands.items():
        group.command(name)(command)
    return group


app = typer.Typer(
    name="pref",
    help="Preference matrices, base rewards and personalized responses as Prefect flows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(
    _group(
        "Run a flow from data to report.",
        attributes=run_commands.run_attributes,
        prism=run_commands.run_prism,
        own=own_commands.run_own,
    ),
    name="run",
)
app.add_typer(
    _group(
        "Say what a run would cost, before any call.",
        attributes=run_commands.plan_attributes,
        prism=run_commands.plan_prism,
        own=own_commands.plan_own,
        benchmark=benchmark_commands.plan_benchmark,
    ),
    name="plan",
)
app.add_typer(
    _group(
        "Look after batches of --mode batch.",
        list=operate_commands.batch_list,
        collect=operate_commands.batch_collect,
        cancel=operate_commands.batch_cancel,
        forget=operate_commands.batch_forget,
    ),
    name="batch",
)
for _command in (
    benchmark_commands.benchmark,
    show_commands.show,
    show_commands.report,
    own_commands.ingest,
    own_commands.export,
    run_commands.settings,
    data_commands.datasets,
    data_commands.sql,
    data_commands.lineage,
    data_commands.diff,
    data_commands.audit,
    data_commands.gc,
    data_commands.forget,
    operate_commands.probe,
    operate_commands.deploy,
    operate_commands.server,
    operate_commands.simulate,
):
    app.command()(_command)
