"""Types between a dataset (Arrow) and the tables of the engines, and what the columns of a table can hold.

| Arrow                   | PostgreSQL                 | SQLite (storage)             | DuckDB                    |
| ----------------------- | -------------------------- | ---------------------------- | ------------------------- |
| bool                    | boolean                    | BOOLEAN (0 or 1)             | BOOLEAN                   |
| int8, int16             | smallint                   | INTEGER                      | TINYINT, SMALLINT         |
| int32, int64            | integer, bigint            | INTEGER                      | INTEGER, BIGINT           |
| uint8, uint16, uint32   | smallint, integer, bigint  | INTEGER                      | UTINYINT ... UINTEGER     |
| uint64                  | numeric(20,0)              | TEXT (digits)                | UBIGINT                   |
| float16, float32        | real                       | REAL                         | FLOAT                     |
| float64                 | double precision           | REAL; NaN is refused         | DOUBLE                    |
| decimal(p,s)            | numeric(p,s)               | TEXT (digits)                | DECIMAL(p,s), p up to 38  |
| string, dictionary      | text; NUL is refused       | TEXT                         | VARCHAR                   |
| binary                  | bytea                      | BLOB                         | BLOB                      |
| date                    | date                       | DATE (YYYY-MM-DD)            | DATE                      |
| timestamp               | timestamp without time zone| TIMESTAMP (ISO 8601)         | TIMESTAMP                 |
| timestamp with zone     | timestamp with time zone   | TIMESTAMPTZ (ISO 8601, UTC)  | TIMESTAMP WITH TIME ZONE  |
| time                    | time without time zone     | TIME (HH:MM:SS.ffffff)       | TIME                      |
| null                    | text                       | TEXT                         | VARCHAR                   |
| list of simple values   | array                      | refused                      | LIST                      |
| struct, map             | refused                    | refused                      | STRUCT, MAP               |

Everything is exact or refused: a timestamp with nanoseconds that microseconds cannot hold fails the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Family = Literal[
    "bool", "int", "float", "decimal", "text", "checked_text", "binary",
    "date", "timestamp", "timestamptz", "time", "list", "other",
]  # fmt: skip
_INT64_BITS = 64
_MOST_DIGITS = 38  # of a decimal of 128 bits
_EXACT_IN = {64: 32, 32: 16}  # a float of the first number of bits holds every integer of the second


@dataclass(frozen=True, slots=True)
class Shape:
    """What a column can hold, whatever the engine calls it.

    `size` is the bits of an int or float, the scale of a decimal, the fraction digits of a time; None: any.
    `checked_text` is a type that takes texts and refuses wrong ones (uuid, json, an enumeration). `element` is what
    each value of a list holds, where the engine has lists of one kind.
    """

    family: Family
    size: int | None = None
    element: Shape | None = None


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """A column of an existing table."""

    name: str
    declared: str
    required: bool
    """Whether every row needs a value: the column is not nullable and has no default."""
    shape: Shape
    limited: str = ""
    """The type without its domain, where the engine has such."""
    bare: str = ""
    """The type without domain, length and digits."""
    generated: bool = False
    """Whether the database computes the values, and takes none."""


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without encodings: dictionaries, views, offsets, small decimals; text for a column of nulls."""
    types = pa.types
    match kind:
        case _ if types.is_dictionary(kind):
            stored = plain(kind.value_type)
        case _ if types.is_null(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            stored = pa.string()
        case _ if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
            stored = pa.binary()
        case _ if types.is_date64(kind):
            stored = pa.date32()
        case _ if types.is_float16(kind):
            stored = pa.float32()
        case _ if types.is_decimal(kind) and kind.precision <= _MOST_DIGITS:
            stored = pa.decimal128(kind.precision, kind.scale)
        case _:
            stored = kind
    return stored


def signed_micros(kind: pa.DataType) -> pa.DataType:
    """Return the type for an engine without unsigned integers, int8, and units other than microseconds."""
    kind = plain(kind)
    wider = {
        pa.int8(): pa.int16(),
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20, 0),
    }
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_time(kind):
        return pa.time64("us")
    return wider.get(kind, kind)


def shape_of(kind: pa.DataType) -> Shape:
    """Return what a column of a plain Arrow type holds."""
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind):
        return Shape("int" if types.is_integer(kind) else "float", kind.bit_width)
    if types.is_decimal(kind):
        return Shape("decimal", kind.scale)
    if types.is_timestamp(kind):
        digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[kind.unit]
        return Shape("timestamptz" if kind.tz else "timestamp", digits)
    simple: dict[pa.DataType, Family] = {
        pa.bool_(): "bool",
        pa.string(): "text",
        pa.binary(): "binary",
        pa.date32(): "date",
    }
    return Shape("time") if types.is_time(kind) else Shape(simple.get(kind, "other"))


def holds(existing: Shape, new: Shape) -> bool:
    """Return whether a column of shape `existing` takes every value of `new` exactly, or the engine refuses it.

    A value out of range (an int64 in an int32 column) is refused by every engine. A value that must be rounded is
    not, so floats never go into decimals, nor large integers into floats.
    """
    if existing.family == new.family:
        if new.family in {"int", "other"}:
            return new.family == "int"
        return existing.size is None or new.size is None or existing.size >= new.size
    if new.family == "int" and existing.family == "float":
        return (new.size or _INT64_BITS) <= _EXACT_IN.get(existing.size or 0, 0)
    return (new.family, existing.family) in {
        ("int", "decimal"),
        ("date", "timestamp"),
        ("text", "checked_text"),
    }
