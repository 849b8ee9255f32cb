"""How an engine spells what all engines have: names, types, values. Nothing here asks a database."""

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
"""A value that all systems put into the same order."""

_EMPTY = {
    "bool": pa.bool_(), "int": pa.int16(), "float": pa.int16(), "decimal": pa.int16(), "binary": pa.binary(),
    "date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
}  # fmt: skip


class Dialect(ABC):
    """The SQL of one engine, as far as it differs."""

    engine: ClassVar[str]
    """What people call it."""
    instant: ClassVar[str]
    """The type of a moment, which CURRENT_TIMESTAMP can fill."""
    short_text: ClassVar[str] = "TEXT"
    """The type of a text that can be a primary key."""
    system_schemas: ClassVar[tuple[str, ...]] = ("pg_", "information_schema", "temp", "system")
    """How the names of schemas begin that belong to the database."""
    primary_keys: ClassVar[bool] = True
    """Whether a table that is made for an upsert gets a primary key."""

    def quoted(self, name: str) -> str:
        """Return a name as an SQL identifier, whatever characters it has."""
        return quoted(name)

    def target(self, table: str) -> str:
        """Return `table`, or `schema.table`, as an SQL identifier."""
        return ".".join(map(self.quoted, table.split(".")))

    @abstractmethod
    def fold(self, name: str) -> str:
        """Return a column name as the engine compares it."""

    @abstractmethod
    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the Arrow type in which a column goes in; raise `TaskFailure` if the engine has no exact place."""

    @abstractmethod
    def declare(self, kind: pa.DataType) -> str:
        """Return the engine's type for a new column of a type that `represent` gave."""

    def cast(self, column: ExistingColumn) -> str:
        """Return the expression for a staged column `s.column`, converted as the target's column needs."""
        return f"s.{self.quoted(column.name)}"

    def as_text(self, expression: str) -> str:
        """Return the expression for a value as a text that people read."""
        return f"CAST({expression} AS TEXT)"

    def at_least(self, column: str, value: Ordered) -> str:
        """Return the condition that a column is not below `value`."""
        return f"{self.quoted(column)} >= {self._literal(value)}"

    def when_empty(self, column: ExistingColumn) -> pa.DataType:
        """Return the type of a column without any value, so that it fits `column`."""
        return _EMPTY.get(column.shape.family, pa.string())

    def unloadable(self, kind: pa.DataType) -> TaskFailure:
        """Return the failure for a type that the engine has no exact place for."""
        return TaskFailure(
            "type_not_loadable",
            f"A column of type {kind} cannot be stored exactly in {self.engine}.",
            remedy="Cast it in a transform step, for example to a string, or omit it.",
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
    """Return a name as engines compare it that ignore the case of ASCII letters."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
