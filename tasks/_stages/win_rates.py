"""Win rates over the base response: raw, at equal length, their differences, and judge checks.

A comparison is a win (1), a tie (1/2: its two orders disagree) or a loss (0); one without a
verdict in both orders is counted as unparsed and nothing else.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks._convert import rows_of
from tasks._stages.check_win import IDENTICAL
from tasks._stages.judge_checks import check_rates
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.win import CELL, texts_of
from tasks._stages.write import SUMMARY, WRITERS
from warehouse.fields import METHODS
from warehouse.tables import TABLES

# The power note: users that an interval of 5 points to either side would take.
HALF_WIDTH = 0.05
_PROB = "prefers_personalized_prob"

Row = dict[str, Any]


def cell_values(judgments: pa.Table) -> pa.Table:
    """One row a comparison with its ``win``, null where an order has no verdict."""
    by_order = judgments.group_by([*CELL, "presentation_order"]).aggregate([(_PROB, "mean")])
    value = f"{_PROB}_mean"
    cells = by_order.group_by(CELL).aggregate([(value, "mean"), (value, "count")])
    win = pc.if_else(pc.equal(cells[f"{value}_count"], 2), cells[f"{value}_mean"], None)
    return cells.select(CELL).append_column("win", win)


def win_values(selections: pa.Table, judgments: pa.Table) -> pa.Table:
    """One row a selection with its ``win``, in key order."""
    found = selections.join(cell_values(judgments), CELL)
    return found.sort_by([(name, "ascending") for name in TABLES["selections"].key])


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``win_rates``, ``win_differences`` and ``win_checks``."""
    values = win_values(inputs.read("selections"), inputs.read("win_judgments"))
    rates, differences = [], []
    for count in sorted(set(values["n_answers"].to_pylist())):
        after = values.filter(pc.equal(values["n_answers"], count))
        known = set(after["method"].to_pylist())
        by_method = {
            method: after.filter(pc.equal(after["method"], method))
            for method in METHODS
            if method in known
        }
        rates += [{"n_answers": count} | row for row in _rates(inputs, by_method)]
        differences += [{"n_answers": count} | row for row in _differences(inputs, by_method)]
    return {
        name: Output(pa.Table.from_pylist(rows, TABLES[name].schema))
        for name, rows in (
            ("win_rates", rates),
            ("win_differences", differences),
            ("win_checks", _checks(inputs)),
        )
    }


def _rates(inputs: Inputs, by_method: dict[str, pa.Table]) -> list[Row]:
    from pref_model.length_control import Comparisons, length_controlled
    from pref_model.types import Interval
    from pref_model.win_rates import users_for_half_width

    personas, prompts = (
        sorted({one for table in by_method.values() for one in table[name].to_pylist()})
        for name in ("persona_id", "prompt_id")
    )
    text = texts_of(inputs)
    controlled = length_controlled(
        {
            method: Comparisons(
                rows_of(table["persona_id"], personas),
                rows_of(table["prompt_id"], prompts),
                _wins(table),
                _length_gaps(table, text),
            )
            for method, table in by_method.items()
        },
        len(prompts),
        **_resampling(inputs),
    )
    rows = []
    for method, table in by_method.items():
        win = _wins(table)
        interval = _interval(inputs, table, win)
        needed = users_for_half_width(Interval(**interval), HALF_WIDTH)
        lc = controlled[method]
        rows.append(
            {
                "method": method,
                **_told("win_rate", interval),
                "n_users": interval["n"],
                "n_comparisons": int(np.sum(~np.isnan(win))),
                "n_ties": int(np.sum(win == 0.5)),
                "n_unparsed": int(np.sum(np.isnan(win))),
                "n_users_needed": needed,
                **_told("controlled_rate", lc.rate._asdict()),
                "length_effect_logit": _known(lc.length_logit),
                "length_gap_mean": _known(lc.mean_gap),
                "win_rate_bound": _bound(inputs, method),
                **_costs(inputs, method),
            }
        )
    return rows


def _candidates(inputs: Inputs, method: str) -> list[Row]:
    """The texts that a method chose from or wrote, and what it wrote on the way to them."""
    if method in WRITERS:
        texts = [
            row for row in inputs.read("personal_responses").to_pylist() if row["method"] == method
        ]
        return texts + (inputs.read("taste_summaries").to_pylist() if method == SUMMARY else [])
    role = "sample" if method == "pref_samples" else "revision"
    return [
        row for row in inputs.read("pool_responses").to_pylist() if row["response_role"] == role
    ]


