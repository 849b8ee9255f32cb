"""Columns and their types: quoting of names and texts, families of types, failures for unknown or repeated names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shared.contract.spelling import nearest
from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

Columns = dict[str, str]  # name -> DuckDB type, in order
Family = Literal["integer", "float", "decimal", "string", "boolean", "date", "timestamp", "time", "other", "missing"]

NUMBERS: frozenset[Family] = frozenset({"integer", "float", "decimal"})
TEMPORAL: frozenset[Family] = frozenset({"date", "timestamp", "time"})
_INTEGERS = frozenset(
    {
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    }
)
_PLAIN: dict[str, Family] = {
    '"NULL"': "missing", "FLOAT": "float", "DOUBLE": "float", "VARCHAR": "string", "BOOLEAN": "boolean", "DATE": "date",
}  # fmt: skip
_MOST_NAMES = 50


def quoted(name: str) -> str:
    """Return a name as a SQL identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as a SQL literal. Only for paths and names that this worker made; values are bound."""
    return "'" + value.replace("'", "''") + "'"


def family(sql_type: str) -> Family:
    """Return the family of a DuckDB type."""
    if sql_type in _INTEGERS:
        return "integer"
    if sql_type.startswith("DECIMAL("):
        return "decimal"
    if sql_type.endswith("]"):
        return "other"
    if sql_type.startswith("TIMESTAMP"):
        return "timestamp"
    if sql_type.startswith("TIME"):
        return "time"
    return _PLAIN.get(sql_type, "other")


def need_columns(names: Iterable[str], columns: Columns, where: str) -> None:
    """Raise `TaskFailure` (``unknown_column``) for the first of `names` that is not among `columns`.

    `where` is the place in the request, for example ``steps[2] cast``.
    """
    for name in names:
        if name not in columns:
            raise unknown_column(name, columns, where)


def unknown_column(name: str, columns: Columns, where: str) -> TaskFailure:
    """Return the failure for a column that does not exist; its remedy names the one with the most similar name."""
    near = nearest(name, columns)
    known = ", ".join(repr(column) for column in list(columns)[:_MOST_NAMES])
    more = f" and {len(columns) - _MOST_NAMES} more" if len(columns) > _MOST_NAMES else ""
    return TaskFailure(
        "unknown_column",
        f"{where}: there is no column {name!r}; the columns are {known}{more}.",
        remedy=f"Did you mean {near[0]!r}?" if near else "Use one of these columns.",
        column=name,
        known=list(columns)[:_MOST_NAMES],
    )


def need_distinct(names: Iterable[str], where: str) -> None:
    """Raise `TaskFailure` (``duplicate_column``) if two names differ only by case, which SQL ignores."""
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise TaskFailure(
                "duplicate_column",
                f"{where}: the columns {seen[name.casefold()]!r} and {name!r} must differ by more than case.",
                remedy="Rename one of them.",
                column=name,
            )
        seen[name.casefold()] = name


def fresh_name(wanted: str, columns: Iterable[str]) -> str:
    """Return `wanted`, preceded by as many underscores as it takes until no column has that name."""
    taken = {name.casefold() for name in columns}
    while wanted.casefold() in taken:
        wanted = f"_{wanted}"
    return wanted
