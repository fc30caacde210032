"""A team's own data as datasets: texts, users, pairs, answers, and the matrix they make.

No model is asked anything: whatever is here was said by real users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tasks._seeds import stable_integer
from tasks._stages.own_files import OwnData, read_own
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.forgotten import is_forgotten
from warehouse.tables import TABLES


class OrientedPair(NamedTuple):
    """Two responses, and which of them is A."""

    pair_id: str
    response_a_id: str
    response_b_id: str


def orient(one: str, other: str) -> OrientedPair:
    """The pair of two responses, the same whichever comes first.

    Which one is A is drawn by hash of both ids: files often name the winner first, and a matrix
    whose every answer is "A" leaves nothing to rank.
    """
    low, high = sorted((one, other))
    a, b = (low, high) if stable_integer(0, "orientation", low, high) % 2 else (high, low)
    # Ids are the team's own and may hold any separator, so the name is a hash of both.
    name = hashlib.sha256(f"{len(a)}:{a}{b}".encode()).hexdigest()[:20]
    return OrientedPair(f"pair-{name}", a, b)


def tables_of(data: OwnData) -> dict[str, pa.Table]:
    """The rows of ``prompts``, ``personas``, ``responses``, ``pairs`` and ``answers``.

    Raises:
        InputRejected: Nothing is left once pairs of equal texts are gone.
    """
    pairs: dict[str, dict[str, Any]] = {}
    answers = []
    for number, answer in data.answers:
        first, second = (
            data.responses[one] for one in (answer.response_a_id, answer.response_b_id)
        )
        # Between equal texts there is nothing to prefer.
        if first.text == second.text:
            continue
        pair = orient(answer.response_a_id, answer.response_b_id)
        pairs[pair.pair_id] = {**pair._asdict(), "prompt_id": first.prompt_id}
        is_swapped = pair.response_a_id != answer.response_a_id
        answers.append(
            {
                "answer_row": number,
                "persona_id": answer.user_id,
                "pair_id": pair.pair_id,
                "answer_prob": 1.0 - answer.preference if is_swapped else answer.preference,
                "answer_weight": answer.weight,
                "answered_at": answer.answered_at,
                "is_swapped": is_swapped,
            }
        )
    if not answers:
        raise InputRejected(
            f"data: all {len(data.answers)} answers are about two responses of the same text;"
            " expected some that differ; check response_a_id and response_b_id"
        )
    prompts = [
        {"prompt_id": one, "prompt_text": data.prompts[one], "prompt_source": "own"}
        for one in sorted(data.prompts)
    ]
    personas = [
        {
            "persona_id": one,
            "persona_kind": "own",
            "profile_text": data.users[one].profile,
            "system_text": data.users[one].system,
        }
        for one in sorted(data.users)
    ]
    responses = [
        {
            "response_id": one,
            "prompt_id": data.responses[one].prompt_id,
            "response_role": "own",
            "response_text": data.responses[one].text,
            "response_model": data.responses[one].model,
        }
        for one in sorted(data.responses)
    ]
    rows: dict[str, list[dict[str, Any]]] = {
        "prompts": prompts,
        "personas": personas,
        "responses": responses,
        "pairs": [pairs[one] for one in sorted(pairs)],
        "answers": answers,
    }
    return {name: pa.Table.from_pylist(some, TABLES[name].schema) for name, some in rows.items()}


def without(data: OwnData, marks: Sequence[str]) -> OwnData:
    """The data less some users: their answers, and the prompts on which nobody else answered.

    Args:
        data: Rows as they were handed in.
        marks: Who is left out, as `warehouse.forgotten` writes it.
    """
    gone = {one for one in data.users if is_forgotten(one, marks)}
    if not gone:
        return data
    prompt_of = {
        number: data.responses[answer.response_a_id].prompt_id for number, answer in data.answers
    }
    theirs = {prompt_of[number] for number, answer in data.answers if answer.user_id in gone}
    others = {prompt_of[number] for number, answer in data.answers if answer.user_id not in gone}
    dropped = theirs - others
    return data._replace(
        prompts={one: text for one, text in data.prompts.items() if one not in dropped},
        responses={one: row for one, row in data.responses.items() if row.prompt_id not in dropped},
        users={one: row for one, row in data.users.items() if one not in gone},
        answers=[(number, one) for number, one in data.answers if one.user_id not in gone],
    )


def build_ingest(inputs: Inputs) -> dict[str, Output]:
    """Reads the files as a whole, or refuses them as a whole."""
    folder = inputs.plan.places.get("own")
    if folder is None:
        raise InputRejected(
            "data: what was imported last was read by another release of this program; expected"
            " the same; import the folder again with `pref ingest`, or pass --data"
        )
    data = without(read_own(folder), inputs.config.get("forgotten", ()))
    return {name: Output(rows) for name, rows in tables_of(data).items()}


def cells_of(answers: pa.Table) -> pa.Table:
    """One row a (persona, pair): weighted mean answer, summed weight, rows, first and last time.

    Columns: ``persona_id``, ``pair_id``, ``preference_prob``, ``weight``, ``n_answers``,
    ``answered_at`` (of the first answer, null unless every row has a time).
    """
    weight = answers["answer_weight"]
    table = answers.append_column("said", pc.multiply(answers["answer_prob"], weight))
    cells = table.group_by(["persona_id", "pair_id"]).aggregate(
        [
            ("said", "sum"),
            ("answer_weight", "sum"),
            ("answer_row", "count"),
            ("answered_at", "count"),
            ("answered_at", "min"),
        ]
    )
    mean = pc.divide(cells["said_sum"], cells["answer_weight_sum"])
    is_timed = pc.equal(cells["answered_at_count"], cells["answer_row_count"])
    found = pa.table(
        {
            "persona_id": cells["persona_id"],
            "pair_id": cells["pair_id"],
            # Rounding must not leave [0, 1].
            "preference_prob": pc.min_element_wise(pc.max_element_wise(mean, 0.0), 1.0),
            "weight": cells["answer_weight_sum"],
            "n_answers": cells["answer_row_count"],
            "answered_at": pc.if_else(is_timed, cells["answered_at_min"], None),
        }
    )
    return found.sort_by([("persona_id", "ascending"), ("pair_id", "ascending")])


def build_preferences(inputs: Inputs) -> dict[str, Output]:
    """Answers to ``preferences``: repeated answers of a user to a pair are averaged by weight."""
    cells = cells_of(inputs.read("answers"))
    rows = pa.table(
        {
            "persona_id": cells["persona_id"],
            "pair_id": cells["pair_id"],
            "preference_prob": cells["preference_prob"],
            "n_valid": cells["n_answers"],
            "n_asked": cells["n_answers"],
            "is_tie": pc.equal(cells["preference_prob"], 0.5),
        }
    )
    return {"preferences": Output(rows.cast(TABLES["preferences"].schema))}


INGEST_STAGE = Stage(
    name="ingest_own",
    reads=(),
    writes=("prompts", "personas", "responses", "pairs", "answers"),
    module=__name__,
    build=build_ingest,
)
ASSEMBLE_STAGE = Stage(
    name="assemble_own",
    reads=("personas", "pairs", "answers"),
    writes=("preferences",),
    module=__name__,
    build=build_preferences,
)
