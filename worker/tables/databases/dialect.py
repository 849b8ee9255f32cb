"""The SQL in which engines differ: names, types, values. Nothing here connects to a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from shared.errors import TaskFailure
from worker.tables.parquet.columns import quoted

if TYPE_CHECKING:
    from worker.tables.databases.types import ExistingColumn

Ordered = int | float | Decimal | date | datetime
"""A value whose order is the same in all engines."""

_EMPTY = {
    "bool": pa.bool_(), "int": pa.int16(), "float": pa.int16(), "decimal": pa.int16(), "binary": pa.binary(),
    "date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
}  # fmt: skip
_SINGLE_BITS = 32


class Dialect(ABC):
    """The SQL of one engine where it differs from the others."""

    engine: ClassVar[str]
    """Its name in messages."""
    instant: ClassVar[str]
    """The type of a point in time; CURRENT_TIMESTAMP must be a value of it."""
    short_text: ClassVar[str] = "TEXT"
    """The type of a text that can be a primary key."""
    default_schema: ClassVar[str] = "main"
    """The schema of a table that is named without one."""
    system_schemas: ClassVar[tuple[str, ...]] = ("pg_", "information_schema", "temp", "system")
    """Prefixes of the names of the database's own schemas."""
    overriding: ClassVar[str] = ""
    """What makes an INSERT give its own values to a column that the database would number."""
    primary_keys: ClassVar[bool] = True
    """Whether a table that is made for an upsert gets a primary key."""

    times_are_texts: ClassVar[bool] = False
    """Whether dates and times are texts, so that a query does not tell them from others."""

    def quoted(self, name: str) -> str:
        """Return a name as an SQL identifier, whatever characters it has."""
        return quoted(name)

    def target(self, table: str) -> str:
        """Return `table`, or `schema.table`, as an SQL identifier."""
        return ".".join(map(self.quoted, table.split(".")))

    def named(self, table: str) -> str:
        """Return the name of a table in the one form that all its spellings have."""
        return self.fold(table if "." in table else f"{self.default_schema}.{table}")

    @abstractmethod
    def fold(self, name: str) -> str:
        """Return a column name as the engine compares it."""

    @abstractmethod
    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the Arrow type in which a column is written; raise `TaskFailure` if it cannot be stored exactly."""

    @abstractmethod
    def declare(self, kind: pa.DataType) -> str:
        """Return the engine's type for a new column; `kind` comes from `represent`."""

    def cast(self, column: ExistingColumn, kind: pa.DataType) -> str:  # noqa: ARG002 - for engines that convert
        """Return the expression for a staged column `s.column` of the type `kind`, as the target's column needs it."""
        return f"s.{self.quoted(column.name)}"

    def as_text(self, expression: str) -> str:
        """Return the expression that shows a value as text in a message."""
        return f"CAST({expression} AS TEXT)"

    def at_least(self, column: str, value: Ordered) -> str:
        """Return the condition that a column is at least `value`."""
        return f"{self.quoted(column)} >= {self._literal(value)}"

    def when_empty(self, column: ExistingColumn) -> pa.DataType:
        """Return the type for a dataset's column without values that fits `column`."""
        return _EMPTY.get(column.shape.family, pa.string())

    def floating(self, column: ExistingColumn) -> pa.DataType | None:
        """Return the type of a floating column, None for others."""
        if column.shape.family != "float":
            return None
        return pa.float32() if column.shape.size == _SINGLE_BITS else pa.float64()

    def unloadable(self, kind: pa.DataType) -> TaskFailure:
        """Return the failure for a type that the engine cannot store exactly."""
        return TaskFailure(
            "type_not_loadable",
            f"A column of type {kind} cannot be stored exactly in {self.engine}.",
            remedy="Cast it to text in a transform step or in the source's 'query', or leave it out.",
        )

    def _literal(self, value: Ordered) -> str:
        match value:
            case datetime():
                return f"{'TIMESTAMPTZ' if value.tzinfo else 'TIMESTAMP'} '{value}'"
            case date():
                return f"DATE '{value}'"
            case Decimal():
                return f"{value:f}"
            case _:
                return repr(value)


def fold_ascii(name: str) -> str:
    """Return a name in the form that an engine compares which ignores the case of ASCII letters."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
