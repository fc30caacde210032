"""What the checks say of the judge: rates with intervals, agreement, what another judge changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks._convert import index_of, vectors
from tasks._stages.check_cells import CHECKS, HUMAN, SECOND_JUDGE
from tasks._stages.judge_audit import JUDGED
from tasks._stages.stage import Inputs, Output, Stage
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from pref_model.judge_effect import FactorAgreement

CERTAINTY_BANDS = (("0 to 49", 50.0), ("50 to 79", 80.0), ("80 to 100", np.inf))
NO_CERTAINTY = "not told"
# Fewer cells than this say nothing of factors.
LEAST_CELLS = 40

Row = dict[str, Any]


def build(inputs: Inputs) -> dict[str, Output]:
    """Writes ``judge_checks``: one row a check, and for human choices one a band of certainty."""
    asked = inputs.read("check_judgments").to_pylist()
    rows: list[Row] = []
    if asked:
        own = _own_verdicts(inputs, asked)
        for kind in CHECKS:
            mine = [row for row in asked if row["check_kind"] == kind]
            for slice_id, part in _parts(kind, mine):
                compared = [(row["verdict"], _other(kind, row, own)) for row in part]
                rows.append(
                    {"check_kind": kind, "slice_id": slice_id, **check_rates(kind, compared)}
                )
        effect = _factor_effect(inputs, asked)
        for row in rows:
            if effect is not None and row["check_kind"] == SECOND_JUDGE:
                row |= effect._asdict()
    rows.sort(key=lambda row: (row["check_kind"], row["slice_id"]))
    return {"judge_checks": Output(pa.Table.from_pylist(rows, TABLES["judge_checks"].schema))}


def _cell(row: Row, item: str) -> tuple[str, str, str]:
    return row["persona_id"], row[item], row["presentation_order"]


def _own_verdicts(inputs: Inputs, asked: list[Row]) -> dict[tuple[str, str, str], str | None]:
    """The run's own first verdict in each of the cells that were checked."""
    wanted = {_cell(row, "item_id") for row in asked}
    found = {}
    for row in inputs.read("judgments", JUDGED).to_pylist():
        key = _cell(row, "pair_id")
        if row["repeat"] == 0 and key in wanted:
            found[key] = row["verdict"]
    return found


def _parts(kind: str, rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
    if rows:
        yield "all", rows
    if kind == HUMAN:
        for band in (*(name for name, _ in CERTAINTY_BANDS), NO_CERTAINTY):
            part = [row for row in rows if _band(row["certainty"]) == band]
            if part:
                yield f"certainty {band}", part


def _band(certainty: float | None) -> str:
    if certainty is None:
        return NO_CERTAINTY
    return next(name for name, end in CERTAINTY_BANDS if certainty < end)


def check_rates(kind: str, answers: list[tuple[str | None, str | None]]) -> Row:
    """How often a judge says what it is compared with, in the same order, and the first position.

    Args:
        kind: The check; with ``identical`` there is nothing to compare with.
        answers: Verdict, and the one it is compared with; None where there is none.
    """
    from pref_model.agreement import cohen_kappa, krippendorff_alpha, share

    told = [(one, other) for one, other in answers if one is not None]
    compared = [pair for pair in told if pair[1] is not None and kind != "identical"]
    same = share(sum(one == other for one, other in compared), len(compared))
    first = share(sum(one == "first" for one, _ in told), len(told))
    codes = np.array(
        [[float(one == "first"), float(other == "first")] for one, other in compared]
    ).reshape(-1, 2)
    return {
        "n_judgments": len(answers),
        "n_unparsed": len(answers) - len(told),
        "n_compared": len(compared),
        "agreement_share": _known(same.share),
        "agreement_low": _known(same.low),
        "agreement_high": _known(same.high),
        "kappa": _known(cohen_kappa(codes[:, 0], codes[:, 1])),
        "alpha": _known(krippendorff_alpha(codes.T)),
        "first_share": _known(first.share),
        "first_share_low": _known(first.low),
        "first_share_high": _known(first.high),
    }


def _other(kind: str, row: Row, own: dict[tuple[str, str, str], str | None]) -> str | None:
    """What a verdict is compared with: the participant's own choice, or the run's own verdict."""
    if kind == HUMAN:
        # The response that the participant chose is A.
        return "first" if row["presentation_order"] == "ab" else "second"
    return own.get(_cell(row, "item_id"))


def _factor_effect(inputs: Inputs, asked: list[Row]) -> FactorAgreement | None:
    """Fits the model on the first and on the second judge's labels of the same cells."""
    from pref_model.judge_effect import compare_factors

    second = [row for row in asked if row["check_kind"] == SECOND_JUDGE]
    personas = sorted({row["persona_id"] for row in second})
    pairs = sorted({row["item_id"] for row in second})
    own = [row for row in inputs.read("judgments", JUDGED).to_pylist() if row["repeat"] == 0]
    labels = [
        _labels(rows, item, index_of(personas), index_of(pairs))
        for rows, item in ((own, "pair_id"), (second, "item_id"))
    ]
    both = np.isfinite(labels[0]) & np.isfinite(labels[1])
    if both.sum() < LEAST_CELLS:
        return None
    embedded = inputs.read("embeddings")
    place = index_of(embedded["response_id"].to_pylist())
    embeddings = vectors(embedded["embedding"])
    sides = [inputs.lookup("pairs", "pair_id", f"response_{side}_id") for side in ("a", "b")]
    first, other = ([place[side[one]] for one in pairs] for side in sides)
    config = dict(inputs.config)
    return compare_factors(
        embeddings[first] - embeddings[other],
        *(np.where(both, one, np.nan) for one in labels),
        settings=config["fit"],
        seed=config["seed"],
    )


def _labels(rows: list[Row], item: str, users: dict[str, int], items: dict[str, int]) -> Any:
    """P(A preferred) as the mean over both orders; nan unless both have a verdict."""
    sums = np.full((2, len(users), len(items)), np.nan)
    for row in rows:
        user, column = users.get(row["persona_id"]), items.get(row[item])
        if user is not None and column is not None and row["verdict"] is not None:
            is_ab = row["presentation_order"] == "ab"
            sums[int(is_ab), user, column] = float((row["verdict"] == "first") == is_ab)
    return sums.mean(axis=0)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


STAGE = Stage(
    name="judge_checks",
    reads=("pairs", "judgments", "check_judgments", "embeddings"),
    writes=("judge_checks",),
    module=__name__,
    build=build,
)
