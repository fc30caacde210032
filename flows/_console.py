"""What a person sees: progress on standard error, a summary on standard output."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from tasks.chain import StageEvent
    from tasks.changes import StageChange
    from tasks.planning import DesignCheck, StageCost

METHODS = {"pref": "PReF", "classic": "classic RLHF", "per_user": "model per user"}


class Display:
    """One line a stage; a live bar with calls, calls/s and cost while a terminal is attached."""

    def __init__(self) -> None:
        console = self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: Any = None
        self._began = 0.0
        self._done_before = 0
        self._done = 0
        self._reported = 0.0
        self._told = -1
        self._stage = ""
        self._total = 0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def stage(self, event: StageEvent) -> None:
        """A stage begins or has ended."""
        if event.calls is None:
            self._began = time.monotonic()
            self._stage = event.stage
            self._done_before = self._done
            if not event.is_reused:
                total = event.n_calls or None
                self._total = event.n_calls
                self._bar = self._progress.add_task(event.stage, total=total, counts="")
            return
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
        self._console.print(self._line(event), highlight=False, soft_wrap=True)

    def calls(self, progress: Any) -> None:
        """The engine's progress: calls done so far, rate, money."""
        self._done = progress.done
        rate = f"{progress.calls_per_s:,.0f} calls/s  US$ {progress.cost_usd:.2f}"
        if self._bar is not None:
            done = progress.done - self._done_before
            counts = f"{done:,} of {self._total:,}  {rate}"
            self._progress.update(self._bar, completed=done, counts=counts)
        is_due = time.monotonic() - self._reported > (10 if progress.done != self._told else 600)
        if not self._console.is_terminal and is_due:
            self._reported, self._told = time.monotonic(), progress.done
            done = progress.done - self._done_before
            self._console.print(f"  {self._stage:<12} {done:,} calls  {rate}", highlight=False)

    def _line(self, event: StageEvent) -> str:
        took = time.monotonic() - self._began
        rows = ", ".join(f"{count:,} {name}" for name, count in event.n_rows.items())
        mark = "[dim]cached[/dim]  " if event.is_reused else f"{took:6.1f} s"
        calls = ""
        count = event.calls
        if count is not None and count.made + count.reused and not event.is_reused:
            spent = "unknown price" if count.spent_usd is None else f"US$ {count.spent_usd:.2f}"
            calls = f"  ({count.made:,} calls made, {count.reused:,} reused, {spent})"
        return f"  {event.stage:<12} {mark}  {rows}{calls}"


def _wide() -> Console:
    """Standard output; as wide as tables want where there is no terminal to fit."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    return console


def print_summary(found: dict[str, Any]) -> None:
    """The run's numbers, on one screen."""
    console = _wide()
    if found["is_simulated"]:
        console.print(
            "[bold]Simulated answers:[/bold] responses and verdicts come from the embedded"
            " simulator, not from a language model."
        )
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("method")
    counts = sorted({int(one) for by_count in found["auc"].values() for one in by_count})
    shown = [one for one in counts if one in (1, 5, 10, 20, 40)] or counts
    for one in shown:
        table.add_column(f"AUC @{one}", justify="right")
    table.add_column(f"win rate @{found['win_rate_answers']}", justify="right")
    for method, name in METHODS.items():
        aucs = [_number(found["auc"][method][str(one)]["mean"]) for one in shown]
        win = found["win_rate"][method]
        table.add_row(name, *aucs, _interval(win))
    console.print(table)
    aligned = found["alignment"]
    if aligned is not None:
        console.print(
            f"basis of models {aligned['aligned_to_version']} kept: error of stored users' margins"
            f" {_percent(aligned['alignment_error_share'])};"
            f" {_percent(aligned['changed_users_share'])} of them choose otherwise in some"
            f" held-out pair, {_percent(aligned['changed_cells_share'])} of all choices",
            highlight=False,
        )
    audit = found["judge_audit"]
    console.print(
        f"judge: {audit['n_judgments']:,} verdicts, {audit['n_unparsed']:,} unusable,"
        f" {audit['n_tolerated']:,} sloppy; {_percent(audit['consistent_share'])} consistent under"
        f" swap; position bias {_number(audit['position_bias_logit'])}"
        f" [{_number(audit['position_bias_low_logit'])},"
        f" {_number(audit['position_bias_high_logit'])}] logit"
        + (
            f" (true value {audit['true_position_bias_logit']:.2f})"
            if "true_position_bias_logit" in audit
            else ""
        ),
        highlight=False,
    )
    spent = "unknown price" if found["cost_usd"] is None else f"US$ {found['cost_usd']:.2f}"
    console.print(
        f"calls: {found['calls_made']:,} made, {found['calls_reused']:,} reused, {spent};"
        f" {found['wall_s']:.1f} s",
        highlight=False,
    )
    console.print(f"report: {found['report']}", highlight=False, soft_wrap=True)


