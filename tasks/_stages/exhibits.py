"""The paper's figures and its first table from our datasets, the published values beside them.

An exhibit is a figure, its rows, and the datasets it comes from. It computes no measure: every
number is a row of a dataset, but for the shares of single users, which are means of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc

from tasks._stages import figures, published
from tasks._stages.figures import LOOK, Drawn
from tasks._stages.paper_figures import Curve, Point, bars, curves, users
from tasks._stages.stage import Inputs
from tasks._stages.win_rates import win_values

Row = dict[str, Any]

NAMES = {
    "pref": "PReF", "classic": "classic RLHF", "per_user": "model per user", "lore": "LoRe",
    "mrm": "MRM", "pal_a": "PAL-A", "pal_b": "PAL-B", "vpl": "VPL",
}  # fmt: skip
ASKED = "asked by D-optimality"
# Numbers of answers in the bars and in the table, the greatest that was measured first.
BARS_AT = (40, 20, 10, 5, 3, 1)
TABLE_AT = (5, 10, 20, 40)
AUC = "mean AUC of new users on new pairs"
_JUDGED = "Each user's own judge, both orders, ties as halves."
SMALLER = "Ours is measured on this run's matrix and frozen embeddings. "


class Exhibit(NamedTuple):
    """One figure or table.

    Attributes:
        name: File name without its ending.
        paper: Which figure of the paper it stands beside.
        title: What it shows.
        caption: How to read it, and what was simulated.
        drawn: The figure; None for a table.
        rows: Its numbers, one dict a row with the same keys.
        sources: Datasets it comes from.
    """

    name: str
    paper: str
    title: str
    caption: str
    drawn: Drawn | None
    rows: Sequence[Row]
    sources: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Names of the columns, with their units."""
        return list(self.rows[0]) if self.rows else []


def of_run(inputs: Inputs) -> list[Exhibit]:
    """Exhibits that a run's own datasets give."""
    dataset = "prism" if "prompt_ratings" in inputs.plan.parents else "attributes"
    told = _told(inputs)
    auc = [row for row in inputs.read("auc_means").to_pylist() if row["auc_mean"] is not None]
    return [
        _auc(auc, dataset, told),
        _win_rates(inputs, dataset, told),
        _win_rates_now(inputs, told),
        _beside(inputs, auc, dataset, told),
        _base_rewards(inputs, told),
        _spectrum(inputs),
        *_win_by_user(inputs, told),
    ]


def of_benchmark(inputs: Inputs) -> list[Exhibit]:
    """Exhibits that a benchmark gives; none where there is none."""
    if "benchmark_means" not in inputs.plan.parents:
        return []
    rows = [r for r in inputs.read("benchmark_means").to_pylist() if r["auc_mean"] is not None]
    dataset = "prism" if "prompt_ratings" in inputs.plan.parents else "attributes"
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["arm_group"], []).append(row)
    full = [row for row in rows if row["arm"] == "pref"]
    told = (
        f"Mean over users and {full[0]['n_seeds']} seeds, 95 % intervals over users."
        f" {SMALLER}{_told(inputs)}"
    )
    found = [_methods(groups["methods"], told)]
    if "ablations" in groups:
        found.append(_ablations(full + groups["ablations"], dataset, told))
    if "rewards" in groups:
        found.append(_d_sweep(full + groups["rewards"], dataset, told))
    if "questions" in groups:
        found.append(_questions(full, groups["questions"], dataset, told))
    if "labels" in groups:
        found.append(_labels(inputs, full, groups["labels"], dataset, told))
    own = [row for row in rows if row["arm"] in ("pref", "per_user")]
    if len({row["arm"] for row in own}) > 1:
        found.append(_per_user(own, dataset, told))
    return found


def _told(inputs: Inputs) -> str:
    who = (
        "Ours: responses and verdicts are simulated."
        if inputs.config["is_simulated"]
        else "Ours: users are played by a judge model, so their answers are synthetic."
    )
    return f"{who} {published.CAVEAT}"


