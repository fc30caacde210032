"""Commands that run or plan the flows with a model to ask. They parse and call one function."""

from __future__ import annotations

from typing import Annotated

import typer

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
from flows._running import flow_config, flow_model, llm_options, plan_flow, run_flow


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
        **llm_options(warehouse, llm_base_url, judge_model, responder_model, mode),
        "ingest.prompts": prompts,
        "calls.max_calls": max_calls,
        "calls.max_cost_usd": max_cost_usd,
        "fit.align_to": align_to,
    }
    run_flow("attributes", flow_config("attributes", profile, options, set_), as_json=as_json)


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
        **llm_options(warehouse, llm_base_url, judge_model, responder_model, mode),
        "ingest.prism": prism,
        "calls.max_calls": max_calls,
        "calls.max_cost_usd": max_cost_usd,
        "fit.align_to": align_to,
    }
    run_flow("prism", flow_config("prism", profile, options, set_), as_json=as_json)


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
    options = llm_options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["ingest.prompts"] = prompts
    plan_flow(flow_config("attributes", profile, options, set_), as_json=as_json)


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
    options = llm_options(warehouse, llm_base_url, judge_model, responder_model, mode)
    options["ingest.prism"] = prism
    plan_flow(flow_config("prism", profile, options, set_), as_json=as_json)


def settings(
    flow: Annotated[str, typer.Argument(help="attributes, prism or own.")] = "attributes",
) -> None:
    """List every setting that ``--set`` takes, with its default."""
    from rich.console import Console
    from rich.table import Table

    from flows.profiles import settings as every_setting

    table = Table("setting", "default", "", box=None, pad_edge=False)
    for name, default, description in every_setting(flow_model(flow)):
        table.add_row(name, default, description)
    Console().print(table, highlight=False)
