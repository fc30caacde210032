"""Rows against the constraints their table declares: pure functions over Arrow data.

It reads no files and repairs nothing: a fault is reported, never filled in.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.errors import CheckFailed
from warehouse.fields import FIELDS, Field
from warehouse.tables import Table

MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Fault:
    """One broken constraint, over all rows that break it.

    Attributes:
        kind: Which constraint, one of `warehouse.fields.CONSTRAINTS`.
        column: Column or columns concerned.
        problem: What was found instead of what is declared.
        n_rows: Rows concerned.
        examples: Keys of up to three of them.
    """

    kind: str
    column: str
    problem: str
    n_rows: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        rows = "1 row" if self.n_rows == 1 else f"{self.n_rows} rows"
        return f"{self.column} {self.problem} in {rows} ({'; '.join(self.examples)})"


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """Bring rows to the table's column order and exact types, without changing a value.

    Narrower integers and floats, large and dictionary-encoded strings and all-null columns are
    converted; anything that could lose digits is refused.

    Args:
        table: The declared table.
        rows: Rows in any column order.

    Returns:
        The rows under ``table.schema``; null flags are not yet checked.

    Raises:
        CheckFailed: Columns are missing, unknown or repeated, or have another type; all such
            faults in one line.
    """
    faults = [
        f"column {name} is missing" for name in table.columns if name not in rows.schema.names
    ]
    faults += [
        f"column {name} is unknown" for name in rows.schema.names if name not in table.columns
    ]
    faults += [
        f"column {name} occurs twice" for name in table.columns if rows.schema.names.count(name) > 1
    ]
    columns = []
    for name in table.columns if not faults else ():
        wanted = FIELDS[name].type
        column = rows.column(name)
        try:
            columns.append(column if column.type == wanted else _widen(column, wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            faults.append(f"column {name} is {column.type}, expected {wanted}")
    if faults:
        raise CheckFailed(
            f"dataset {table.name}: {'; '.join(faults)}; expected columns "
            f"{', '.join(table.columns)}; nothing was stored, correct the stage and run again"
        )
    return pa.table(columns, schema=table.schema)


def _widen(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if not _is_widening(column.type, wanted):
        raise pa.ArrowInvalid("not a lossless conversion")
    return column.cast(wanted, safe=True)


def _is_widening(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(found):
        return _is_widening(found.value_type, wanted)
    if types.is_null(found) or found == wanted:
        return True
    if types.is_string(wanted):
        return bool(types.is_large_string(found) or types.is_string_view(found))
    if types.is_integer(wanted):
        return bool(types.is_integer(found))
    if types.is_floating(wanted):
        return bool(types.is_floating(found) and found.bit_width <= wanted.bit_width)
    if types.is_list(wanted):
        is_list = types.is_list(found) or types.is_large_list(found)
        is_list = is_list or types.is_fixed_size_list(found)
        return bool(is_list and _is_widening(found.value_type, wanted.value_type))
    return False


def check_rows(
    table: Table, rows: pa.Table, parents: Mapping[str, pa.ChunkedArray] | None = None
) -> tuple[Fault, ...]:
    """Check all of a dataset's rows at once.

    Args:
        table: The declared table.
        rows: Rows that `conform` accepts.
        parents: "table.column" -> the values that foreign keys may have.

    Returns:
        The faults, none if the rows keep every constraint.

    Raises:
        CheckFailed: The columns are not the table's.
    """
    checker = RowChecker(table, parents)
    checker.add(conform(table, rows))
    return checker.faults()


def key_of(table: Table) -> str:
    """How a fault names a table's key."""
    return f"key ({', '.join(table.key)})"


def declared_constraints(table: Table, known: Collection[str] = ()) -> list[tuple[str, str]]:
    """What `check_rows` looks at, as (kind, columns); a fault has the same two words.

    Args:
        table: The declared table.
        known: "table.column" of the values that foreign keys may have; a foreign key is looked at
            where it points to one of them or to the table itself.
    """
    found = [("key", key_of(table))]
    for name in table.columns:
        declared = FIELDS[name]
        is_list = pa.types.is_list(declared.type)
        if name not in table.nullable or is_list:
            found.append(("not_null", name))
        if declared.allowed is not None:
            found.append(("values", name))
        element = declared.type.value_type if is_list else declared.type
        is_float = pa.types.is_floating(element)
        if is_float or declared.low is not None or declared.high is not None:
            found.append(("range", name))
    found += [("exclusive", f"{one} and {other}") for one, other in table.one_null]
    for column, targets in table.foreign.items():
        here = {target for target in targets if target.partition(".")[0] == table.name}
        if here or set(targets) & set(known):
            found.append(("foreign_key", column))
    return found


@dataclass
class _Tally:
    n_rows: int = 0
    examples: list[str] = field(default_factory=list)


