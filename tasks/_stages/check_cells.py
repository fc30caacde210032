"""Which further questions are put to judges to check them: drawn by hash, never trained on.

Kinds of checks:

* ``null_persona``: the judge is told nothing of the person. ``swapped_persona``: it is given
  another person's profile. Where it answers as before, the persona was of no use to it.
* ``repeat``: the same question again. How far a judge agrees with itself bounds all else.
* ``identical``: both responses are the same text, so that only the position can decide.
* ``second_judge``: another model, on cells from every band of how much longer one response is.
* ``human``: a participant's own choice between two responses, put to the judge.

It names the cells; `tasks._stages.check` asks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks._seeds import stable_integer
from tasks._stages.judge_audit import LENGTH_GAPS, gap_of_lengths
from tasks._stages.priorities import priorities
from tasks._stages.stage import Inputs

CONTROLS = ("null_persona", "swapped_persona", "repeat", "identical")
SECOND_JUDGE, HUMAN = "second_judge", "human"
CHECKS = (*CONTROLS, SECOND_JUDGE, HUMAN)
# Parts an item of the human check consists of: the response chosen, then the other one.
SEPARATOR = "|"


class CheckCell(NamedTuple):
    """One question: who is played (None: nobody), on what.

    Attributes:
        kind: One of `CHECKS`.
        persona_id: Whose cell it is.
        item_id: The pair, or the two responses of the data set (chosen first) and a separator.
        shown_persona_id: Whose profile the judge gets; None for nobody's.
    """

    kind: str
    persona_id: str
    item_id: str
    shown_persona_id: str | None


def check_cells(inputs: Inputs) -> list[CheckCell]:
    """All questions of a run, by kind in the order of `CHECKS`, then by persona and item."""
    config = inputs.config
    found: list[CheckCell] = []
    if config["control_share"] or (config["second_judge_model"] and config["sample"]):
        found += _of_design(inputs)
    if config["human_sample"] and "openings" in inputs.plan.parents:
        found += _human(inputs)
    place = {kind: number for number, kind in enumerate(CHECKS)}
    return sorted(found, key=lambda one: (place[one.kind], one.persona_id, one.item_id))


def _of_design(inputs: Inputs) -> list[CheckCell]:
    config = inputs.config
    personas = inputs.read("personas")["persona_id"].to_pylist()
    pairs = inputs.read("pairs")["pair_id"].to_pylist()
    design = inputs.read("design").to_pydict()
    row = {one: number for number, one in enumerate(personas)}
    column = {one: number for number, one in enumerate(pairs)}
    rows = np.array([row[one] for one in design["persona_id"]], np.int64)
    columns = np.array([column[one] for one in design["pair_id"]], np.int64)
    seed = config["seed"]
    drawn = priorities(seed, "control", personas, pairs)[rows, columns]
    kinds = priorities(seed, "control kind", personas, pairs)[rows, columns] % len(CONTROLS)
    chosen = np.flatnonzero(drawn < np.uint64(round(config["control_share"] * (2**64 - 1025))))
    cells = []
    for at in chosen if config["control_share"] else ():
        persona, pair = design["persona_id"][at], design["pair_id"][at]
        kind = CONTROLS[int(kinds[at])]
        shown: str | None = persona
        if kind == "null_persona":
            shown = None
        elif kind == "swapped_persona":
            shown = _another(seed, personas, persona, pair)
        cells.append(CheckCell(kind, persona, pair, shown))
    if config["second_judge_model"]:
        keys = priorities(seed, "second judge", personas, pairs)[rows, columns]
        bands = _bands(inputs, pairs)[columns]
        for at in stratified(keys, bands, config["sample"]):
            persona, pair = design["persona_id"][at], design["pair_id"][at]
            cells.append(CheckCell(SECOND_JUDGE, persona, pair, persona))
    return cells


def _another(seed: int, personas: list[str], persona: str, pair: str) -> str | None:
    others = [one for one in personas if one != persona]
    return others[stable_integer(seed, "swap", persona, pair) % len(others)] if others else None


def _bands(inputs: Inputs, pairs: list[str]) -> NDArray[np.int64]:
    text = inputs.lookup("responses", "response_id", "response_text")
    first = inputs.lookup("pairs", "pair_id", "response_a_id")
    second = inputs.lookup("pairs", "pair_id", "response_b_id")
    a = np.array([len(text[first[one]] or "") for one in pairs])
    b = np.array([len(text[second[one]] or "") for one in pairs])
    return gap_of_lengths(a, b)


def stratified(
    keys: NDArray[np.uint64], bands: NDArray[np.int64], wanted: int
) -> NDArray[np.int64]:
    """The cells of least key, as many from each band as there are, up to an equal share."""
    share = -(-wanted // len(LENGTH_GAPS))
    picked = []
    for band in range(len(LENGTH_GAPS)):
        mine = np.flatnonzero(bands == band)
        picked.append(mine[np.argsort(keys[mine], kind="stable")][:share])
    return np.sort(np.concatenate(picked))


def _human(inputs: Inputs) -> list[CheckCell]:
    """Choices that participants of the run made themselves, one response against another."""
    known = set(inputs.read("personas")["persona_id"].to_pylist())
    author = inputs.lookup("openings", "opening_id", "author_id")
    by_opening: dict[str, dict[bool, list[str]]] = {}
    for row in inputs.read("opening_responses").to_pylist():
        if author[row["opening_id"]] in known and row["is_chosen"] is not None:
            sides = by_opening.setdefault(row["opening_id"], {True: [], False: []})
            sides[row["is_chosen"]].append(row["response_id"])
    cells = [
        CheckCell(HUMAN, author[opening], f"{chosen}{SEPARATOR}{other}", author[opening])
        for opening, sides in by_opening.items()
        for chosen in sides[True]
        for other in sides[False]
    ]
    seed = inputs.config["seed"]
    cells.sort(key=lambda one: stable_integer(seed, "human", one.persona_id, one.item_id))
    return cells[: inputs.config["human_sample"]]
