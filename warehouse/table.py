"""What a table is: its grain, key, columns, and what its columns point at. It names no dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from warehouse.canonical import sha256_json
from warehouse.fields import FIELDS

# What columns point at, as "table.column"s.
OPENING = ("openings.opening_id",)
OPENING_RESPONSE = ("opening_responses.response_id",)
PROMPT = ("prompts.prompt_id",)
PERSONA = ("personas.persona_id",)
PAIR = ("pairs.pair_id",)
PAIR_RESPONSE = ("responses.response_id",)
POOL_RESPONSE = ("pool_responses.response_id",)
ANY_RESPONSE = PAIR_RESPONSE + POOL_RESPONSE


@dataclass(frozen=True)
class Table:
    """One kind of dataset.

    Attributes:
        name: Dataset name.
        grain: What one row is, in one sentence.
        absent: What an absent row means, in one sentence.
        key: Columns that together name a row.
        columns: All columns in stored order.
        nullable: Columns that may be null.
        foreign: Column -> the "table.column"s of which at least one holds each value.
        one_null: Column pairs of which, in every row, exactly one is null.
    """

    name: str
    grain: str
    absent: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    nullable: frozenset[str] = frozenset()
    foreign: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    one_null: tuple[tuple[str, str], ...] = ()

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema: types, null flags, and description and unit as field metadata."""
        return pa.schema(
            [_arrow_field(name, is_nullable=name in self.nullable) for name in self.columns]
        )

    @cached_property
    def schema_id(self) -> str:
        """12 hex digits that change when a column's name, type, unit, null flag or the key does.

        Descriptions are left out: a better sentence does not make old data different.
        """
        columns = [
            [name, str(FIELDS[name].type), FIELDS[name].unit, name in self.nullable]
            for name in self.columns
        ]
        return sha256_json({"columns": columns, "key": list(self.key)})[:12]


def _arrow_field(name: str, *, is_nullable: bool) -> pa.Field:
    declared = FIELDS[name]
    metadata = {"description": declared.description}
    if declared.unit is not None:
        metadata["unit"] = declared.unit
    return pa.field(name, declared.type, nullable=is_nullable, metadata=metadata)
