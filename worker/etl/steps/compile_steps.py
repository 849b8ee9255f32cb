# ruff: noqa: S608 - this module builds SQL; every name is quoted and every value is bound
"""Compile declarative steps to SQL: every name quoted, every value bound, columns known before a query runs.

`cast` is not here: what it does depends on the rows (see casts.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING

from shared.jobs.data import steps as st
from worker.etl.steps.compile_expressions import (
    Bindings,
    Scope,
    compile_condition,
    compile_expression,
    present,
    scalar,
    wrong_type,
)
from worker.tables.duck.exact import as_integer
from worker.tables.parquet.columns import (
    NUMBERS,
    Columns,
    family,
    fresh_name,
    need_columns,
    need_distinct,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel

#: Steps that process one row at a time and keep the order: repeating them costs little and gives the same rows.
ROW_WISE = (
    st.SelectStep,
    st.RenameStep,
    st.CastStep,
    st.FilterStep,
    st.DropMissingStep,
    st.FillMissingStep,
    st.DeriveStep,
)


@dataclass(frozen=True)
class Source:
    """The input of a step: the columns before it, the other inputs, and the place of the step for messages."""

    sql: str
    columns: Columns
    inputs: Mapping[str, Columns]
    bindings: Bindings
    where: str

    @property
    def rows(self) -> str:
        """The rows before the step, for a FROM clause."""
        return f"(\n{self.sql}\n) AS rows_before"

    @property
    def scope(self) -> Scope:
        """The columns that expressions of the step may name."""
        return Scope(self.columns, self.bindings, self.where)

    def value(self, name: str) -> str:
        """Return a column as steps see its values: not-a-number is missing; what a step passes on keeps it."""
        return present(quoted(name), self.columns[name])

    def need(self, names: Iterable[str]) -> None:
        """Raise ``unknown_column`` for a name that does not exist."""
        need_columns(names, self.columns, self.where)


def compile_step(step: st.Step, source: Source) -> str:
    """Return the SQL of the rows after a step.

    Raises `TaskFailure`: ``unknown_column``, ``duplicate_column``, ``wrong_type``.
    """
    return _compile(step, source)


def order_by(keys: Sequence[st.SortKey], source: Source, *, backwards: bool = False) -> str:
    """Return an ORDER BY clause, or nothing if there are no keys."""
    source.need(key.column for key in keys)
    parts = []
    for key in keys:
        descending = (key.order == "desc") != backwards
        first = (key.missing == "first") != backwards
        parts.append(
            f"{source.value(key.column)} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if first else 'LAST'}"
        )
    return f"ORDER BY {', '.join(parts)}" if parts else ""


@singledispatch
def _compile(step: BaseModel, source: Source) -> str:
    raise NotImplementedError(type(step).__name__)


@_compile.register
def _(step: st.SelectStep, source: Source) -> str:
    source.need(step.columns)
    return f"SELECT {_list(step.columns)} FROM {source.rows}"


@_compile.register
def _(step: st.RenameStep, source: Source) -> str:
    source.need(step.columns)
    need_distinct((step.columns.get(name, name) for name in source.columns), source.where)
    renamed = (f"{quoted(name)} AS {quoted(step.columns.get(name, name))}" for name in source.columns)
    return f"SELECT {', '.join(renamed)} FROM {source.rows}"


@_compile.register
def _(step: st.FilterStep, source: Source) -> str:
    return f"SELECT * FROM {source.rows} WHERE {compile_condition(step.where, source.scope)}"


@_compile.register
def _(step: st.DropMissingStep, source: Source) -> str:
    names = step.columns or list(source.columns)
    source.need(names)
    complete = " AND ".join(f"{source.value(name)} IS NOT NULL" for name in names)
    return f"SELECT * FROM {source.rows} WHERE {complete}"


@_compile.register
def _(step: st.FillMissingStep, source: Source) -> str:
    source.need(step.columns)
    filled = {
        name: f"coalesce({source.value(name)}, {scalar(value, source.columns[name], source.scope, name)})"
        for name, value in step.columns.items()
    }
    return replacing(filled, source)


@_compile.register
def _(step: st.DeriveStep, source: Source) -> str:
    derived = {
        name: f"TRY({compile_expression(expression, source.scope).sql})" for name, expression in step.columns.items()
    }
    return replacing(derived, source)


@_compile.register
def _(step: st.DeduplicateStep, source: Source) -> str:
    names = step.columns or list(source.columns)
    source.need(names)
    if step.columns is None and not step.order_by:
        return f"SELECT DISTINCT * FROM {source.rows}"
    kept, place = _list(source.columns), quoted(fresh_name("row_place", source.columns))
    backwards = step.keep == "last"
    if step.order_by:
        rows, order = source.rows, order_by(step.order_by, source, backwards=backwards)
    else:
        rows = f"(SELECT *, row_number() OVER () AS {place} FROM {source.rows}) AS placed"
        order = f"ORDER BY {place} {'DESC' if backwards else 'ASC'}"
    return f"SELECT {kept} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {_values(names, source)} {order}) = 1"


@_compile.register
def _(step: st.JoinStep, source: Source) -> str:
    right = source.inputs[step.input]
    where = f"{source.where} with {step.input!r}"
    source.need(step.on)
    need_columns(step.on.values(), right, where)
    for ours, theirs in step.on.items():
        kinds = {family(source.columns[ours]), family(right[theirs])}
        if not ("missing" in kinds or len(kinds) == 1 or kinds <= NUMBERS or kinds == {"date", "timestamp"}):
            raise wrong_type(
                f"{where}: columns {ours!r} ({family(source.columns[ours])}) and {theirs!r} "
                f"({family(right[theirs])}) cannot be compared",
                column=ours,
            )
    on = " AND ".join(
        f"{present(f'l.{quoted(ours)}', source.columns[ours])} = {present(f'r.{quoted(theirs)}', right[theirs])}"
        for ours, theirs in step.on.items()
    )
    tables = f"(\n{source.sql}\n) AS l {step.how.upper()} JOIN {quoted(step.input)} AS r ON {on}"
    return f"SELECT {', '.join(_joined(step, source, right))} FROM {tables}"


def _joined(step: st.JoinStep, source: Source, right: Columns) -> list[str]:
    """Return the columns after a join: the left ones (keys from both where rows may have no left), then the right."""
    from_both = step.how in {"right", "full"}
    kept = [
        f"coalesce(l.{quoted(name)}, r.{quoted(step.on[name])}) AS {quoted(name)}"
        if from_both and name in step.on
        else f"l.{quoted(name)}"
        for name in source.columns
    ]
    if step.how in {"semi", "anti"}:
        return kept
    taken = {name.casefold() for name in source.columns}
    added = {
        name: f"{name}{step.suffix}" if name.casefold() in taken else name
        for name in right
        if name not in step.on.values()
    }
    need_distinct([*source.columns, *added.values()], source.where)
    return kept + [f"r.{quoted(name)} AS {quoted(new)}" for name, new in added.items()]


_AGGREGATES = {
    "mean": "avg", "min": "min", "max": "max", "median": "median", "stddev": "stddev_samp", "sum": "sum",
    "quantile": "quantile_cont", "count": "count", "first": "first", "last": "last",
}  # fmt: skip
_NUMERIC = {"sum", "mean", "median", "quantile", "stddev"}


@_compile.register
def _(step: st.AggregateStep, source: Source) -> str:
    source.need(step.group_by)
    need_distinct([*step.group_by, *step.measures], source.where)
    keys = [source.value(name) for name in step.group_by]
    chosen = [f"{key} AS {quoted(name)}" for key, name in zip(keys, step.group_by, strict=True)]
    chosen += [f"{_measure(measure, source)} AS {quoted(name)}" for name, measure in step.measures.items()]
    groups = f" GROUP BY {', '.join(keys)}" if keys else ""
    return f"SELECT {', '.join(chosen)} FROM {source.rows}{groups}"


def _measure(measure: st.Measure, source: Source) -> str:
    if measure.column is None:
        return "count(*)"
    column = _numeric_column(measure.function, measure.column, source, numeric=measure.function in _NUMERIC)
    match measure.function:
        case "sum":
            return _sum(measure.column, source)
        case "count_distinct":
            return f"count(DISTINCT {column})"
        case "quantile":
            return f"quantile_cont({column}, CAST({source.bindings.bind(measure.quantile)} AS DOUBLE))"
        case "first" | "last":
            order = order_by(measure.order_by, source)
            return f"{measure.function}({column} {order}) FILTER (WHERE {column} IS NOT NULL)"
        case function:
            return f"{_AGGREGATES[function]}({column})"


@_compile.register
def _(step: st.SortStep, source: Source) -> str:
    return f"SELECT * FROM {source.rows} {order_by(step.by, source)}"


@_compile.register
def _(step: st.LimitStep, source: Source) -> str:
    count, offset = source.bindings.bind(step.count), source.bindings.bind(step.offset)
    return f"SELECT * FROM {source.rows} LIMIT {count} OFFSET {offset}"


@_compile.register
def _(step: st.WindowStep, source: Source) -> str:
    source.need(step.partition_by)
    parts = f"PARTITION BY {_values(step.partition_by, source)} " if step.partition_by else ""
    over = f"{parts}{order_by(step.order_by, source)}"
    return replacing({name: _windowed(column, over, source) for name, column in step.columns.items()}, source)


def _windowed(column: st.WindowColumn, over: str, source: Source) -> str:
    if column.column is None:
        return f"{column.function}() OVER ({over})"
    kind, _, function = column.function.partition("_")
    name = _numeric_column(column.function, column.column, source, numeric=function in _NUMERIC)
    if kind in {"lag", "lead"}:
        return f"{kind}({name}, CAST({source.bindings.bind(column.offset or 1)} AS BIGINT)) OVER ({over})"
    start = "UNBOUNDED" if column.rows is None else f"CAST({source.bindings.bind(column.rows - 1)} AS BIGINT)"
    frame = f"OVER ({over} ROWS BETWEEN {start} PRECEDING AND CURRENT ROW)"
    return _sum(column.column, source, frame) if function == "sum" else f"{_AGGREGATES[function]}({name}) {frame}"


def _sum(column: str, source: Source, over: str = "") -> str:
    """Return the sum of a column; of integers as one of 64 bits, or the query fails."""
    total = f"sum({source.value(column)}) {over}"
    whole = family(source.columns[column]) in {"integer", "missing"}
    return as_integer(total, f"the sum of {column}") if whole else total


def _numeric_column(function: str, column: str, source: Source, *, numeric: bool) -> str:
    source.need([column])
    kind = family(source.columns[column])
    if numeric and kind not in NUMBERS | {"missing"}:
        raise wrong_type(f"{source.where}: {function!r} takes a number, and column {column!r} is {kind}", column=column)
    return source.value(column)


def replacing(new: Mapping[str, str], source: Source) -> str:
    """Return a query for all columns, some of them replaced, with added ones at the end."""
    added = [name for name in new if name not in source.columns]
    need_distinct([*source.columns, *added], source.where)
    chosen = [f"{new.get(name, quoted(name))} AS {quoted(name)}" for name in [*source.columns, *added]]
    return f"SELECT {', '.join(chosen)} FROM {source.rows}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def _values(names: Iterable[str], source: Source) -> str:
    return ", ".join(source.value(name) for name in names)
