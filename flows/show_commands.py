"""Commands that show what a warehouse says: one user, a report. They compute nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows._options import JsonOption, WarehouseOption
from flows._output import open_store, printable, printable_lines, write_page

if TYPE_CHECKING:
    from tasks.showing import User

# What of a long text fits a terminal; the page has all of it.
TEXT_CHARACTERS = 700
LINE_CHARACTERS = 90


def show(
    user: Annotated[str, typer.Argument(help="A persona_id.")],
    warehouse: WarehouseOption = None,
    answers: Annotated[
        int | None,
        typer.Option(min=0, help="Show a held-out user after that many answers."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained page to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one user: weights with intervals, what they answered, responses chosen for them."""
    from tasks.showing import render_user, user_facts

    found = user_facts(open_store(warehouse), user, answers)
    if html is not None:
        write_page(html, render_user(found))
    if as_json:
        told = {
            **found._asdict(),
            **{
                name: [one._asdict() for one in getattr(found, name)]
                for name in ("weights", "answers", "examples")
            },
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    _print_user(found)
    if html is not None:
        sys.stdout.write(f"page: {printable(html)}\n")


def report(
    to: Annotated[Path, typer.Option("--to", help="Folder for the page and the figures.")],
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report with the paper's figures as SVG, PNG and CSV, the benchmark's too."""
    from tasks.reporting import write_report

    found = write_report(open_store(warehouse), to)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    sys.stdout.write(f"{printable(found['folder'])}: {', '.join(found['files'])}\n")
    for note in found["notes"]:
        sys.stdout.write(f"{printable(note)}\n")


def _print_user(user: User) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if user.is_simulated:
        console.print("[bold]Simulated answers:[/bold] a simulated judge answers for this user.")
    side = "seen in training" if user.is_seen else "held out from training"
    console.print(Text(f"{printable(user.persona_id)}: {side}; {user.n_answers:,} answers known"))
    if user.profile:
        console.print(Text(printable_lines(user.profile)))
    table = Table(box=None, pad_edge=False, title="Weights", title_justify="left")
    table.add_column("base reward", justify="right")
    table.add_column("label")
    for name in ("explains", "weight", "95 % interval"):
        table.add_column(name, justify="right")
    for one in user.weights:
        share = "" if one.explained_share is None else f"{100 * one.explained_share:.1f} %"
        table.add_row(
            str(one.base_reward),
            Text(printable(one.label or "–")),
            share,
            f"{one.weight:+.3f}",
            f"{one.low:+.3f} – {one.high:+.3f}",
        )
    console.print(table)
    if user.answers:
        asked = Table(box=None, pad_edge=False, title="Answers", title_justify="left")
        for name in ("", "prompt", "preferred", "not preferred"):
            asked.add_column(name)
        asked.add_column("probability", justify="right")
        for answer in user.answers:
            asked.add_row(
                str(answer.place),
                *(
                    Text(_short(printable(one), LINE_CHARACTERS))
                    for one in (answer.prompt, answer.preferred, answer.other)
                ),
                "a tie" if answer.answer_prob == 0.5 else f"{answer.answer_prob:.2f}",
            )
        console.print(asked)
    for example in user.examples:
        pair = Table(
            title=Text(_short(printable(example.prompt), 4 * LINE_CHARACTERS)),
            title_justify="left",
        )
        pair.add_column("base", ratio=1)
        pair.add_column("personalized", ratio=1)
        pair.add_row(
            *(
                Text(_short(printable_lines(one), TEXT_CHARACTERS))
                for one in (example.base, example.personalized)
            )
        )
        console.print(pair)
        if example.win is not None:
            console.print(f"win of the personalized response, both orders: {example.win:.2f}")
    for note in user.notes:
        console.print(Text(printable(note)))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
