"""What is on record of people who were forgotten: that it was done, never who they were.

A record holds a salted hash of the id, so that the id is recognized when it comes again. It holds
no name, no text and no call. It removes nothing itself.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime

from warehouse._json_reader import JsonReader
from warehouse.manifest import utc_text
from warehouse.store import Warehouse

_FOLDER = "forgotten"


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """One removal.

    Attributes:
        name: Random name of the record.
        mark: Salt and salted SHA-256 of the id, as `is_forgotten` reads it.
        kinds: Families of users the id was found in, see the column ``persona_kind``.
        began_at: When the removal began, UTC.
        finished_at: When nothing was left to remove, UTC; None if it was cut off.
        versions: "dataset version" -> content hash of everything that was removed.
        n_calls: Calls taken out of the ledger.
        cost_usd: What these had cost; None where a price was not known.
        n_exports: Exports whose files were removed.
    """

    name: str
    mark: str
    kinds: tuple[str, ...]
    began_at: datetime
    finished_at: datetime | None
    versions: Mapping[str, str]
    n_calls: int
    cost_usd: float | None
    n_exports: int


def new_mark(person: str) -> str:
    """Salt and salted hash of an id; another one each time."""
    salt = secrets.token_hex(16)
    return f"{salt}:{_hash(salt, person)}"


def is_forgotten(person: str, marks: Iterable[str]) -> bool:
    """Whether one of these marks is of this id."""
    return any(_hash(salt, person) == found for salt, _, found in (m.partition(":") for m in marks))


def _hash(salt: str, person: str) -> str:
    return hashlib.sha256(f"{salt}:{person}".encode()).hexdigest()


def tombstones(warehouse: Warehouse) -> list[Tombstone]:
    """Every record, oldest first.

    Raises:
        DatasetCorrupt: A record is not what was written.
    """
    found = [
        _parsed(data, f"{_FOLDER}/{name}") for name, data in warehouse.records(_FOLDER).items()
    ]
    return sorted(found, key=lambda one: (one.began_at, one.name))


def marks(warehouse: Warehouse, kinds: Iterable[str]) -> list[str]:
    """Marks of the people of some families who were forgotten here, sorted."""
    wanted = set(kinds)
    return sorted(one.mark for one in tombstones(warehouse) if wanted & set(one.kinds))


def tombstone_of(warehouse: Warehouse, person: str) -> Tombstone | None:
    """The record of an id; None if it was never forgotten."""
    return next((one for one in tombstones(warehouse) if is_forgotten(person, [one.mark])), None)


def write_tombstone(warehouse: Warehouse, one: Tombstone) -> None:
    """Stores a record in one step, replacing an earlier one of its name."""
    raw = asdict(one)
    raw["versions"] = dict(one.versions)
    raw["kinds"] = list(one.kinds)
    raw["began_at"] = utc_text(one.began_at, "began_at")
    raw["finished_at"] = one.finished_at and utc_text(one.finished_at, "finished_at")
    text = json.dumps(raw, indent=1, sort_keys=True, allow_nan=False)
    warehouse.write_record(_FOLDER, f"{one.name}.json", (text + "\n").encode())


def joined(older: Tombstone, newer: Tombstone) -> Tombstone:
    """One record of two removals of the same id: a removal cut off, or data that came back."""
    costs = (older.cost_usd, newer.cost_usd)
    return replace(
        newer,
        name=older.name,
        mark=older.mark,
        kinds=tuple(sorted({*older.kinds, *newer.kinds})),
        began_at=older.began_at,
        versions={**older.versions, **newer.versions},
        n_calls=older.n_calls + newer.n_calls,
        cost_usd=None if None in costs else sum(one for one in costs if one is not None),
        n_exports=older.n_exports + newer.n_exports,
    )


def _parsed(data: bytes, where: str) -> Tombstone:
    reader = JsonReader.parse(data, f"record of a removal {where}")
    reader.expect_keys({field.name for field in fields(Tombstone)})
    is_finished = reader.raw["finished_at"] is not None
    return Tombstone(
        name=reader.text("name"),
        mark=reader.text("mark"),
        kinds=reader.texts("kinds"),
        began_at=reader.moment("began_at"),
        finished_at=reader.moment("finished_at") if is_finished else None,
        versions=reader.text_mapping("versions"),
        n_calls=reader.count("n_calls"),
        cost_usd=reader.amount_or_none("cost_usd"),
        n_exports=reader.count("n_exports"),
    )
