"""DuckDB's names and types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from worker.tables.databases.dialect import Dialect, fold_ascii
from worker.tables.databases.duckdb.reading import AS_TEXTS
from worker.tables.databases.types import Shape, plain, shape_of

if TYPE_CHECKING:
    from worker.tables.databases.types import ExistingColumn

_MAX_PRECISION = 38
_DECIMAL = re.compile(r"DECIMAL\([0-9]+,(?P<scale>[0-9]+)\)")
_TEMPLATES: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN", pa.string(): "VARCHAR", pa.binary(): "BLOB", pa.date32(): "DATE",
    pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT", pa.uint16(): "USMALLINT", pa.uint32(): "UINTEGER", pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT", pa.float64(): "DOUBLE",
    pa.timestamp("s"): "TIMESTAMP", pa.timestamp("ms"): "TIMESTAMP", pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("ns"): "TIMESTAMP_NS",
    pa.time32("s"): "TIME", pa.time32("ms"): "TIME", pa.time64("us"): "TIME",
}  # fmt: skip
_SHAPES = {
    **{declared: shape_of(kind) for kind, declared in _TEMPLATES.items()},
    "HUGEINT": Shape("int", 128),
    "TIMESTAMP": Shape("timestamp", 6),
    "TIMESTAMP WITH TIME ZONE": Shape("timestamptz", 6),
    "TIMESTAMPTZ": Shape("timestamptz", 6),
    **dict.fromkeys(AS_TEXTS, Shape("checked_text")),
    "UUID": Shape("checked_text"),
    "JSON": Shape("checked_text"),
}


class DuckdbDialect(Dialect):
    """DuckDB's SQL."""

    engine = "DuckDB"
    instant = "TIMESTAMPTZ"
    primary_keys = False  # its index still holds rows that the same transaction deleted, so new ones would be refused

    def fold(self, name: str) -> str:
        """Return the name without the case of ASCII letters."""
        return fold_ascii(name)

    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the type without encodings."""
        stored = plain(kind)
        self.declare(stored)
        return stored

    def declare(self, kind: pa.DataType) -> str:
        """Return DuckDB's type."""
        types = pa.types
        if kind in _TEMPLATES:
            return _TEMPLATES[kind]
        if types.is_decimal(kind) and kind.precision <= _MAX_PRECISION:
            return f"DECIMAL({kind.precision},{kind.scale})"
        if types.is_timestamp(kind) and kind.tz and kind.unit != "ns":
            return "TIMESTAMP WITH TIME ZONE"
        if types.is_list(kind) or types.is_large_list(kind):
            return f"{self.declare(plain(kind.value_type))}[]"
        if types.is_struct(kind):
            fields = (f"{self.quoted(field.name)} {self.declare(plain(field.type))}" for field in kind)
            return f"STRUCT({', '.join(fields)})"
        if types.is_map(kind):
            return f"MAP({self.declare(plain(kind.key_type))}, {self.declare(plain(kind.item_type))})"
        raise self.unloadable(kind)

    def cast(self, column: ExistingColumn, kind: pa.DataType) -> str:
        """Return the staged column, cast only to types for which its text must be parsed."""
        staged = super().cast(column, kind)
        return f"CAST({staged} AS {column.declared})" if column.shape.family == "checked_text" else staged


def shape_in(declared: str) -> Shape:
    """Return the shape of a column whose type in `duckdb_columns()` is `declared`."""
    if (decimal := _DECIMAL.fullmatch(declared)) is not None:
        return Shape("decimal", int(decimal["scale"]))
    is_enum = declared.startswith("ENUM(") and declared.endswith(")")
    return Shape("checked_text") if is_enum else _SHAPES.get(declared, Shape("other"))