def _costs(inputs: Inputs, method: str) -> Row:
    """Calls, tokens and money of a method beyond the base responses; null where not all tell."""
    rows = _candidates(inputs, method)
    found: Row = {"n_calls": len(rows)}
    for name in ("prompt_tokens", "completion_tokens", "cost_usd"):
        values = [row[name] for row in rows]
        found[name] = None if None in values else sum(values)
    return found


def _bound(inputs: Inputs, method: str) -> float | None:
    """N / (N + 1) for the best of N samples like the base; the largest N of any prompt."""
    from pref_model.bestofn import best_of_n_bound

    if method != "pref_samples":
        return None
    prompts = [row["prompt_id"] for row in _candidates(inputs, method) if row["response_text"]]
    return best_of_n_bound(max(map(prompts.count, set(prompts))))


def _differences(inputs: Inputs, by_method: dict[str, pa.Table]) -> list[Row]:
    """Each method less each later one, on the users and prompts where both have a verdict."""
    rows = []
    for one, other in combinations(by_method, 2):
        both = by_method[one].join(
            by_method[other].select(["persona_id", "prompt_id", "win"]),
            ["persona_id", "prompt_id"],
            join_type="inner",
            right_suffix="_other",
        )
        difference = _wins(both) - _wins(both, "win_other")
        interval = _interval(inputs, both, difference)
        rows.append(
            {
                "method": one,
                "other_method": other,
                **_told("difference", interval),
                "n_users": interval["n"],
                "n_comparisons": int(np.sum(~np.isnan(difference))),
            }
        )
    return rows


def _checks(inputs: Inputs) -> list[Row]:
    """What equal responses and the second judge say; its win rate less the own judge's."""
    asked = inputs.read("win_check_judgments")
    own = inputs.read("win_judgments")
    cell = [*CELL, "presentation_order"]
    first = own.filter(pc.equal(own["repeat"], 0)).select([*cell, "verdict"]).to_pylist()
    verdicts = {tuple(row[name] for name in cell): row["verdict"] for row in first}
    own_values = cell_values(own)
    rows = []
    for kind in sorted(set(asked["check_kind"].to_pylist())):
        mine = asked.filter(pc.equal(asked["check_kind"], kind))
        compared = [
            (row["verdict"], verdicts.get(tuple(row[name] for name in cell)))
            for row in mine.to_pylist()
        ]
        values = cell_values(mine)
        interval = _interval(inputs, values, _wins(values))
        row = {
            "check_kind": kind,
            "judge_model": mine["judge_model"][0].as_py(),
            **check_rates(kind, compared),
            "n_users": interval["n"],
            "n_comparisons": int(np.sum(~np.isnan(_wins(values)))),
            **_told("win_rate", interval),
        }
        if kind != IDENTICAL:
            both = values.join(own_values, CELL, join_type="inner", right_suffix="_own")
            difference = _wins(both) - _wins(both, "win_own")
            row |= _told("difference", _interval(inputs, both, difference))
        rows.append(row)
    return rows


def _wins(table: pa.Table, column: str = "win") -> NDArray[np.float64]:
    return np.asarray(table[column].to_numpy(zero_copy_only=False), np.float64)


def _length_gaps(table: pa.Table, text: dict[str, str]) -> NDArray[np.float64]:
    """Characters that the personalized response has more than the base."""
    pairs = zip(
        table["response_id"].to_pylist(), table["base_response_id"].to_pylist(), strict=True
    )
    return np.array([len(text[one]) - len(text[base]) for one, base in pairs], np.float64)


def _resampling(inputs: Inputs) -> dict[str, Any]:
    return {name: inputs.config[name] for name in ("draws", "level", "seed")}


def _interval(inputs: Inputs, table: pa.Table, values: NDArray[np.float64]) -> dict[str, Any]:
    from pref_model.win_rates import nested_bootstrap_mean

    personas = sorted(set(table["persona_id"].to_pylist()))
    users = rows_of(table["persona_id"], personas)
    return nested_bootstrap_mean(users, values, **_resampling(inputs))._asdict()


def _told(name: str, interval: dict[str, Any]) -> Row:
    return {f"{name}_{part}": _known(interval[part]) for part in ("mean", "low", "high")}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


STAGE = Stage(
    name="win_rates",
    reads=(
        "pool_responses", "taste_summaries", "personal_responses", "selections", "win_judgments",
        "win_check_judgments",
    ),
    writes=("win_rates", "win_differences", "win_checks"),
    module=__name__,
    build=build,
)  # fmt: skip
