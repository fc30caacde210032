"""Figures of the paper's kind: curves of arms, bars of arms, users in order. It reads no dataset.

Every curve has a marker of its own; published values are dashed with open markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks._stages.figures import Drawn, canvas, clipped, draw

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
# Okabe and Ito's palette without yellow, which white paper swallows; black for the eighth.
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000", GRAY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Point(NamedTuple):
    """A mean with its interval, where there is one."""

    at: float
    mean: float
    low: float | None = None
    high: float | None = None


class Curve(NamedTuple):
    """One line of a figure; ``style`` indexes color and marker."""

    name: str
    points: Sequence[Point]
    style: int = 0
    is_published: bool = False


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    across: str,
    up: str,
    is_log: bool = False,
    chance: float = 0.5,
) -> Drawn:
    """Lines over a number, with intervals as bands (a bar at a lone point); chance dotted."""
    figure, axes = canvas(5.6, 3.8)
    for line in lines:
        color, marker = PALETTE[line.style % 8], MARKERS[line.style % 8]
        at = [one.at for one in line.points]
        axes.plot(
            at,
            [one.mean for one in line.points],
            color=color,
            marker=marker,
            linestyle="--" if line.is_published else "-",
            markerfacecolor="white" if line.is_published else color,
            linewidth=1.1 if line.is_published else 1.6,
            label=f"{line.name} (published)" if line.is_published else line.name,
        )
        known = [one for one in line.points if one.low is not None and one.high is not None]
        axes.fill_between(
            [one.at for one in known],
            [float(one.low or 0.0) for one in known],
            [float(one.high or 0.0) for one in known],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
        if len(known) == 1:
            axes.vlines(known[0].at, known[0].low, known[0].high, color=color)
    if is_log:
        axes.set_xscale("log")
    axes.axhline(chance, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    columns = 2 if len(lines) > 2 else 1
    axes.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns,
        fontsize="small",
    )  # fmt: skip
    return draw(figure, title)


def bars(
    rows: Sequence[tuple[str, Point]],
    *,
    title: str,
    across: str,
    published: Mapping[str, float] | None = None,
    zero: float | None = None,
) -> Drawn:
    """One line a name with its interval, the first on top; published values as open squares."""
    figure, axes = canvas(5.6, 1.1 + 0.27 * len(rows))
    places = list(range(len(rows), 0, -1))
    for place, (_, point) in zip(places, rows, strict=True):
        spread = None
        if point.low is not None and point.high is not None:
            spread = [[max(0.0, point.mean - point.low)], [max(0.0, point.high - point.mean)]]
        axes.errorbar(point.mean, place, xerr=spread, color=BLUE, marker="o", capsize=3)
    told = [
        (value, place)
        for place, (name, _) in zip(places, rows, strict=True)
        if (value := (published or {}).get(name)) is not None
    ]
    if told:
        axes.plot(
            [value for value, _ in told], [place for _, place in told], color=ORANGE, marker="s",
            markerfacecolor="white", linestyle="none", label="published",
        )  # fmt: skip
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    if zero is not None:
        axes.axvline(zero, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [clipped(name) for name, _ in rows], parse_math=False)
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlabel(across)
    return draw(figure, title)


def users(shares: Sequence[float], *, title: str) -> Drawn:
    """Each user's win rate, in rising order."""
    figure, axes = canvas(5.6, 3.2)
    values = sorted(100 * one for one in shares)
    is_won = [value > 50 for value in values]
    for wanted, color, marker, name in (
        (True, BLUE, "o", "above 50 %"), (False, ORANGE, "s", "50 % or less"),
    ):  # fmt: skip
        chosen = [place for place, won in enumerate(is_won, start=1) if won == wanted]
        if chosen:
            heights = [values[place - 1] for place in chosen]
            axes.plot(chosen, heights, color=color, marker=marker, linestyle="none", label=name)
    axes.axhline(50, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_ylim(-3, 103)
    axes.set_xlabel("held-out users, in order of win rate")
    axes.set_ylabel("win rate over the base response (%)")
    axes.legend(frameon=False, loc="lower right")
    return draw(figure, title)
