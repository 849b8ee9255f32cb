"""Names and types of SQLite. A column accepts any value; its affinity decides how the value is stored."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from worker.tables.databases.dialect import Dialect, fold_ascii
from worker.tables.databases.types import shape_of, signed_micros

if TYPE_CHECKING:
    from worker.tables.databases.dialect import Ordered
    from worker.tables.databases.types import ExistingColumn

_DECLARED = {
    "bool": "BOOLEAN", "int": "INTEGER", "float": "REAL", "decimal": "TEXT", "text": "TEXT", "binary": "BLOB",
    "date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "time": "TIME",
}  # fmt: skip
_AFFINITIES = (("INT", "INTEGER"), ("CHAR", "TEXT"), ("CLOB", "TEXT"), ("TEXT", "TEXT"), ("BLOB", "BLOB"),
               ("REAL", "REAL"), ("FLOA", "REAL"), ("DOUB", "REAL"))  # fmt: skip
_TEXTUAL = {"TEXT", "BLOB"}
_DATED = {"TEXT", "BLOB", "NUMERIC"}  # a date does not look like a number, so NUMERIC keeps it
_KEEPING = {
    "bool": {"INTEGER", "NUMERIC", "BLOB"}, "int": {"INTEGER", "NUMERIC", "BLOB"},
    "float": {"REAL", "NUMERIC", "BLOB"}, "decimal": _TEXTUAL, "text": _TEXTUAL, "binary": {"BLOB"},
    "date": _DATED, "timestamp": _DATED, "timestamptz": _DATED, "time": _DATED,
}  # fmt: skip
_EMPTY = {"INTEGER": pa.int16(), "NUMERIC": pa.int16(), "REAL": pa.int16(), "BLOB": pa.binary()}
_EXACT_IN_REAL_BITS = 32


class SqliteDialect(Dialect):
    """The SQL of SQLite."""

    engine = "SQLite"
    instant = "TIMESTAMP"
    times_are_texts = True

    def fold(self, name: str) -> str:
        """Return the name with ASCII letters in lower case."""
        return fold_ascii(name)

    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the Arrow type used to write a column."""
        plain = signed_micros(kind)
        if shape_of(plain).family not in _DECLARED:
            raise self.unloadable(kind)
        return plain

    def declare(self, kind: pa.DataType) -> str:
        """Return the declared type, whose affinity keeps the values unchanged."""
        return _DECLARED[shape_of(kind).family]

    def at_least(self, column: str, value: Ordered) -> str:
        """Return the condition that a column is at least `value`, in any text format of times.

        Times are compared as text, and the shortest format of a time sorts before its longer formats.
        """
        if not isinstance(value, date):
            return super().at_least(column, value)
        return f"{self.quoted(column)} >= '{_shortest(value)}'"

    def floating(self, column: ExistingColumn) -> pa.DataType | None:
        """Return the type of a column with the affinity of floats, None for others."""
        return pa.float64() if affinity(column.declared) == "REAL" else None

    def when_empty(self, column: ExistingColumn) -> pa.DataType:
        """Return the type that fits the affinity of the column."""
        return _EMPTY.get(affinity(column.declared), pa.string())


def affinity(declared: str) -> str:
    """Return the affinity of a column by the rules of SQLite, in order ("Determination Of Column Affinity")."""
    if not declared:
        return "BLOB"
    return next((affinity for part, affinity in _AFFINITIES if part in declared.upper()), "NUMERIC")


def keeps(declared: str, kind: pa.DataType) -> bool:
    """Return whether the affinity of a column keeps values of `kind` unchanged."""
    shape = shape_of(kind)
    if shape.family == "int" and affinity(declared) == "REAL":
        return (shape.size or 64) <= _EXACT_IN_REAL_BITS
    return affinity(declared) in _KEEPING[shape.family]


def _shortest(value: date) -> str:
    if not isinstance(value, datetime):
        return value.isoformat()
    if value.microsecond:
        return f"{value:%Y-%m-%d %H:%M:%S.%f}".rstrip("0")
    return f"{value:%Y-%m-%d %H:%M:%S}".removesuffix(":00").removesuffix(" 00:00")