def _auc(rows: list[Row], dataset: str, told: str) -> Exhibit:
    lines, table = [], []
    for style, (method, (name, _, _)) in enumerate(LOOK.items()):
        mine = [row for row in rows if row["method"] == method]
        if mine:
            lines.append(Curve(name, _points(mine, "n_answers"), style))
        theirs = published.curve(dataset, method)
        if theirs:
            points = [Point(count, value) for count, value in theirs.items()]
            lines.append(Curve(name, points, style, is_published=True))
        by_count = {row["n_answers"]: row for row in mine}
        table += [
            {
                "method": method,
                "n_answers": count,
                **_auc_columns(by_count.get(count)),
                "auc_published": theirs.get(count),
            }
            for count in sorted({*by_count, *theirs})
        ]
    return Exhibit(
        "fig2-auc",
        "Fig 2",
        "AUC by number of answers",
        f"Bands: 95 % intervals, users resampled. {told}",
        curves(lines, title="AUC by number of answers, ours and published",
               across="answers known of the user", up=AUC),
        table,
        ("auc_means",),
    )  # fmt: skip


def _win_rates(inputs: Inputs, dataset: str, told: str) -> Exhibit:
    rows = [row for row in _rows(inputs, "win_rates") if row["win_rate_mean"] is not None]
    lines, table = [], []
    for style, (method, (name, *_)) in enumerate(figures.WIN_LOOK.items()):
        mine = {row["n_answers"]: row for row in rows if row["method"] == method}
        if not mine:
            continue
        points = [
            Point(count, *(100 * row[f"win_rate_{part}"] for part in ("mean", "low", "high")))
            for count, row in mine.items()
        ]
        lines.append(Curve(name, points, style))
        theirs = published.win_curve(dataset, method)
        if theirs:
            published_points = [Point(count, 100 * value) for count, value in theirs.items()]
            lines.append(Curve(name, published_points, style, is_published=True))
        table += [
            {
                "method": method,
                "n_answers": count,
                **{
                    f"win_rate_{part}": mine[count][f"win_rate_{part}"] if count in mine else None
                    for part in ("mean", "low", "high")
                },
                "win_rate_published": theirs.get(count),
            }
            for count in sorted({*mine, *theirs})
        ]
    return Exhibit(
        "fig2-win-rates",
        "Fig 2",
        "Win rate by number of answers",
        f"{_JUDGED} Bands: 95 % intervals over users. {told}",
        curves(lines, title="Win rate by number of answers, ours and published",
               across="answers known of the user", up="win rate over the base response (%)",
               chance=50),
        table,
        ("win_rates",),
    )  # fmt: skip


def _win_rates_now(inputs: Inputs, told: str) -> Exhibit:
    """The methods side by side after the number of answers that tables show."""
    at = inputs.config["n_answers"]
    rows = [row for row in _rows(inputs, "win_rates") if row["n_answers"] == at]
    return Exhibit(
        "win-rates",
        "Fig 2",
        f"Win rate of each method after {at} answers",
        f"{_JUDGED} 95 % intervals over users. {told.split(' Published')[0]}",
        figures.win_rates(rows),
        rows,
        ("win_rates",),
    )


def _spectrum(inputs: Inputs) -> Exhibit:
    rows = _rows(inputs, "rank_curve")
    return Exhibit(
        "fig7-spectrum",
        "Fig 7",
        "Singular values and held-out likelihood",
        "Values above the noise edge are more than noise; likelihood is of cells held out.",
        figures.rank(rows),
        rows,
        ("rank_curve",),
    )


