"""What of one person a warehouse holds, and the removal of whole dataset versions that hold it.

A version is immutable and named by what it was made from, so none is edited: every version that
holds the person, or was made from one that does, goes as a whole and is made again without the
person. The call ledger is searched by whoever knows how texts stand in requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.forward import parents_first
from warehouse.manifest import Manifest
from warehouse.store import Warehouse
from warehouse.tables import TABLES

_ID_COLUMNS = ("persona_id", "toward_persona_id", "shown_persona_id", "author_id")
# Columns that name a person only where another column says so.
_KINDS = {"entity_id": "entity_kind", "slice_id": "slice_kind"}
_TEXT_COLUMNS = (
    "prompt_text", "response_text", "profile_text", "system_text", "reply_text", "summary_text",
)  # fmt: skip
# Shorter texts ("Hello!") are in others' texts too, so they count only where they stand alone.
LONG = 40

Key = tuple[str, str]


class Person(NamedTuple):
    """What a warehouse knows of a person.

    Attributes:
        person_id: The id.
        kinds: Families of users it was found in, see the column ``persona_kind``.
        words: What the person wrote, or was written of the person: profile, prompts.
        derived: What models wrote for the person, or in answer to the person's prompts.
        request_keys: Calls that rows about the person rest on.
    """

    person_id: str
    kinds: tuple[str, ...]
    words: frozenset[str]
    derived: frozenset[str]
    request_keys: frozenset[str]

    @property
    def long_texts(self) -> list[str]:
        """Texts that are nobody else's wherever they stand, sorted."""
        return sorted(one for one in self.words | self.derived if len(one) >= LONG)

    @property
    def short_texts(self) -> list[str]:
        """The person's words that count only where they stand alone, sorted."""
        return sorted(one for one in self.words if len(one) < LONG)


class Affected(NamedTuple):
    """One version that has to go, and why."""

    manifest: Manifest
    why: str


def find_person(warehouse: Warehouse, person_id: str) -> Person:
    """Gathers what every version in a warehouse knows of a person; nothing if it is unknown."""
    kinds: set[str] = set()
    words: set[str | None] = set()
    derived: set[str | None] = set()
    keys: set[str] = set()
    for one in warehouse.manifests():
        if one.dataset == "personas":
            for row in _rows(warehouse, one, "persona_id", person_id):
                kinds.add(row["persona_kind"])
                words |= {row["profile_text"], row["system_text"]}
        elif one.dataset == "openings":
            opened = _rows(warehouse, one, "author_id", person_id)
            kinds |= {"generated" if row["is_generated"] else "prism" for row in opened}
            words |= {row["prompt_text"] for row in opened}
            ids = [row["opening_id"] for row in opened]
            derived |= _texts_of(warehouse, "opening_responses", one.version, "opening_id", ids)
        elif one.dataset == "answers":
            prompts = _prompts_of(warehouse, one, person_id)
            texts = _texts_of(warehouse, "prompts", one.version, "prompt_id", prompts)
            words |= texts
            derived |= _texts_of(warehouse, "responses", one.version, "prompt_id", prompts)
        # What models wrote for the person, or of what the person had chosen.
        for column, text in (
            ("toward_persona_id", "response_text"),
            ("persona_id", "summary_text"),
        ):
            if {column, text} <= set(TABLES[one.dataset].columns):
                derived |= {row[text] for row in _rows(warehouse, one, column, person_id)}
        if "request_key" in TABLES[one.dataset].columns:
            keys |= _keys_of(warehouse, one, person_id)
    return Person(
        person_id,
        tuple(sorted(kinds)),
        frozenset(one.strip() for one in words if one and one.strip()),
        frozenset(one.strip() for one in derived if one and one.strip()),
        frozenset(keys),
    )


def affected(warehouse: Warehouse, person: Person, keys: Iterable[str]) -> list[Affected]:
    """Every version that has to go with a person, parents before children.

    Args:
        warehouse: Where to look; every version is looked at, not only current ones.
        person: Who.
        keys: Calls that leave the ledger.
    """
    gone = pa.array(sorted(keys), pa.string())
    manifests = parents_first(warehouse.manifests())
    direct: dict[Key, str] = {}
    for one in manifests:
        why = _direct(warehouse, one, person, gone)
        if why is not None:
            direct[one.dataset, one.version] = why
    # Datasets that one stage committed together refer to each other without being parents.
    while siblings := _siblings(manifests, direct):
        direct |= siblings
    found: dict[Key, Affected] = {}
    for one in manifests:
        key = (one.dataset, one.version)
        via = [name for name, version in sorted(one.parents.items()) if (name, version) in found]
        if key in direct:
            found[key] = Affected(one, direct[key])
        elif via:
            more = f" and {len(via) - 3} more" if len(via) > 3 else ""
            found[key] = Affected(one, f"made from {', '.join(via[:3])}{more}")
    return list(found.values())