def print_own_summary(found: dict[str, Any]) -> None:
    """What a run on real users' answers came to, on one screen."""
    console = _wide()
    table = Table(title="Held-out users' test pairs ranked as they did", box=None, pad_edge=False)
    table.add_column("answers known")
    methods = {**METHODS, "longer": "longer response wins"}
    shown = [method for method in methods if method in found["accuracy"]]
    for method in shown:
        table.add_column(methods[method], justify="right")
    table.add_column("users", justify="right")
    table.add_column("pairs", justify="right")
    for count, cell in found["accuracy"]["pref"].items():
        intervals = [_interval(found["accuracy"][method][count]) for method in shown]
        table.add_row(count, *intervals, f"{cell['n_users']:,}", f"{cell['n_pairs']:,}")
    console.print(table)
    facts = found["facts"]
    console.print(
        f"{facts['users with answers']:,} users, {facts['answered cells']:,} answered pairs,"
        f" {facts['pairs of several users']:,} of {facts['pairs']:,} pairs of several users;"
        f" base rewards started from {found['start']}",
        highlight=False,
    )
    if facts["prompts on both sides"]:
        console.print(
            "[bold]One prompt on both sides:[/bold] all data are about one prompt, so nothing is"
            " said of new prompts."
        )
    console.print(f"calls: {found['calls_made']:,} made; {found['wall_s']:.1f} s", highlight=False)
    console.print(f"report: {found['report']}", highlight=False, soft_wrap=True)


def print_benchmark(found: dict[str, Any]) -> None:
    """Mean AUC of every arm by number of answers, and the difference to PReF."""
    console = _wide()
    counts = sorted({row["n_answers"] for row in found["means"]})
    shown = [one for one in counts if one in (1, 5, 10, 20, 40, 80)] or counts
    at = 10 if 10 in counts else counts[-1]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for one in shown:
        table.add_column(f"AUC @{one}", justify="right")
    table.add_column(f"minus PReF @{at}", justify="right")
    table.add_column("users x seeds", justify="right")
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for row in found["means"]:
        by_arm.setdefault(row["arm"], {})[row["n_answers"]] = row
    for arm, rows in by_arm.items():
        gap = rows.get(at)
        table.add_row(
            METHODS.get(arm, arm),
            *(_number(rows[one]["auc_mean"]) if one in rows else "–" for one in shown),
            ""
            if gap is None or arm == "pref" or gap["gap_mean"] is None
            else f"{gap['gap_mean']:+.3f} [{gap['gap_low']:+.3f}, {gap['gap_high']:+.3f}]",
            f"{next(iter(rows.values()))['n_users']} x {next(iter(rows.values()))['n_seeds']}",
        )
    console.print(table)
    console.print(f"calls: {found['calls_made']:,} made; {found['wall_s']:.1f} s", highlight=False)


def print_benchmark_plan(found: dict[str, Any]) -> None:
    """Which cells a benchmark would compute, and how long that takes."""
    console = _wide()
    table = Table("group", "arm", box=None, pad_edge=False)
    for name in ("cells", "in hand", "seconds"):
        table.add_column(name, justify="right")
    for row in found["arms"]:
        table.add_row(
            row["arm_group"],
            row["arm"],
            f"{row['n_missing']:,}",
            f"{row['n_held']:,}",
            f"~{row['seconds']:,.0f}" if row["n_missing"] else "0",
        )
    console.print(table)
    missing = sum(row["n_missing"] for row in found["arms"])
    minutes = sum(row["seconds"] for row in found["arms"]) / 60
    console.print(
        f"{missing:,} cells to compute, about {minutes:,.1f} minutes of one core over"
        f" {found['processes']} processes; 0 calls, US$ 0.00: the matrix of {found['n_users']:,}"
        f" users, {found['n_pairs']:,} pairs and {found['n_labels']:,} labels is in the warehouse",
        highlight=False,
    )


