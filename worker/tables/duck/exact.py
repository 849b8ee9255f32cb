# ruff: noqa: S608 - this module builds SQL; every name is quoted
"""Read and write Parquet with DuckDB so that no value changes, or refuse the column by name.

Left to itself, DuckDB reads a duration as an integer and a decimal of more than 38 digits as a float, and writes
128-bit integers as floats, intervals as 12 bytes that other readers do not know, and times of day without their zone.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from shared.errors import TaskFailure
from worker.tables.parquet.columns import quoted, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


OUT_OF_RANGE = "out of range: "  # begins the message of a failure that a query raises by itself
MOST_DIGITS = 38
_MICROS_IN = {"s": 1_000_000, "ms": 1_000, "us": 1}
_NANOS_IN_MICRO = 1_000
_AS_TEXTS = {"time with time zone", "uuid", "bit", "bignum", "enum"}
_NESTED = {"list", "array", "struct", "map"}
_NOT_KEPT = {"union", "variant", "interval"}  # an interval within a list
_REMEDY = "Leave the column out where the dataset is made, or give it another type there (layout.types)."


def reading(schemas: Sequence[pa.Schema]) -> dict[str, str]:
    """Return the expressions for the columns of Parquet files that DuckDB would change (name -> SQL).

    Raises `TaskFailure` (``type_not_exact``) for a column whose values it cannot hold; ``columns_differ`` for
    durations in several units.
    """
    found: dict[str, str] = {}
    units: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            if (refused := _unreadable(field.type, top=True)) is not None:
                raise _not_exact(field.name, str(refused), "which transformations cannot hold exactly", _REMEDY)
            if pa.types.is_duration(field.type):
                found[field.name] = _interval(field.name, field.type.unit)
                units.setdefault(field.name, field.type)
    for name, kind in units.items():
        others = {schema.field(name).type for schema in schemas if name in schema.names} - {kind, pa.null()}
        if others:
            raise TaskFailure(
                "columns_differ",
                f"The datasets cannot be united: column {name!r} is {kind} in one and {others.pop()} in another.",
                remedy="Give all of them the same type.",
                column=name,
            )
    return found


@dataclass(frozen=True, slots=True)
class Stored:
    """The query whose columns Parquet keeps, and those that are durations in microseconds."""

    sql: str
    durations: frozenset[str]

    def metadata(self, schema: pa.Schema) -> str:
        """Return the option of COPY that tells readers of Arrow which columns of `schema` are durations."""
        kinds = [pa.duration("us") if field.name in self.durations else field.type for field in schema]
        told = pa.schema(zip(schema.names, kinds, strict=True))
        return f"KV_METADATA {{'ARROW:schema': {text(base64.b64encode(told.serialize().to_pybytes()).decode())}}}"


def storing(sql: str, kinds: Mapping[str, DuckDBPyType]) -> Stored:
    """Return what to write for the rows of a query with columns of these types.

    Raises `TaskFailure` (``type_not_exact``) for a column that Parquet does not keep.
    """
    chosen, durations = [], set()
    for name, kind in kinds.items():
        if kind.id == "interval":
            durations.add(name)
            chosen.append(f"{_microseconds(name)} AS {quoted(name)}")
        elif kind.id in {"hugeint", "uhugeint"}:
            chosen.append(f"{as_integer(quoted(name), name)} AS {quoted(name)}")
        elif (other := _stored(kind, name)) == str(kind):
            chosen.append(quoted(name))
        else:
            chosen.append(f"CAST({quoted(name)} AS {other}) AS {quoted(name)}")
    return Stored(f"SELECT {', '.join(chosen)} FROM (\n{sql}\n)", frozenset(durations))


def as_integer(sql: str, what: str) -> str:
    """Return a 128-bit integer as one of 64 bits; the query fails and names `what` if it does not fit."""
    fits = f"{sql} BETWEEN -9223372036854775808 AND 9223372036854775807"
    failure = failing(f"an integer of {what!r} has more than 64 bits; cast the column to a decimal first")
    return f"(CASE WHEN {sql} IS NULL THEN NULL WHEN {fits} THEN CAST({sql} AS BIGINT) ELSE {failure} END)"


def _unreadable(kind: pa.DataType, *, top: bool = False) -> pa.DataType | None:
    """Return the type, or the one within it, that DuckDB would change."""
    if pa.types.is_decimal(kind):
        return kind if kind.precision > MOST_DIGITS else None
    if pa.types.is_duration(kind):
        return None if top else kind
    if pa.types.is_dictionary(kind):
        return _unreadable(kind.value_type)
    inner = (kind.field(at).type for at in range(kind.num_fields))
    return next((found for one in inner if (found := _unreadable(one)) is not None), None)


def _interval(name: str, unit: str) -> str:
    column = quoted(name)
    if unit == "ns":
        failure = failing(f"a duration of {name!r} has nanoseconds; round the column first")
        whole = f"{column} % {_NANOS_IN_MICRO} = 0"
        return (
            f"CASE WHEN {column} IS NULL THEN NULL WHEN {whole} "
            f"THEN to_microseconds({column} // {_NANOS_IN_MICRO}) ELSE {failure} END"
        )
    times = _MICROS_IN[unit]
    largest = (2**63 - 1) // times
    failure = failing(f"a duration of {name!r} is too long")
    return (
        f"CASE WHEN {column} IS NULL THEN NULL WHEN {column} BETWEEN {-largest} AND {largest} "
        f"THEN to_microseconds({column} * {times}) ELSE {failure} END"
    )


def _microseconds(name: str) -> str:
    column = quoted(name)
    failure = failing(f"an interval of {name!r} has months, which have no fixed length; cast the column to VARCHAR")
    size = (
        f"datepart('day', {column}) * 86400000000 + datepart('hour', {column}) * 3600000000 "
        f"+ datepart('minute', {column}) * 60000000 + datepart('microsecond', {column})"
    )
    return (
        f"CASE WHEN {column} IS NULL THEN NULL "
        f"WHEN datepart('year', {column}) = 0 AND datepart('month', {column}) = 0 THEN {size} ELSE {failure} END"
    )


def _stored(kind: DuckDBPyType, name: str) -> str:
    """Return the type in which Parquet keeps the values of `kind`, as SQL."""
    if kind.id in _NOT_KEPT:
        raise _not_exact(name, str(kind), "which a dataset does not keep", "Cast it to VARCHAR or JSON in the SQL.")
    inner = {field: one for field, one in kind.children if isinstance(one, DuckDBPyType)} if kind.id in _NESTED else {}
    stored = {field: _stored(one, name) for field, one in inner.items()}
    match kind.id:
        case "hugeint" | "uhugeint":
            found = "BIGINT"
        case "list":
            found = f"{stored['child']}[]"
        case "array":
            found = f"{stored['child']}[{dict(kind.children)['size']}]"
        case "struct":
            found = f"STRUCT({', '.join(f'{quoted(field)} {one}' for field, one in stored.items())})"
        case "map":
            found = f"MAP({stored['key']}, {stored['value']})"
        case one:
            found = "VARCHAR" if one in _AS_TEXTS or str(kind) == "JSON" else str(kind)
    return found


def failing(message: str) -> str:
    """Return SQL that fails with ``value_out_of_range`` and this message."""
    return f"error({text(OUT_OF_RANGE + message)})"


def _not_exact(column: str, kind: str, why: str, remedy: str) -> TaskFailure:
    return TaskFailure(
        "type_not_exact", f"The column {column!r} is {kind}, {why}.", remedy=remedy, column=column, type=kind
    )
