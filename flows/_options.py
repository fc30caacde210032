"""Options that several commands take. They parse nothing themselves."""

from __future__ import annotations

from typing import Annotated

import typer

WarehouseOption = Annotated[
    str | None,
    typer.Option("--warehouse", "-w", help="Folder of the data.", envvar="PREF_WAREHOUSE"),
]
ProfileOption = Annotated[
    str, typer.Option(help="A shipped profile (quickstart, paper-attributes) or a TOML file.")
]
PromptsOption = Annotated[
    str | None, typer.Option(help="Prompts: Parquet, JSONL, CSV or AlpacaEval's JSON.")
]
BaseUrlOption = Annotated[
    str | None, typer.Option(help="An OpenAI-compatible endpoint instead of the simulator.")
]
JudgeOption = Annotated[str | None, typer.Option(help="Model that judges.")]
ResponderOption = Annotated[str | None, typer.Option(help="Model that responds.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, a.b=c; see `pref settings`.")
]
PrismOption = Annotated[
    str | None, typer.Option(help="PRISM: a folder with its files, or a Hugging Face dataset id.")
]
PrismProfileOption = Annotated[
    str, typer.Option(help="A shipped profile (quickstart-prism, paper-prism) or a TOML file.")
]
ModeOption = Annotated[
    str | None,
    typer.Option(help="sync, or batch: the provider's Batches endpoint, cheaper and hours later."),
]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder with your own data; default: what `pref ingest` imported last."),
]
OwnProfileOption = Annotated[str | None, typer.Option(help="A TOML file with settings.")]
LicenceOption = Annotated[
    str | None, typer.Option(help="Licence of the data, carried on by `pref export`.")
]
MaxCallsOption = Annotated[
    int | None, typer.Option(help="Hard cap on calls bought; stops cleanly, resumes later.")
]
MaxCostOption = Annotated[
    float | None, typer.Option(help="Hard cap on money spent; stops cleanly, resumes later.")
]
AlignOption = Annotated[
    str | None,
    typer.Option(help='Keep the basis of an earlier model: a version of models, or "previous".'),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
