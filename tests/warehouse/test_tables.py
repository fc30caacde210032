import pyarrow as pa
import pytest

from warehouse.errors import DatasetMissing
from warehouse.fields import FIELDS
from warehouse.tables import TABLES, Table, table_named

EACH_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def test_every_field_is_used_and_every_column_is_a_field() -> None:
    assert {name for table in TABLES.values() for name in table.columns} == set(FIELDS)


def test_fields_are_declared_once() -> None:
    from warehouse import fields, tables

    assert len(fields._DECLARED) == len(FIELDS)
    assert len(tables._DECLARED) == len(TABLES)


def test_every_field_is_described_in_a_sentence() -> None:
    for field in FIELDS.values():
        assert field.description.endswith("."), field.name
        assert len(field.description) > 15, field.name
        assert "\n" not in field.description


def test_names_tell_types_units_and_bounds() -> None:
    for name, field in FIELDS.items():
        if name.endswith("_prob"):
            assert (field.type, field.unit) == (pa.float64(), "probability")
            assert (field.low, field.high) == (0.0, 1.0)
        if name.endswith("_logit"):
            assert (field.type, field.unit) == (pa.float64(), "logit")
        if name.startswith("n_"):
            assert (field.type, field.low) == (pa.int64(), 0)
            assert field.unit is not None
        if name.endswith(("_id", "_key", "_sha256", "_text")):
            assert field.type == pa.string()
        assert name.startswith(("is_", "has_")) == pa.types.is_boolean(field.type), name


@EACH_TABLE
def test_table_says_what_a_row_and_an_absent_row_mean(table: Table) -> None:
    assert table.grain.startswith("One row is ")
    assert table.grain.endswith(".")
    assert table.absent.endswith(".")


@EACH_TABLE
def test_key_columns_exist_and_are_never_null(table: Table) -> None:
    assert table.key
    assert set(table.key) <= set(table.columns)
    assert not set(table.key) & table.nullable
    assert table.nullable <= set(table.columns)
    assert len(set(table.columns)) == len(table.columns)


@EACH_TABLE
def test_foreign_keys_point_at_a_key_of_the_same_type(table: Table) -> None:
    for column, targets in table.foreign.items():
        assert column in table.columns
        for target in targets:
            other, _, name = target.partition(".")
            assert TABLES[other].key == (name,)
            assert FIELDS[name].type == FIELDS[column].type


@EACH_TABLE
def test_alternatives_to_null_are_nullable_columns(table: Table) -> None:
    for pair in table.one_null:
        assert set(pair) <= table.nullable


@EACH_TABLE
def test_schema_carries_null_flags_descriptions_and_units(table: Table) -> None:
    assert tuple(table.schema.names) == table.columns
    for column in table.schema:
        declared = FIELDS[column.name]
        assert column.type == declared.type
        assert column.nullable == (column.name in table.nullable)
        assert column.metadata[b"description"].decode() == declared.description
        assert (column.metadata.get(b"unit") is None) == (declared.unit is None)


def test_schema_id_follows_columns_keys_and_null_flags() -> None:
    def variant(**changes: object) -> str:
        values = {"name": "t", "grain": "g", "absent": "a", "key": ("auc",)}
        values |= {"columns": ("auc", "side")}
        return Table(**(values | changes)).schema_id  # type: ignore[arg-type]

    different = [
        variant(),
        variant(columns=("side", "auc")),
        variant(key=("side",)),
        variant(nullable=frozenset({"side"})),
        variant(columns=("auc", "rule")),
    ]
    assert len(set(different)) == len(different)
    assert variant() == variant(grain="said better")


def test_an_unknown_table_is_named_with_the_known_ones() -> None:
    with pytest.raises(DatasetMissing, match="'prompt' is not known; expected one of prompts"):
        table_named("prompt")
