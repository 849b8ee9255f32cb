"""Names and types of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.tables.databases.dialect import Dialect
from worker.tables.databases.types import Shape, shape_of, signed_micros

if TYPE_CHECKING:
    import pyarrow as pa

    from worker.tables.databases.types import ExistingColumn

_DECLARED = {
    "bool": "boolean", "text": "text", "binary": "bytea", "date": "date",
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
}  # fmt: skip
_SIZED = {
    ("int", 16): "smallint", ("int", 32): "integer", ("int", 64): "bigint",
    ("float", 32): "real", ("float", 64): "double precision",
}  # fmt: skip
_SHAPES = {
    **{declared: Shape(family) for family, declared in _DECLARED.items()},  # type: ignore[arg-type] # keys are families
    **{declared: Shape(family, bits) for (family, bits), declared in _SIZED.items()},  # type: ignore[arg-type] # keys are families
    "numeric": Shape("decimal"),
    "character varying": Shape("text"),
    "citext": Shape("text"),
    "uuid": Shape("checked_text"),
    "json": Shape("checked_text"),
    "jsonb": Shape("checked_text"),
}


class PostgresqlDialect(Dialect):
    """The SQL of PostgreSQL."""

    engine = "PostgreSQL"
    instant = "timestamptz"

    def fold(self, name: str) -> str:
        """Return the name unchanged: quoted names are case-sensitive."""
        return name

    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the Arrow type used to copy a column."""
        plain = signed_micros(kind)
        if shape_of(plain).family == "other":
            raise self.unloadable(kind)
        return plain

    def declare(self, kind: pa.DataType) -> str:
        """Return the PostgreSQL type, spelled as by `format_type`."""
        shape = shape_of(kind)
        if shape.family == "decimal":
            return f"numeric({kind.precision},{kind.scale})"
        return _SIZED.get((shape.family, shape.size or 0)) or _DECLARED[shape.family]

    def cast(self, column: ExistingColumn) -> str:
        """Return the staged column, cast only to types without an assignment cast from text.

        An explicit cast to varchar(n) would truncate a text; an assignment refuses a longer one.
        """
        staged = super().cast(column)
        return f"{staged}::{column.declared}" if column.shape.family == "checked_text" else staged


def shape_in(declared: str, *, is_enumeration: bool) -> Shape:
    """Return the shape of a column whose `format_type` is `declared`."""
    if is_enumeration:
        return Shape("checked_text")
    name, _, arguments = declared.partition("(")
    if name == "numeric" and arguments:
        return Shape("decimal", int(arguments.rstrip(")").split(",")[1]))
    if arguments and name.startswith("time"):  # timestamp(3) would round
        return Shape("other")
    return _SHAPES.get(name, Shape("other"))