def _base_rewards(inputs: Inputs, told: str) -> Exhibit:
    labels = {row["base_reward"]: row["label"] for row in _rows(inputs, "base_reward_labels")}
    rows = [
        {
            "base_reward": row["base_reward"],
            "label": labels.get(row["base_reward"]),
            "explained_share": row["explained_share"],
        }
        for row in _rows(inputs, "base_reward_facts")
    ]
    shown = [
        (
            f"{row['base_reward']}  {row['label'] or ''}".strip(),
            Point(row["base_reward"], 100 * row["explained_share"]),
        )
        for row in rows
    ]
    return Exhibit(
        "fig5-base-rewards",
        "Fig 5",
        "Base rewards, their labels and the variance they explain",
        "Labels are proposals of a model that read the responses at both ends of each base reward."
        f" {told.split(' Published')[0]}",
        bars(shown, title="Variance explained by each base reward",
             across="variance of preferences explained (%)"),
        rows,
        ("base_reward_facts", "base_reward_labels"),
    )  # fmt: skip


def _win_by_user(inputs: Inputs, told: str) -> Iterable[Exhibit]:
    from pref_model.metrics import mean_by_user
    from tasks._convert import rows_of

    values = win_values(inputs.read("selections"), inputs.read("win_judgments"))
    at = inputs.config["n_answers"]
    mine = values.filter(
        pc.and_(pc.equal(values["method"], "pref"), pc.equal(values["n_answers"], at))
    )
    personas = sorted(set(mine["persona_id"].to_pylist()))
    wins = mine["win"].to_numpy(zero_copy_only=False).astype(float)
    shares = mean_by_user(rows_of(mine["persona_id"], personas), wins, len(personas))
    rows = [
        {"persona_id": persona, "win_rate": float(share)}
        for persona, share in zip(personas, shares, strict=True)
        if share == share
    ]
    if rows:
        yield Exhibit(
            "fig8-win-rate-by-user",
            "Fig 8",
            "Win rate of each held-out user",
            f"PReF's choice after {at} answers against the base response, by the user's own judge,"
            " ties as halves."
            f" {told.split(' Published')[0]}",
            users([row["win_rate"] for row in rows], title="Win rate of each held-out user"),
            rows,
            ("selections", "win_judgments"),
        )


def _beside(inputs: Inputs, auc: list[Row], dataset: str, told: str) -> Exhibit:
    """Our figures and the published ones at the same numbers of answers."""
    rows = []
    for row in sorted(auc, key=lambda one: (one["method"], one["n_answers"])):
        theirs = published.curve(dataset, row["method"]).get(row["n_answers"])
        if theirs is not None:
            rows.append(_side("AUC", row, "auc", theirs))
    for row in _rows(inputs, "win_rates"):
        theirs = published.win_curve(dataset, row["method"]).get(row["n_answers"])
        if theirs is not None and row["win_rate_mean"] is not None:
            rows.append(_side("win rate", row, "win_rate", theirs))
    return Exhibit(
        "published", "Fig 2", "Ours beside the published values", told, None, rows,
        ("auc_means", "win_rates"),
    )  # fmt: skip


def _side(measure: str, row: Row, name: str, theirs: float) -> Row:
    return {
        "measure": measure,
        "method": figures.WIN_NAMES.get(row["method"], row["method"]),
        "n_answers": row["n_answers"],
        "ours": row[f"{name}_mean"],
        "ours_low": row[f"{name}_low"],
        "ours_high": row[f"{name}_high"],
        "published": theirs,
        "ours_minus_published": row[f"{name}_mean"] - theirs,
    }


def _methods(rows: list[Row], told: str) -> Exhibit:
    shown = sorted({row["n_answers"] for row in rows} & set(TABLE_AT))
    lines = [
        Curve(NAMES.get(arm, arm), _points([r for r in rows if r["arm"] == arm], "n_answers"), n)
        for n, arm in enumerate(dict.fromkeys(row["arm"] for row in rows))
    ]
    table = [
        {
            "arm": NAMES.get(row["arm"], row["arm"]),
            "n_answers": row["n_answers"],
            **_auc_columns(row),
            "minus_pref": row["gap_mean"],
            "minus_pref_low": row["gap_low"],
            "minus_pref_high": row["gap_high"],
            "n_users": row["n_users"],
            "n_seeds": row["n_seeds"],
        }
        for row in rows
        if not shown or row["n_answers"] in shown
    ]
    most = max(TABLE_AT)
    short = [line._replace(points=[one for one in line.points if one.at <= most]) for line in lines]
    return Exhibit(
        "table1-methods",
        "Table 1",
        "Methods on the same answers to the same random questions",
        f"{told} The paper's table is on other tasks.",
        curves(short, title="AUC of each method by number of answers",
               across="answers known of the user", up=AUC),
        table,
        ("benchmark_means",),
    )  # fmt: skip


