"""Names and types of PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from worker.tables.databases.dialect import Dialect
from worker.tables.databases.types import Shape, holds, shape_of, signed_micros

if TYPE_CHECKING:
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
_SHAPES: dict[str, Shape] = {
    **{declared: Shape(family) for family, declared in _DECLARED.items()},  # type: ignore[arg-type] # keys are families
    **{declared: Shape(family, bits) for (family, bits), declared in _SIZED.items()},  # type: ignore[arg-type] # keys are families
    "numeric": Shape("decimal"),
    "money": Shape("decimal"),
    "oid": Shape("int", 64),
    "character varying": Shape("text"),
    "character": Shape("text"),
    '"char"': Shape("other"),  # this one and the next cut a text that is too long
    "name": Shape("other"),
}
_LIMIT = re.compile(r"\([0-9]+(,-?[0-9]+)?\)")
_IN_LISTS = {"bool", "int", "float", "text"}
_READ_AS_TEXTS = {"decimal", "binary", "date", "timestamp", "timestamptz", "time"}  # within lists
_CHECKED_IN_STAGE = {"decimal", "timestamp", "timestamptz", "time", "checked_text"}


class PostgresqlDialect(Dialect):
    """The SQL of PostgreSQL."""

    engine = "PostgreSQL"
    instant = "timestamptz"
    default_schema = "public"
    overriding = "OVERRIDING SYSTEM VALUE "

    def fold(self, name: str) -> str:
        """Return the name unchanged: quoted names are case-sensitive."""
        return name

    def represent(self, kind: pa.DataType) -> pa.DataType:
        """Return the Arrow type used to copy a column."""
        plain = signed_micros(kind)
        if pa.types.is_list(plain) or pa.types.is_large_list(plain):
            element = signed_micros(plain.value_type)
            if shape_of(element).family not in _IN_LISTS:
                raise self.unloadable(kind)
            return pa.list_(element)
        if shape_of(plain).family == "other":
            raise self.unloadable(kind)
        return plain

    def declare(self, kind: pa.DataType) -> str:
        """Return the PostgreSQL type, spelled as by `format_type`."""
        if pa.types.is_list(kind):
            return f"{self.declare(kind.value_type)}[]"
        shape = shape_of(kind)
        if shape.family == "decimal":
            return f"numeric({kind.precision},{kind.scale})"
        return _SIZED.get((shape.family, shape.size or 0)) or _DECLARED[shape.family]

    def cast(self, column: ExistingColumn, kind: pa.DataType) -> str:
        """Return the staged column in the column's type without its limits, which the assignment checks.

        An explicit cast to varchar(n) would truncate a text; an assignment refuses a longer one.
        """
        staged = super().cast(column, kind)
        if column.bare == self.declare(kind):
            return staged
        if column.shape.family == "decimal":  # a float by its shortest digits; a cast to numeric would round to 15
            exact = f"{staged}::text::numeric" if pa.types.is_floating(kind) else f"{staged}::numeric"
            return f"{exact}::money" if column.bare == "money" else exact
        if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
            return f"{staged}::text[]::{column.bare}"
        return f"{staged}::{column.bare}"

    def inexact(self, column: ExistingColumn, kind: pa.DataType) -> str:
        """Return the condition that the column would change a staged value, or nothing if it changes none."""
        staged, value = super().cast(column, kind), self.cast(column, kind)
        family = (column.shape.element or column.shape).family
        if family == "decimal" and pa.types.is_string(kind):  # 007 and 1e3 are spelled as no numeric is
            number = "numeric" if column.bare == "money" else column.limited
            return f"({value})::{number}::text IS DISTINCT FROM {staged}"
        if column.bare == "money":
            return f"{staged}::text::numeric IS DISTINCT FROM ({value})::numeric"
        if family not in _CHECKED_IN_STAGE or column.limited in {column.bare, self.declare(kind)}:
            return ""
        as_text = "::text" if family == "checked_text" else ""
        return f"({value}){as_text} IS DISTINCT FROM ({value})::{column.limited}{as_text}"

    def takes(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the column takes values of a type, except for those that it refuses or that are `inexact`."""
        if pa.types.is_list(kind):
            element, new = column.shape.element, shape_of(kind.value_type)
            parsed = element is not None and new.family == "text" and element.family in _READ_AS_TEXTS
            return parsed or (element is not None and _takes(element, new))
        return _takes(column.shape, shape_of(kind))


def shape_in(limited: str) -> Shape:
    """Return the shape of a column whose `format_type`, without a domain, is `limited`."""
    if limited.endswith("[]"):
        return Shape("list", element=shape_in(limited.removesuffix("[]")))
    return _SHAPES.get(_LIMIT.sub("", limited), Shape("checked_text"))


def _takes(column: Shape, new: Shape) -> bool:
    if column.family == "list":
        return new.family == "text"
    if column.family == "decimal" and new.family in {"float", "decimal", "text"}:
        return True
    return holds(column, new)
