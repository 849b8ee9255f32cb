# ruff: noqa: S608 - this module builds SQL; names are quoted and numbers are typed
"""Expressions of a report's queries: keys, truncated times, measures; a column of the wrong type is refused."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure
from worker.report.data.sources import Table
from worker.tables.parquet.columns import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.jobs.charts import TimeUnit
    from shared.jobs.data.steps import Measure, SortKey

MISSING = "(missing)"
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MOST_TEXT = 60
_FUNCTIONS = {
    "sum": "sum", "mean": "avg", "min": "min", "max": "max", "median": "median", "stddev": "stddev_samp",
    "first": "first", "last": "last", "count": "count",
}  # fmt: skip
_NUMERIC = {"sum", "mean", "median", "quantile", "stddev"}


class Selection:
    """Expressions over a table, with aliases (c0, c1, ...) that cannot clash with a column's name."""

    def __init__(self, table: Table, where: str) -> None:
        """Select from `table`; `where` names the chart or table in messages."""
        self.table = table
        self.where = where
        self._expressions: list[str] = []
        self._conditions: list[str] = []

    def column(self, name: str) -> str:
        """Add an unchanged column; return its alias."""
        return self._add(self.table.need(name, self.where))

    def number(self, name: str) -> str:
        """Add a column of numbers; rows in which it is missing or not finite are omitted. Returns its alias."""
        self.table.need(name, self.where)
        if not self.table.is_number(name):
            raise self._wrong_type(name, "numbers")
        self._conditions.append(self.table.present(name))
        return self._add(f"CAST({quoted(name)} AS DOUBLE)")

    def position(self, name: str, unit: TimeUnit | None = None) -> str:
        """Add a column of numbers or times, like `number`. Returns its alias."""
        self.table.need(name, self.where)
        if unit is None and not self.table.is_time(name):
            return self.number(name)
        self._conditions.append(self.table.present(name))
        return self.key(name, unit)

    def key(self, name: str, unit: TimeUnit | None = None) -> str:
        """Add a column to group by, times truncated to `unit`. Returns its alias."""
        self.table.need(name, self.where)
        column = self.table.finite(name)
        if unit is None:
            return self._add(f"CAST({column} AS VARCHAR)" if self.table.is_nested(name) else column)
        if not self.table.is_time(name):
            raise self._wrong_type(name, "dates or times")
        if unit == "weekday":
            return self._add(f"isodow({column})")
        if unit == "hour_of_day":
            return self._add(f"hour(CAST({column} AS TIMESTAMP))")
        return self._add(f"date_trunc('{unit}', CAST({column} AS TIMESTAMP))")

    def moment(self, name: str, unit: TimeUnit | None) -> str | None:
        """Add the times that `key` truncates to `unit`, as they are; return the alias, None without a unit."""
        return None if unit is None else self._add(f"CAST({self.table.finite(name)} AS TIMESTAMP)")

    def measure(self, measure: Measure, *, numeric: bool = False) -> str:
        """Add the input of `measure` and return the aggregate over it. `numeric` refuses other types."""
        if measure.column is None:
            return "count(*)"
        column, function = measure.column, measure.function
        self.table.need(column, self.where)
        counts = function in {"count", "count_distinct"}
        if (function in _NUMERIC or (numeric and not counts)) and not self.table.is_number(column):
            raise self._wrong_type(column, f"numbers, which {function!r} needs")
        alias = self._add(self.table.finite(column))
        if function == "count_distinct":
            return f"count(DISTINCT {alias})"
        if function == "quantile":
            return f"quantile_cont({alias}, {float(measure.quantile or 0)!r})"
        order = self._order(measure.order_by) if measure.order_by else ""
        chosen = f" FILTER (WHERE {alias} IS NOT NULL)" if order else ""
        return f"{_FUNCTIONS[function]}({alias}{order}){chosen}"

    @property
    def sql(self) -> str:
        """The query for the chosen expressions, without the omitted rows."""
        return self.all_sql + (f" WHERE {' AND '.join(self._conditions)}" if self._conditions else "")

    @property
    def all_sql(self) -> str:
        """The query for the chosen expressions of all rows."""
        return f"SELECT {', '.join(self._expressions) or '1'} FROM {quoted(self.table.name)}"

    def _order(self, keys: Iterable[SortKey]) -> str:
        return " ORDER BY " + ", ".join(
            f"{self.column(key.column)} {key.order.upper()} NULLS {key.missing.upper()}" for key in keys
        )

    def _add(self, expression: str) -> str:
        alias = f"c{len(self._expressions)}"
        self._expressions.append(f"{expression} AS {alias}")
        return alias

    def _wrong_type(self, column: str, wanted: str) -> TaskFailure:
        kind = self.table.columns[column]
        return TaskFailure(
            "wrong_type",
            f"{self.where}: the column {column!r} of {self.table.name!r} is {kind}, not {wanted}.",
            remedy="Choose another column or chart, or cast the column with etl.transform_data.",
            column=column,
            type=kind,
        )


def category(value: Any, unit: TimeUnit | None = None) -> str:
    """Return the text of a category, at most 60 characters."""
    if value is None:
        return MISSING
    if unit == "weekday":
        return _WEEKDAYS[int(value) - 1]
    if unit == "hour_of_day":
        return f"{int(value):02d}:00"
    if unit is not None and isinstance(value, datetime):
        return _cut_off(value, unit)
    if isinstance(value, datetime):
        value = value.isoformat(sep=" ", timespec="auto")
    elif isinstance(value, date):
        value = value.isoformat()
    text = str(value) if str(value).strip() else "(empty)"
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _cut_off(value: datetime, unit: TimeUnit) -> str:
    match unit:
        case "year":
            return f"{value.year}"
        case "quarter":
            return f"{value.year} Q{(value.month - 1) // 3 + 1}"
        case "month":
            return f"{value:%Y-%m}"
        case "week" | "day":
            return f"{value:%Y-%m-%d}"
        case _:
            return f"{value:%Y-%m-%d %H:%M}"