def _ablations(rows: list[Row], dataset: str, told: str) -> Exhibit:
    at = _bars_at(rows)
    mine = [row for row in rows if row["n_answers"] == at]
    shown = [(str(NAMES.get(row["arm"], row["arm"])), _point(row, at)) for row in mine]
    theirs = published.ABLATIONS if dataset == "attributes" else {}
    return Exhibit(
        "fig3-ablations",
        "Fig 3",
        f"What each part of the method adds, after {at} answers",
        told,
        bars(shown, title="AUC without each part of the method", across=AUC,
             published={NAMES.get(name, name): value for name, value in theirs.items()}),
        [
            {
                "arm": row["arm"], **_auc_columns(row), "seed_spread": row["seed_spread"],
                "minus_pref": row["gap_mean"], "minus_pref_low": row["gap_low"],
                "minus_pref_high": row["gap_high"], "auc_published": theirs.get(row["arm"]),
            }
            for row in mine
        ],
        ("benchmark_means",),
    )  # fmt: skip


def _d_sweep(rows: list[Row], dataset: str, told: str) -> Exhibit:
    at = _bars_at(rows)
    mine = sorted(
        (row for row in rows if row["n_answers"] == at), key=lambda one: one["n_base_rewards"]
    )
    theirs = published.BASE_REWARDS
    lines = [
        Curve(f"PReF after {at} answers", _points(mine, "n_base_rewards")),
        Curve("PReF on PRISM", [Point(d, v) for d, v in theirs.items()], 1, is_published=True),
    ]
    by_d = {row["n_base_rewards"]: row for row in mine}
    return Exhibit(
        "fig3-base-rewards",
        "Fig 3",
        "How many base rewards",
        f"The published curve is of PRISM{'' if dataset == 'prism' else ', ours of Attributes'}."
        f" {told}",
        curves(lines, title="AUC by number of base rewards", across="base rewards", up=AUC),
        [
            {
                "n_base_rewards": d, "n_answers": at, **_auc_columns(by_d.get(d)),
                "auc_published_prism": theirs.get(d),
            }
            for d in sorted({*by_d, *theirs})
        ],
        ("benchmark_means",),
    )  # fmt: skip


def _questions(full: list[Row], rows: list[Row], dataset: str, told: str) -> Exhibit:
    most = max(TABLE_AT)
    asked = [row for row in rows if row["n_answers"] <= most]
    random = [row for row in full if row["n_answers"] <= most]
    lines = [Curve("random questions", _points(random, "n_answers"), 1)]
    arms = dict.fromkeys(row["arm"] for row in asked)
    for number, arm in enumerate(arms):
        mine = [row for row in asked if row["arm"] == arm]
        lines.append(Curve(arm, _points(mine, "n_answers"), 0 if arm == ASKED else 2 + number))
    theirs = {
        "asked": published.curve(dataset, "pref"),
        "random": published.curve(dataset, "random"),
    }
    for style, (name, values) in enumerate(theirs.items()):
        if values:
            points = [Point(count, value) for count, value in values.items()]
            lines.append(Curve(f"{name} questions", points, style, is_published=True))
    return Exhibit(
        "fig3-questions",
        "Fig 3",
        "Chosen questions against random ones",
        f"The same base rewards and prior; only the choice of questions differs. {told}",
        curves(lines, title="AUC by number of answers for each way to choose questions",
               across="answers known of the user", up=AUC),
        [
            {
                "questions": "random" if row["arm"] == "pref" else row["arm"],
                "n_answers": row["n_answers"], **_auc_columns(row),
                "auc_published": theirs[
                    "random" if row["arm"] == "pref" else "asked"
                ].get(row["n_answers"]) if row["arm"] in ("pref", ASKED) else None,
            }
            for row in [*random, *asked]
        ],
        ("benchmark_means",),
    )  # fmt: skip


