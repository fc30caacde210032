"""The report's figures as SVG text and as PNG. The same rows give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

# Okabe and Ito's palette, told apart by every common kind of color vision; markers differ too.
LOOK = {
    "pref": ("PReF", "#0072B2", "o"),
    "classic": ("classic RLHF", "#D55E00", "s"),
    "per_user": ("model per user", "#009E73", "^"),
}
# Win rates have these and further ways to personalize.
WIN_LOOK = {
    **LOOK,
    "pref_samples": ("PReF, plain samples", "#56B4E9", "D"),
    "in_context": ("answers in context", "#CC79A7", "v"),
    "summary": ("summary of answers", "#E69F00", "P"),
    "system_prompt": ("own system prompt", "#000000", "X"),
}
WIN_NAMES = {method: name for method, (name, _, _) in WIN_LOOK.items()}
_OFFSET = {"textcoords": "offset points", "va": "bottom", "fontsize": "small", "color": "#555555"}


class Drawn(NamedTuple):
    """One figure: SVG for the page, PNG for places that show no SVG."""

    svg: str
    png: bytes


# Real users' pairs: nobody's judge was asked, and a rule that reads only lengths stands beside.
OWN_LOOK = {
    "pref": LOOK["pref"],
    "classic": LOOK["classic"],
    "longer": ("longer response wins", "#555555", "D"),
}


def accuracy_by_answers(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """Pair accuracy on held-out users' test pairs by number of answers, with 95 % bars."""
    figure, axes = canvas(5.6, 3.8)
    counts = sorted({int(row["n_answers"]) for row in rows})
    for shift, (method, (name, color, marker)) in enumerate(OWN_LOOK.items()):
        mine = {
            row["n_answers"]: row
            for row in rows
            if row["method"] == method and row["accuracy_mean"] is not None
        }
        shown = [count for count in counts if count in mine]
        means = [100 * mine[count]["accuracy_mean"] for count in shown]
        low = [100 * mine[count]["accuracy_low"] for count in shown]
        high = [100 * mine[count]["accuracy_high"] for count in shown]
        # Every number of answers has users of its own, so the points are not joined into a curve.
        axes.errorbar(
            [counts.index(count) + 0.16 * (shift - 1) for count in shown],
            means,
            yerr=[
                [mean - one for mean, one in zip(means, low, strict=True)],
                [one - mean for mean, one in zip(means, high, strict=True)],
            ],
            color=color,
            marker=marker,
            linestyle="none",
            capsize=3,
            label=name,
        )
    axes.axhline(50, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("answers known of the user")
    axes.set_ylabel("pairs ranked as the user did (%)")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(OWN_LOOK))
    return draw(figure, "Pair accuracy by number of answers for each method")


def win_rates(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """Win rate over the base response with 95 % intervals, one line a method."""
    known = {row["method"]: row for row in rows if row["win_rate_mean"] is not None}
    shown = [method for method in reversed(WIN_LOOK) if method in known]
    figure, axes = canvas(6.4, 1.0 + 0.4 * len(shown))
    for place, method in enumerate(shown):
        _, color, marker = WIN_LOOK[method]
        row = known[method]
        mean, low, high = (100 * row[f"win_rate_{part}"] for part in ("mean", "low", "high"))
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], color=color, marker=marker, capsize=4
        )
        axes.annotate(
            f"{mean:.1f} %", (high, place), (6, 0), textcoords="offset points", va="center"
        )
    axes.axvline(50, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(shown)), [WIN_LOOK[method][0] for method in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("win rate over the base response (%)")
    return draw(figure, "Win rate over the base response for each method")


def rank(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """Singular values beside their noise edge, and held-out likelihood, by number of rewards."""
    figure, (left, right) = canvas(5.6, 2.8, 2)
    numbers = [row["n_base_rewards"] for row in rows]
    left.plot(numbers, [row["singular_value"] for row in rows], color="#0072B2", marker="o")
    left.axhline(rows[0]["noise_edge"], color="#777777", linewidth=1.2, linestyle="--")
    left.annotate("noise", (numbers[-1], rows[0]["noise_edge"]), (0, 4), ha="right", **_OFFSET)
    left.set_ylabel("singular value")
    tried = [row for row in rows if row["log_likelihood_mean"] is not None]
    means = [row["log_likelihood_mean"] for row in tried]
    low = [row["log_likelihood_mean"] - row["log_likelihood_low"] for row in tried]
    high = [row["log_likelihood_high"] - row["log_likelihood_mean"] for row in tried]
    at = [row["n_base_rewards"] for row in tried]
    right.errorbar(at, means, yerr=[low, high], color="#0072B2", marker="o", capsize=3)
    right.set_ylabel("held-out likelihood (nats)")
    for axes in (left, right):
        axes.set_xlabel("base rewards")
        for used in (row["n_base_rewards"] for row in rows if row["is_used"]):
            axes.axvline(used, color="#D55E00", linewidth=0.8, linestyle=":")
    return draw(figure, "Singular values and held-out likelihood by number of base rewards")


def user_weights(rows: Sequence[Mapping[str, Any]]) -> Drawn:
    """One user's weights with 95 % intervals, one line a base reward, the first on top."""
    figure, axes = canvas(5.6, 1.0 + 0.28 * len(rows))
    places = range(len(rows), 0, -1)
    means = [row["weight"] for row in rows]
    axes.errorbar(
        means,
        list(places),
        xerr=[
            [row["weight"] - row["low"] for row in rows],
            [row["high"] - row["weight"] for row in rows],
        ],
        color="#0072B2",
        marker="o",
        linestyle="none",
        capsize=3,
    )
    axes.axvline(0, color="#777777", linewidth=0.8, linestyle=":")
    names = [f"{row['base_reward']}  {clipped(row.get('label') or '')}".strip() for row in rows]
    axes.set_yticks(list(places), names, parse_math=False)
    axes.set_xlabel("weight (logits a unit of base reward)")
    return draw(figure, "Weights of the user with 95 % intervals")


def clipped(text: str, length: int = 36) -> str:
    """A model's words on one line of a figure."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def canvas(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    made = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for axes in made:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="both", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, made[0] if columns == 1 else made


def draw(figure: Any, title: str) -> Drawn:
    """The figure in both forms, its title what a screen reader says of it."""
    import matplotlib as mpl

    out, picture = io.StringIO(), io.BytesIO()
    # Text stays text (searchable, read aloud); ids and dates are fixed so that bytes repeat.
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Title": title})
        figure.savefig(picture, format="png", dpi=130, metadata={"Software": None})
    text = out.getvalue()
    svg = text[text.index("<svg") :]
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    # Ids that nothing refers to would be there twice on a page of several figures.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda one: one[0] if one[1] in used else "", svg)
    return Drawn(svg, picture.getvalue())
