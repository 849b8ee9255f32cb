"""Give columns of text the types that all of their values have.

Files without types are staged as text first. A column then becomes a number, a date or a boolean only if every
one of its values in the whole file is one *and nothing is lost*: ``007`` stays text because 7 is not the same, and
a column with one ``abc`` stays text as a whole, so that the value survives to a transformation, whose `cast`
decides by its `bad_rows` what becomes of it. The first rows only rule types out; they never settle one. A column
without any value has no type. The job may name types instead, which every value then has to have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.checks import (
    ANY_DECIMAL,
    ANY_FLOAT,
    ANY_INTEGER,
    PLAIN,
    Boolean,
    Check,
    Day,
    Decimal,
    Float,
    Instant,
    Integer,
    Moment,
    Spelling,
    Text,
    Time,
)  # fmt: skip
from worker.tables.parquet.staging import ParquetSink, batches_of, empty_columns, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shared.jobs.data.places import ColumnType

#: What a column of text may become: anything, a number (exact for `decimal`), a boolean, a time, or only text.
Candidate = Literal["any", "number", "decimal", "boolean", "temporal", "text"]

_CHECKS: Mapping[Candidate, tuple[type[Check], ...]] = {
    "any": (Boolean, Integer, Float, Day, Moment, Instant),
    "number": (Integer, Float),
    "decimal": (Decimal, Float),
    "boolean": (Boolean,),
    "temporal": (Day, Moment, Instant),
    "text": (),
}
_TOLD: Mapping[ColumnType, type[Check]] = {
    "integer": ANY_INTEGER, "float": ANY_FLOAT, "decimal": ANY_DECIMAL, "string": Text, "boolean": Boolean,
    "date": Day, "timestamp": Moment, "timestamptz": Instant, "time": Time,
}  # fmt: skip
_SHOWN_CHARACTERS = 200


def settle(
    staged: Path,
    output: Path,
    candidates: Mapping[str, Candidate],
    on_rows: Callable[[int], None],
    *,
    when_empty: Mapping[str, pa.DataType] | None = None,
    told: Mapping[str, ColumnType] | None = None,
    spelling: Spelling = PLAIN,
) -> int:
    """Write the Parquet file `staged` to `output` with settled types; return its row count.

    Columns that `candidates` does not name stay as they are; `when_empty` gives types for those without any
    value, `told` the types that the job names. Each piece of the file is looked at for itself, so memory does not
    grow with it. `on_rows` gets the rows written. Raises `TaskFailure` (``unknown_column``, ``wrong_type``).
    """
    told = told or {}
    _need_known(told, staged)
    kinds = kinds_of(candidates, told)
    without_values = empty_columns(staged) & kinds.keys()
    found = _settled(staged, {name: kinds[name] for name in kinds.keys() - without_values}, spelling, on_rows)
    for name, kind in told.items():
        if name not in found and name not in without_values:
            raise _not_of(kind, name, staged, spelling)
    empty: dict[str, pa.DataType] = {name: pa.null() for name in without_values}
    empty |= {name: _TOLD[told[name]](spelling).type for name in without_values & told.keys()}
    empty |= {name: kind for name, kind in (when_empty or {}).items() if name in without_values}
    schema = pa.schema(
        [
            (field.name, found[field.name].type if field.name in found else empty.get(field.name, field.type))
            for field in schema_of(staged)
        ]
    )
    with ParquetSink(output, schema) as sink:
        for batch in batches_of(staged):
            columns = [
                found[field.name].convert(column)
                if field.name in found
                else (pa.nulls(len(column), field.type) if field.name in empty else column)
                for column, field in zip(batch.columns, schema, strict=True)
            ]
            sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            on_rows(sink.row_count)
    return sink.row_count


def kinds_of(candidates: Mapping[str, Candidate], told: Mapping[str, ColumnType]) -> dict[str, tuple[type[Check], ...]]:
    """Return the types that columns may have, in the order in which they are tried."""
    kinds = {name: _CHECKS[candidate] for name, candidate in candidates.items()}
    return kinds | {name: (_TOLD[kind],) for name, kind in told.items()}


def _need_known(told: Mapping[str, ColumnType], staged: Path) -> None:
    names = schema_of(staged).names
    for name in told:
        if name not in names:
            raise TaskFailure(
                "unknown_column",
                f"layout.types: there is no column {name!r}; the columns are {', '.join(map(repr, names[:50]))}.",
                remedy="Name columns of the source.",
                column=name,
            )


def _not_of(kind: ColumnType, name: str, staged: Path, spelling: Spelling) -> TaskFailure:
    """Return the failure for a column with a value that is not of the type that the job names."""
    row, example = 0, ""
    for batch in batches_of(staged, [name]):
        for at, value in enumerate(batch.column(0)):
            if value.is_valid and not _TOLD[kind](spelling).accepts(pa.array([value.as_py()], pa.string())):
                row, example = row + at + 1, value.as_py()[:_SHOWN_CHARACTERS]
                break
        if example:
            break
        row += batch.num_rows
    what = f"{example!r} in row {row}" if example else "a value with more than 38 digits"
    return TaskFailure(
        "wrong_type",
        f"layout.types: column {name!r} has {what}, which is not a valid {kind}.",
        remedy="Correct the type or the value, or read the column as 'string' and cast it with 'bad_rows'.",
        column=name,
        example=example,
    )


def _settled(
    staged: Path,
    open_checks: Mapping[str, tuple[type[Check], ...]],
    spelling: Spelling,
    on_rows: Callable[[int], None],
) -> dict[str, Check]:
    """Return the first type of each column that fits; a pass tries one type a column, the next if it has to."""
    first = next(batches_of(staged), None)
    if first is None:
        return {}
    open_checks = {name: possible(first.column(name), kinds, spelling) for name, kinds in open_checks.items()}
    found: dict[str, Check] = {}
    while open_checks := {name: kinds for name, kinds in open_checks.items() if kinds}:
        found |= _pass(staged, {name: kinds[0](spelling) for name, kinds in open_checks.items()}, on_rows)
        open_checks = {name: kinds[1:] for name, kinds in open_checks.items() if name not in found}
    return found


def possible(column: pa.Array, kinds: tuple[type[Check], ...], spelling: Spelling) -> tuple[type[Check], ...]:
    """Return the types that no value of `column` rules out."""
    values = column.drop_null()
    return tuple(kind for kind in kinds if not len(values) or kind(spelling).accepts(values))


def _pass(staged: Path, checks: dict[str, Check], on_rows: Callable[[int], None]) -> dict[str, Check]:
    for batch in batches_of(staged, list(checks)):
        for name in list(checks):
            values = batch.column(name).drop_null()
            if len(values) and not checks[name].accepts(values):
                del checks[name]
        on_rows(0)
        if not checks:
            break
    return {name: check for name, check in checks.items() if check.holds()}