def _labels(inputs: Inputs, full: list[Row], rows: list[Row], dataset: str, told: str) -> Exhibit:
    at = _bars_at(full)
    valid = inputs.read("preferences", ("n_valid",))["n_valid"]
    n_all = int(pc.sum(pc.greater_equal(valid, 2)).as_py())
    mine = [row for row in rows if row["n_answers"] == at]
    mine += [{**row, "n_labels": n_all} for row in full if row["n_answers"] == at]
    mine.sort(key=lambda row: int(row["n_labels"]))
    theirs = published.LABELS
    lines = [
        Curve(f"PReF after {at} answers", _points(mine, "n_labels")),
        Curve("PReF on PRISM", [Point(n, v) for n, v in theirs.items()], 1, is_published=True),
    ]
    ours = [
        {"n_labels": row["n_labels"], "n_answers": at, **_auc_columns(row), "auc_published": None}
        for row in mine
    ]
    return Exhibit(
        "fig4-labels",
        "Fig 4",
        "What more labels bring",
        "Labels of the whole matrix; the part that trains is about 64 % of them. The published"
        f" values are of PRISM{'' if dataset == 'prism' else ', ours of Attributes'}. {told}",
        curves(lines, title="AUC by number of labels", across="labels bought", up=AUC,
               is_log=True),
        ours + [
            {**dict.fromkeys(ours[0]), "n_labels": n, "auc_published": value}
            for n, value in theirs.items()
        ],
        ("benchmark_means", "preferences"),
    )  # fmt: skip


def _per_user(rows: list[Row], dataset: str, told: str) -> Exhibit:
    lines = [
        Curve(NAMES[arm], _points([row for row in rows if row["arm"] == arm], "n_answers"), style)
        for style, arm in ((0, "pref"), (2, "per_user"))
    ]
    theirs = published.curve(dataset, "per_user")
    if theirs:
        points = [Point(count, value) for count, value in theirs.items()]
        lines.append(Curve(NAMES["per_user"], points, 2, is_published=True))
    return Exhibit(
        "fig9-model-per-user",
        "Fig 9",
        "A model per user after many answers",
        f"Nothing is shared between users but the strength of the ridge. {told}",
        curves(lines, title="AUC of a model per user by number of answers",
               across="answers known of the user", up=AUC),
        [
            {
                "arm": row["arm"], "n_answers": row["n_answers"], **_auc_columns(row),
                "auc_published": theirs.get(row["n_answers"])
                if row["arm"] == "per_user" else None,
            }
            for row in rows
        ],
        ("benchmark_means",),
    )  # fmt: skip


def _rows(inputs: Inputs, dataset: str) -> list[Row]:
    return list(inputs.read(dataset).to_pylist())


def _bars_at(rows: list[Row]) -> int:
    there = {row["n_answers"] for row in rows if row["arm"] == "pref"}
    return next((count for count in BARS_AT if count in there), max(there))


def _points(rows: list[Row], column: str) -> list[Point]:
    ordered = sorted(rows, key=lambda row: float(row[column]))
    return [_point(row, float(row[column])) for row in ordered]


def _point(row: Row, at: float) -> Point:
    return Point(at, row["auc_mean"], row["auc_low"], row["auc_high"])


def _auc_columns(row: Row | None) -> Row:
    return {name: row[name] if row else None for name in ("auc_mean", "auc_low", "auc_high")}