def print_plan(costs: Sequence[StageCost], endpoint: str, as_of: str) -> None:
    """What a run would still buy, stage by stage."""
    console = _wide()
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("model")
    has_hours = any(cost.hours_high is not None for cost in costs)
    for name in ("calls", "in hand", "tokens in", "tokens out", "US$", *["hours"] * has_hours):
        table.add_column(name, justify="right")
    for cost in costs:
        table.add_row(
            cost.stage,
            cost.model,
            f"{'' if cost.is_exact else '~'}{cost.calls:,}",
            f"{cost.held:,}",
            _range(cost.prompt_tokens_low, cost.prompt_tokens_high, "{:,.0f}"),
            _range(cost.completion_tokens_low, cost.completion_tokens_high, "{:,.0f}"),
            _range(cost.cost_low_usd, cost.cost_high_usd, "{:,.2f}"),
            *[_range(cost.hours_low or 0.0, cost.hours_high or 0.0, "{:,.1f}")] * has_hours,
        )
    low, high = _sum(one.cost_low_usd for one in costs), _sum(one.cost_high_usd for one in costs)
    calls = f"{sum(one.calls for one in costs):,}"
    longest = sum(one.hours_high or 0.0 for one in costs)
    shortest = sum(one.hours_low or 0.0 for one in costs)
    table.add_row(
        "total",
        "",
        calls,
        "",
        "",
        "",
        _range(low, high, "{:,.2f}"),
        *[_range(shortest, longest, "{:,.1f}")] * has_hours,
    )
    console.print(table)
    console.print(
        f"endpoint {endpoint}; list prices of {as_of}. Tokens are estimated: characters / 4, and"
        " replies of usual (low) to greatest (high) length. ~: texts not known yet."
        + (
            " Hours: what the rate limits given allow; a batch takes up to a day."
            if has_hours
            else " For hours, give --set calls.requests_per_min=… and calls.tokens_per_min=…"
        ),
        highlight=False,
    )


def print_changes(changes: Sequence[StageChange]) -> None:
    """Which stages a run would make anew, why, and for which cells it would ask."""
    if not any(one.current for one in changes):
        return
    console = _wide()
    new = [one for one in changes if not one.is_same]
    console.print(f"changes: {len(new)} of {len(changes)} stages", highlight=False)
    for one in new:
        state = "there already" if one.is_made else "to be made"
        console.print(
            f"  {one.stage}: {one.dataset} {one.current or '(none yet)'} → {one.planned}, {state}",
            highlight=False,
        )
        own = [cause for cause in one.causes if not cause[0].startswith("parent ")]
        parents = [
            name.removeprefix("parent ")
            for name, *_ in one.causes
            if name not in {cause[0] for cause in own}
        ]
        for name, older, newer in own:
            console.print(f"    {name}: {older} → {newer}", highlight=False, markup=False)
        if parents:
            console.print(f"    made from other {', '.join(parents)}", highlight=False)
        if one.n_cells:
            shown = f"{', '.join(one.cells)}{', …' if one.n_cells > len(one.cells) else ''}"
            console.print(
                f"    {one.n_cells:,} cells to ask about: {shown}", highlight=False, markup=False
            )
        for line in one.templates:
            console.print(f"    {line}", highlight=False, markup=False)


def print_design(design: DesignCheck) -> None:
    """What the design covers, and whether it can teach as many base rewards as are asked for."""
    loads, crowds = _spread(design.loads), _spread(design.crowds)
    told = (
        f"design: {design.n_cells:,} of {design.n_personas:,} × {design.n_pairs:,} cells"
        f" ({_percent(design.coverage)}); {loads} pairs a persona, {crowds} personas a pair;"
        f" {'connected' if design.n_components == 1 else f'{design.n_components} components'}"
    )
    verdict = "can follow from" if design.can_identify else "cannot follow from"
    told += (
        f"\ntraining part: {design.n_train_cells:,} cells for {design.n_parameters:,} parameters;"
        f" {design.n_short_personas:,} personas and {design.n_short_pairs:,} pairs have fewer than"
        f" d = {design.n_base_rewards} cells; {design.n_base_rewards} base rewards {verdict} it"
    )
    _wide().print(told, highlight=False)


def _spread(histogram: Mapping[int, int]) -> str:
    low, high = min(histogram, default=0), max(histogram, default=0)
    return f"{low:,}" if low == high else f"{low:,} – {high:,}"


def _range(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return "unknown price"
    return form.format(low) if low == high else f"{form.format(low)} – {form.format(high)}"


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(one for one in known if one is not None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(found: dict[str, float | None]) -> str:
    return f"{_percent(found['mean'])} [{_percent(found['low'])}, {_percent(found['high'])}]"
