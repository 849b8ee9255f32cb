# ruff: noqa: S608 - this module builds SQL; names are quoted, paths are ours
"""Unite datasets with the same columns, matched by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from worker.tables.duck.engine import parquet
from worker.tables.duck.exact import MOST_DIGITS, failing
from worker.tables.parquet.columns import NUMBERS, Columns, Family, family, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from worker.tables.duck.engine import Engine

_INTEGER_DIGITS = {"TINYINT": 3, "UTINYINT": 3, "SMALLINT": 5, "USMALLINT": 5, "INTEGER": 10, "UINTEGER": 10}
_MOST_INTEGER_DIGITS = 20


def define_united(name: str, datasets: Sequence[Path], engine: Engine) -> Columns:
    """Define the view `name` over one or more Parquet files and return its columns.

    Numbers unite with numbers and dates with timestamps.
    Raises `TaskFailure` (``columns_differ``) if names or types cannot be united.
    """
    parts = [engine.columns(parquet([path])) for path in datasets]
    _need_unitable(parts)
    targets = {column: target for column in parts[0] if (target := _exact_type([part[column] for part in parts]))}
    if targets:  # left to itself, DuckDB rounds to the type of one of them
        chosen = [", ".join(_chosen(column, kind, targets) for column, kind in part.items()) for part in parts]
        united = " UNION ALL BY NAME ".join(
            f"SELECT {columns} FROM ({parquet([path])})" for columns, path in zip(chosen, datasets, strict=True)
        )
    else:
        united = parquet(datasets)
    engine.define(name, united)
    return engine.columns(united)


def _exact_type(kinds: Sequence[str]) -> str | None:
    """Return the type for a column of numbers of several types, some of them floats or decimals; else None."""
    families = {family(kind) for kind in kinds} - {"missing"}
    if len(set(kinds)) == 1 or not families <= NUMBERS or families <= {"integer"}:
        return None
    if "float" in families:
        return "DOUBLE"
    digits = [_digits(kind) for kind in kinds if family(kind) != "missing"]
    scale = max(after for _, after in digits)
    return f"DECIMAL({min(MOST_DIGITS, max(before for before, _ in digits) + scale)},{scale})"


def _digits(kind: str) -> tuple[int, int]:
    """Return the digits before and after the point that a column of whole numbers or decimals can have."""
    if family(kind) != "decimal":
        return _INTEGER_DIGITS.get(kind, _MOST_INTEGER_DIGITS), 0
    precision, scale = map(int, kind.removeprefix("DECIMAL(").removesuffix(")").split(","))
    return precision - scale, scale


def _chosen(column: str, kind: str, targets: Mapping[str, str]) -> str:
    name, target = quoted(column), targets.get(column)
    if target is None or target == kind:
        return name
    if target != "DOUBLE" or family(kind) not in {"integer", "decimal"}:
        return f"CAST({name} AS {target}) AS {name}"
    failure = failing(f"a value of {column!r} is {kind} in one dataset and would be rounded as a float")
    same = f"TRY_CAST(CAST({name} AS DOUBLE) AS {kind}) = {name}"
    return f"CASE WHEN {name} IS NULL THEN NULL WHEN {same} THEN CAST({name} AS DOUBLE) ELSE {failure} END AS {name}"


def _need_unitable(parts: Sequence[Columns]) -> None:
    first = parts[0]
    typed = {name: _first_typed(name, parts) for name in first}  # a column without any value fits every type
    for number, part in enumerate(parts[1:], start=2):
        if missing := [name for name in first if name not in part]:
            raise _differ(f"dataset {number} of {len(parts)} lacks column {missing[0]!r} of dataset 1", missing[0])
        if added := [name for name in part if name not in first]:
            raise _differ(f"dataset {number} of {len(parts)} has column {added[0]!r}, which dataset 1 lacks", added[0])
        for name, sql_type in part.items():
            earlier, known = typed[name]
            if not _unitable(known, sql_type):
                there = f"{known} in dataset {earlier} and {sql_type} in dataset {number} of {len(parts)}"
                raise _differ(f"column {name!r} is {there}", name)


def _first_typed(name: str, parts: Sequence[Columns]) -> tuple[int, str]:
    """Return the number of the first dataset in which the column has a value, and its type there."""
    there = [(number, part[name]) for number, part in enumerate(parts, start=1) if name in part]
    return next(((number, sql_type) for number, sql_type in there if family(sql_type) != "missing"), there[0])


def _unitable(one: str, other: str) -> bool:
    families: set[Family] = {family(one), family(other)}
    return (
        one == other
        or (len(families) == 1 and families != {"other"})
        or families <= NUMBERS
        or families == {"date", "timestamp"}
        or "missing" in families
    )


def _differ(what: str, column: str) -> TaskFailure:
    return TaskFailure(
        "columns_differ",
        f"The datasets cannot be united: {what}.",
        remedy="Give all of them the same columns and types, for example by transforming each of them first.",
        column=column,
    )
