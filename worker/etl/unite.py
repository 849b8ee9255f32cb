"""Unite datasets with the same columns, matched by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from worker.tables.duck.engine import parquet
from worker.tables.parquet.columns import NUMBERS, Columns, Family, family, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worker.tables.duck.engine import Engine


def define_united(name: str, datasets: Sequence[Path], engine: Engine) -> Columns:
    """Define the view `name` over one or more Parquet files and return its columns.

    Numbers unite with numbers and dates with timestamps. Not-a-number becomes missing.
    Raises `TaskFailure` (``columns_differ``) if names or types cannot be united.
    """
    _need_unitable([engine.columns(parquet([path])) for path in datasets])
    united = parquet(datasets)
    columns = engine.columns(united)
    chosen = ", ".join(_without_nan(column, sql_type) for column, sql_type in columns.items())
    engine.define(name, f"SELECT {chosen} FROM ({united})")  # noqa: S608 - names are quoted, paths are ours
    return columns


def _without_nan(name: str, sql_type: str) -> str:
    column = quoted(name)
    return f"nullif({column}, 'nan') AS {column}" if family(sql_type) == "float" else column


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