class RowChecker:
    """Checks rows group by group, keeping only keys and self-references between groups.

    A foreign key is checked only if at least one of the columns it may point to is known:
    given in ``parents``, or part of the table itself.
    """

    def __init__(self, table: Table, parents: Mapping[str, pa.ChunkedArray] | None = None) -> None:
        self._table = table
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._kept: list[pa.Table] = []
        self._known: dict[str, pa.Array] = {}
        self._own: dict[str, str] = {}
        for column, targets in table.foreign.items():
            given = [_flat(parents[target]) for target in targets if parents and target in parents]
            if given:
                self._known[column] = pa.concat_arrays(given)
            for target in targets:
                dataset, _, name = target.partition(".")
                if dataset == table.name:
                    self._own[column] = name
        self._keep = tuple(dict.fromkeys((*table.key, *self._own, *self._own.values())))

    def add(self, rows: pa.Table) -> None:
        """Check one group of rows, already in the table's schema."""
        self._kept.append(rows.select(self._keep))
        for name in self._table.columns:
            self._check_column(rows, FIELDS[name])
        for one, other in self._table.one_null:
            same = pc.equal(pc.is_null(rows.column(one)), pc.is_null(rows.column(other)))
            self._note("exclusive", f"{one} and {other}", "are both null or both set", rows, same)
        for column, known in self._known.items():
            if column not in self._own:
                self._check_foreign(rows, column, known)

    @property
    def is_clean(self) -> bool:
        """Whether no group so far has a fault of its own."""
        return not self._tallies

    def faults(self) -> tuple[Fault, ...]:
        """Finish with the checks that need every row, and report everything found."""
        if self._kept:
            kept = pa.concat_tables(self._kept)
            self._check_key(kept)
            for column, target in self._own.items():
                known = [_flat(kept.column(target))]
                if column in self._known:
                    known.append(self._known[column])
                self._check_foreign(kept, column, pa.concat_arrays(known))
        return tuple(
            Fault(kind, column, problem, tally.n_rows, tuple(tally.examples))
            for (kind, column, problem), tally in self._tallies.items()
        )

    def _check_column(self, rows: pa.Table, declared: Field) -> None:
        name, values = declared.name, rows.column(declared.name)
        if name not in self._table.nullable and values.null_count:
            self._note("not_null", name, "is null", rows, pc.is_null(values))
        if name in self._table.key and pa.types.is_string(declared.type):
            self._note("not_null", name, "is empty", rows, pc.equal(values, ""))
        if declared.allowed is not None:
            known = pc.is_in(values, value_set=pa.array(declared.allowed, declared.type))
            is_wrong = pc.and_(pc.is_valid(values), pc.invert(known))
            self._note(
                "values", name, f"is not one of {'/'.join(declared.allowed)}", rows, is_wrong
            )
        if pa.types.is_list(declared.type):
            elements = pc.list_flatten(values)
            if elements.null_count:
                self._note_elements("not_null", name, "holds a null", rows, pc.is_null(elements))
            for problem, is_wrong in _number_faults(elements, declared):
                self._note_elements("range", name, f"holds a value that {problem}", rows, is_wrong)
        else:
            for problem, is_wrong in _number_faults(values, declared):
                self._note("range", name, problem, rows, is_wrong)

    def _check_foreign(self, rows: pa.Table, column: str, known: pa.Array) -> None:
        values = rows.column(column)
        is_known = pc.is_in(values, value_set=known)
        is_wrong = pc.and_(pc.is_valid(values), pc.invert(is_known))
        targets = " or ".join(self._table.foreign[column])
        self._note("foreign_key", column, f"names no {targets}", rows, is_wrong)

    def _check_key(self, kept: pa.Table) -> None:
        key = self._table.key
        groups = kept.group_by(list(key)).aggregate([([], "count_all")])
        repeated = groups.filter(pc.greater(groups.column("count_all"), 1))
        if repeated.num_rows:
            first = repeated.sort_by([(name, "ascending") for name in key])
            n_rows = pc.sum(repeated.column("count_all")).as_py()
            examples = self._examples(first.slice(0, MAX_EXAMPLES))
            tally = _Tally(n_rows, examples)
            self._tallies["key", key_of(self._table), "is not unique"] = tally

    def _note_elements(
        self, kind: str, column: str, problem: str, rows: pa.Table, is_wrong: pa.ChunkedArray
    ) -> None:
        if pc.any(is_wrong).as_py():
            owners = pc.list_parent_indices(_flat(rows.column(column)))
            wrong_owners = pc.unique(pc.filter(owners, _flat(is_wrong)))
            index = pa.array(range(rows.num_rows), pa.int64())
            self._note(kind, column, problem, rows, pc.is_in(index, value_set=wrong_owners))

    def _note(
        self, kind: str, column: str, problem: str, rows: pa.Table, is_wrong: pa.ChunkedArray
    ) -> None:
        n_wrong = pc.sum(is_wrong).as_py() or 0
        if not n_wrong:
            return
        tally = self._tallies.setdefault((kind, column, problem), _Tally())
        tally.n_rows += n_wrong
        n_wanted = MAX_EXAMPLES - len(tally.examples)
        if n_wanted > 0:
            indices = pc.indices_nonzero(is_wrong).slice(0, n_wanted)
            tally.examples += self._examples(rows.select(self._table.key).take(indices))

    def _examples(self, rows: pa.Table) -> list[str]:
        return [
            ", ".join(f"{name}={row[name]}" for name in self._table.key)
            for row in rows.select(self._table.key).to_pylist()
        ]


def _number_faults(
    values: pa.ChunkedArray, declared: Field
) -> Iterable[tuple[str, pa.ChunkedArray]]:
    if pa.types.is_floating(values.type):
        # NaN compares false with every bound, so it needs a rule of its own; an undefined number
        # is a null here, never a NaN.
        yield "is not finite", pc.invert(pc.is_finite(values))
    if declared.low is not None:
        yield f"is below {declared.low:g}", pc.less(values, declared.low)
    if declared.high is not None:
        yield f"is above {declared.high:g}", pc.greater(values, declared.high)


def _flat(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def raise_faults(table: Table, faults: Sequence[Fault], n_rows: int) -> None:
    """Turn faults into one error; does nothing when there are none.

    Raises:
        CheckFailed: There are faults.
    """
    if faults:
        raise CheckFailed(
            f"dataset {table.name}: {'; '.join(map(str, faults))}; expected {n_rows} rows that "
            "keep the constraints of their table; nothing was stored, correct the stage and run "
            "again"
        )
