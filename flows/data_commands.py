"""Commands on what a warehouse holds: lists, queries, lineage, differences, audits, cleaning."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from flows._options import JsonOption, WarehouseOption
from flows._output import open_store, printable, show_rows


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
    show_rows(rows, as_json=as_json)


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
    show_rows(run_query(open_store(warehouse), query, versions).to_pylist(), as_json=as_json)


def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A dataset, figure:NAME of the report, or weights:PERSONA; with --forward also"
            " call:KEY, template:NAME, model:NAME, persona:ID, prompt:ID, pair:ID or response:ID."
        ),
    ],
    version: Annotated[str | None, typer.Argument(help="Its version; default: current.")] = None,
    forward: Annotated[
        bool, typer.Option("--forward", help="Show what was built on it instead.")
    ] = False,
    calls: Annotated[
        bool, typer.Option("--calls", help="Name the calls behind it, with --json all of them.")
    ] = False,
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what something was made from, down to prompts and calls; or what was built on it."""
    store = open_store(warehouse)
    if forward:
        _forward(store, name, version, as_json=as_json)
        return
    from warehouse.behind import as_row, calls_behind, start_of
    from warehouse.lineage import lineage_tree, render_lines, to_json

    start = start_of(store, name, version)
    tree = lineage_tree(store, start.dataset, start.version)
    with_calls = calls or start.person is not None
    behind = calls_behind(store, tree, start.person) if with_calls else []
    if as_json:
        keys = [
            {**as_row(one), "request_keys": one.request_keys, "of_the_user": one.of_person}
            for one in behind
        ]
        found = {**to_json(tree), **({"calls": keys} if with_calls else {})}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    sys.stdout.write("\n".join(render_lines(tree)) + "\n")
    if with_calls:
        show_rows([as_row(one) for one in behind])


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
    show_rows(rows, as_json=as_json)


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
    show_rows(rows, as_json=as_json)
    if rows and not as_json:
        n_bytes = sum(one.n_bytes for one in found)
        done = "removed" if delete else "would be removed; pass --delete"
        sys.stdout.write(f"{len(rows)} versions, {n_bytes / 1e6:.1f} MB: {done}\n")


def forget(
    persona: Annotated[str, typer.Argument(help="A persona_id, as the data names it.")],
    warehouse: WarehouseOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it all, not only list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List everything that holds a person, and what to train again; remove it with --yes."""
    from tasks.forgetting import forget as forget_person

    found = forget_person(open_store(warehouse), persona, is_real=yes)
    if as_json:
        sys.stdout.write(json.dumps(found.as_json(), indent=1) + "\n")
        return
    rows = found.as_json()["versions"]
    if not rows and not found.request_keys and found.forgotten_before:
        sys.stdout.write(f"forgotten on {found.forgotten_before[:10]}; nothing is left\n")
        return
    show_rows(rows)
    for line in found.told():
        sys.stdout.write(printable(line) + "\n")


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
    show_rows([dict(zip(("what", older, newer), row, strict=True)) for row in found.causes])
    for line in found.templates:
        sys.stdout.write(f"{printable(line)}\n")


def audit(
    warehouse: WarehouseOption = None,
    as_json: JsonOption = False,
    judge: Annotated[
        bool, typer.Option("--judge", help="Show the judge's record and checks instead.")
    ] = False,
) -> None:
    """Verify every dataset: bytes, manifests, parents, rows, split, links to the call ledger."""
    if judge:
        from tasks.auditing import audit_judge

        record = audit_judge(open_store(warehouse))
        if as_json:
            sys.stdout.write(json.dumps(record, indent=1) + "\n")
            return
        for name, some in record.items():
            sys.stdout.write(f"{name}\n")
            show_rows(some)
        return
    from tasks.auditing import audit_all, audit_checks

    store = open_store(warehouse)
    n_versions, findings = audit_all(store)
    # What cannot be read is a finding; its checks say nothing then.
    checks = [] if findings else audit_checks(store)
    if as_json:
        rows = [one._asdict() for one in findings]
        found = {"n_versions": n_versions, "findings": rows, "checks": checks}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        for one in findings:
            sys.stdout.write(f"{one.dataset} {one.version}: {printable(one.problem)}\n")
        for check in checks:
            sys.stdout.write(f"{check['outcome']}: {printable(check['told'])}\n")
        sys.stdout.write(f"{n_versions} versions verified, {len(findings)} findings\n")
    if findings or any(check["outcome"] == "failed" for check in checks):
        raise typer.Exit(1)
