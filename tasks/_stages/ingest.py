"""Prompts from a file (or our own starter set) and the 84 personas of the Attributes data."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tasks._seeds import stable_shuffle
from tasks._stages.stage import Inputs, Output, Stage
from tasks.errors import InputRejected
from warehouse.forgotten import is_forgotten
from warehouse.tables import TABLES

TEXT_COLUMNS = ("prompt_text", "instruction", "prompt", "text", "question")
ID_COLUMNS = ("prompt_id", "id")
LAYOUTS = "Parquet (.parquet), JSON lines (.jsonl), CSV (.csv) or a JSON array (.json)"


def describe_prompts(path: str | None) -> dict[str, Any]:
    """What of the prompt file enters the version: its name and content hash, never its folder.

    Raises:
        InputRejected: There is no such file.
    """
    if path is None:
        shipped = (files("prompts") / "starter_prompts.jsonl").read_bytes()
        return {"prompt_source": "starter", "prompt_sha256": _sha256(shipped)}
    file = Path(path)
    if not file.is_file():
        raise InputRejected(
            f"prompts: {path} is not a file; expected {LAYOUTS}; check the path given to --prompts"
        )
    return {
        "prompt_source": file.name,
        "prompt_sha256": _sha256(file.read_bytes()),
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_prompt_file(path: Path) -> list[tuple[str, str]]:
    """(id, text) of every prompt in a file.

    A text column is the first present of `TEXT_COLUMNS`, an id column the first present of
    `ID_COLUMNS`; without one, ids are made from the row number. AlpacaEval's JSON array, with
    ``instruction`` in each object, is one of the layouts.

    Raises:
        InputRejected: The layout, the columns, empty texts or repeated ids; all faults of the
            rows in one line.
    """
    table = _load(path)
    text_column = next((c for c in TEXT_COLUMNS if c in table.column_names), None)
    if text_column is None:
        raise InputRejected(
            f"prompts: {path} has columns {', '.join(table.column_names) or 'none'}; expected one"
            f" of {', '.join(TEXT_COLUMNS)}; rename the column that holds the prompt"
        )
    id_column = next((c for c in ID_COLUMNS if c in table.column_names), None)
    texts = table[text_column].to_pylist()
    ids: list[str | None] = (
        [None if one is None else str(one) for one in table[id_column].to_pylist()]
        if id_column
        else [f"row{number:06d}" for number in range(len(texts))]
    )
    return _checked(path, ids, texts)


def _load(path: Path) -> pa.Table:
    readers = {
        ".parquet": lambda: pyarrow.parquet.read_table(path),
        ".csv": lambda: pyarrow.csv.read_csv(path, parse_options=_csv_options()),
        ".jsonl": lambda: _records(path, _json_lines(path)),
        ".json": lambda: _records(path, json.loads(path.read_text("utf-8"))),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputRejected(
            f"prompts: {path} ends in {path.suffix or 'nothing'}; expected {LAYOUTS}; convert it"
        )
    try:
        return reader()
    except (pa.ArrowInvalid, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputRejected(
            f"prompts: {path} could not be read as {path.suffix}: {reason}; expected {LAYOUTS};"
            " repair or convert the file"
        ) from error


def _csv_options() -> Any:
    return pyarrow.csv.ParseOptions(newlines_in_values=True)


def _json_lines(path: Path) -> list[Any]:
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _records(path: Path, records: Any) -> pa.Table:
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise InputRejected(
            f"prompts: {path} holds {type(records).__name__}; expected a list of objects, each"
            " with the prompt under 'instruction' or 'prompt'; convert it"
        )
    names = sorted({name for one in records for name in one if isinstance(one[name], str | int)})
    return pa.table({name: [_text(one.get(name)) for one in records] for name in names})


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _checked(path: Path, ids: list[str | None], texts: list[Any]) -> list[tuple[str, str]]:
    faults: list[str] = []
    empty = [row + 1 for row, text in enumerate(texts) if not str(text or "").strip()]
    if empty:
        faults.append(f"{len(empty)} empty prompts (rows {_some(empty)})")
    nameless = [row + 1 for row, one in enumerate(ids) if not one]
    if nameless:
        faults.append(f"{len(nameless)} rows without id (rows {_some(nameless)})")
    seen: set[str | None] = set()
    twice = sorted({one for one in ids if one and (one in seen or seen.add(one))})  # type: ignore[func-returns-value]
    if twice:
        faults.append(f"{len(twice)} duplicate ids ({_some(twice)})")
    if not texts:
        faults.append("no rows")
    if faults:
        raise InputRejected(
            f"prompts: {path} has {'; '.join(faults)}; expected one non-empty prompt a row under"
            " its own id; nothing was imported, repair the file and run again"
        )
    return [(str(one), str(text)) for one, text in zip(ids, texts, strict=True)]


def _some(values: list[Any]) -> str:
    shown = ", ".join(str(one) for one in values[:3])
    return f"{shown}, …" if len(values) > 3 else shown


def build(inputs: Inputs) -> dict[str, Output]:
    """Draws the prompts of this run and lists its personas."""
    from prompts.personas import attribute_personas
    from prompts.starter import starter_prompts

    config = inputs.config
    path = inputs.plan.places.get("prompts")
    found = (
        read_prompt_file(Path(path))
        if path
        else [(one.prompt_id, one.text) for one in starter_prompts()]
    )
    wanted = config["n_prompts"]
    if len(found) < wanted:
        raise InputRejected(
            f"prompts: {config['prompt_source']} has {len(found)} prompts; expected at least"
            f" ingest.n_prompts = {wanted}; add prompts or pass --set ingest.n_prompts={len(found)}"
        )
    text_of = dict(found)
    chosen = sorted(stable_shuffle(config["seed"], "prompts", text_of)[:wanted])
    prompts = pa.table(
        {
            "prompt_id": chosen,
            "prompt_text": [text_of[one] for one in chosen],
            "prompt_source": [config["prompt_source"]] * wanted,
        },
        TABLES["prompts"].schema,
    )
    marks = config.get("forgotten", ())
    everyone = {
        one.persona_id: one
        for one in attribute_personas()
        if not is_forgotten(one.persona_id, marks)
    }
    n_personas = min(config["n_personas"] or len(everyone), len(everyone))
    kept = sorted(stable_shuffle(config["seed"], "personas", everyone)[:n_personas])
    personas = pa.table(
        {
            "persona_id": kept,
            "persona_kind": ["attributes"] * n_personas,
            "trait_1": [everyone[one].traits[0] for one in kept],
            "trait_2": [everyone[one].traits[1] for one in kept],
            "profile_text": [everyone[one].profile for one in kept],
            "system_text": pa.nulls(n_personas, pa.string()),
        },
        TABLES["personas"].schema,
    )
    return {"prompts": Output(prompts), "personas": Output(personas)}


STAGE = Stage(
    name="ingest",
    reads=(),
    writes=("prompts", "personas"),
    module=__name__,
    build=build,
)