def _siblings(manifests: Iterable[Manifest], direct: Mapping[Key, str]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for one in manifests:
        targets = {
            target.partition(".")[0]
            for several in TABLES[one.dataset].foreign.values()
            for target in several
        }
        near = sorted(name for name in targets if (name, one.version) in direct)
        if near and (one.dataset, one.version) not in direct:
            found[one.dataset, one.version] = f"its rows refer to {', '.join(near)}"
    return found


def people_in(warehouse: Warehouse, one: Manifest) -> set[str]:
    """The ids of all people whom rows of a version name."""
    return set().union(
        *(column.drop_null().unique().to_pylist() for column in _ids(warehouse, one))
    )


def _direct(warehouse: Warehouse, one: Manifest, person: Person, gone: pa.Array) -> str | None:
    """Why a version holds the person itself; None if it does not."""
    named = sum(_count(pc.equal(ids, person.person_id)) for ids in _ids(warehouse, one))
    if named:
        return f"{named:,} rows name the person"
    columns = [name for name in _TEXT_COLUMNS if name in TABLES[one.dataset].columns]
    held = 0
    for batch in warehouse.batches(one.dataset, one.version, columns) if columns else ():
        for name in columns:
            held += _n_holding(batch.column(name), person)
    if held:
        return f"{held:,} rows hold the person's texts"
    if "request_key" in TABLES[one.dataset].columns and len(gone):
        rows = warehouse.read(one.dataset, one.version, ["request_key"])
        resting = _count(pc.is_in(rows["request_key"], value_set=gone))
        if resting:
            return f"{resting:,} rows rest on removed calls"
    return None


def _n_holding(texts: pa.Array, person: Person) -> int:
    trimmed = pc.utf8_trim_whitespace(texts)
    found = pc.is_in(trimmed, value_set=pa.array(person.short_texts, pa.string()))
    for text in person.long_texts:
        found = pc.or_(found, pc.fill_null(pc.match_substring(texts, text), False))
    return _count(found)


def _count(matches: pa.Array | pa.ChunkedArray) -> int:
    return int(pc.sum(matches).as_py() or 0)


def _ids(warehouse: Warehouse, one: Manifest) -> list[pa.ChunkedArray]:
    """Every column of a version that names people, without what names other things."""
    columns = TABLES[one.dataset].columns
    plain = [name for name in _ID_COLUMNS if name in columns]
    mixed = [name for name, kind in _KINDS.items() if name in columns and kind in columns]
    if not plain and not mixed:
        return []
    read = [*plain, *mixed, *(_KINDS[name] for name in mixed)]
    rows = warehouse.read(one.dataset, one.version, read)
    found = [rows[name] for name in plain]
    for name in mixed:
        found.append(rows.filter(pc.equal(rows[_KINDS[name]], "persona"))[name])
    return found


def _rows(warehouse: Warehouse, one: Manifest, column: str, value: str) -> list[dict[str, Any]]:
    rows = warehouse.read(one.dataset, one.version)
    found: list[dict[str, Any]] = rows.filter(pc.equal(rows[column], value)).to_pylist()
    return found


def _texts_of(
    warehouse: Warehouse, dataset: str, version: str, column: str, ids: Iterable[str]
) -> set[str | None]:
    """Texts of a sibling dataset, which its stage committed under the same version."""
    wanted = pa.array(sorted(ids), pa.string())
    if not len(wanted) or not warehouse.has(dataset, version):
        return set()
    text = "prompt_text" if dataset == "prompts" else "response_text"
    rows = warehouse.read(dataset, version, [column, text])
    return set(rows.filter(pc.is_in(rows[column], value_set=wanted))[text].to_pylist())


def _prompts_of(warehouse: Warehouse, one: Manifest, person_id: str) -> set[str]:
    """Prompts on which nobody but this person answered: taken for the person's own."""
    if not warehouse.has("pairs", one.version):
        return set()
    pairs = warehouse.read("pairs", one.version, ["pair_id", "prompt_id"])
    prompt_of = dict(zip(pairs["pair_id"].to_pylist(), pairs["prompt_id"].to_pylist(), strict=True))
    answers = warehouse.read("answers", one.version, ["persona_id", "pair_id"]).to_pylist()
    mine = {prompt_of[row["pair_id"]] for row in answers if row["persona_id"] == person_id}
    return mine - {prompt_of[row["pair_id"]] for row in answers if row["persona_id"] != person_id}


def _keys_of(warehouse: Warehouse, one: Manifest, person_id: str) -> set[str]:
    names = [name for name in _ID_COLUMNS if name in TABLES[one.dataset].columns]
    rows = warehouse.read(one.dataset, one.version, ["request_key", *names])
    found: set[str] = set()
    for name in names:
        found |= set(rows.filter(pc.equal(rows[name], person_id))["request_key"].to_pylist())
    return {key for key in found if key is not None}
