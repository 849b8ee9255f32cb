"""Compile expressions of filter and derive steps to SQL; check their types and bind every value."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from shared.errors import TaskFailure
from shared.jobs.data import expressions as ex
from worker.tables.parquet.columns import NUMBERS, TEMPORAL, Columns, Family, family, quoted, unknown_column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel


class Bindings:
    """The values of a transformation, each bound under a distinct name."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._prefix = f"v{secrets.token_hex(8)}"  # so that no column name looks like a placeholder

    def bind(self, value: Any) -> str:
        """Return the placeholder for a value."""
        name = f"{self._prefix}_{len(self._values)}_"
        self._values[name] = value
        return f"${name}"

    def used_in(self, sql: str) -> dict[str, Any]:
        """Return the values whose placeholders occur in `sql`; DuckDB refuses unused ones."""
        return {name: value for name, value in self._values.items() if f"${name}" in sql}


@dataclass(frozen=True)
class Scope:
    """The columns that an expression may name, and the place of the expression for messages."""

    columns: Columns
    bindings: Bindings
    where: str


@dataclass(frozen=True)
class Compiled:
    """The SQL of an expression, the family of its value, and the value itself if it is a literal text."""

    sql: str
    family: Family
    literal: str | None = None


def compile_expression(expression: ex.Expression, scope: Scope) -> Compiled:
    """Return the SQL of an expression.

    Raises `TaskFailure`: ``unknown_column``, or ``wrong_type`` where operands do not fit.
    """
    return _compile(expression, scope)


def compile_condition(expression: ex.Expression, scope: Scope) -> str:
    """Return the SQL of a boolean expression, NULL where it cannot be computed."""
    return f"TRY({_need(_compile(expression, scope), {'boolean'}, scope, expression.op)})"


def present(sql: str, sql_type: str) -> str:
    """Return the value of a column of type `sql_type` as steps see it: not-a-number is missing."""
    return f"nullif({sql}, CAST('nan' AS {sql_type}))" if family(sql_type) == "float" else sql


def scalar(value: ex.Scalar, sql_type: str, scope: Scope, column: str) -> str:
    """Return the SQL of a fixed value for a column of type `sql_type`. Raises ``wrong_type`` if it does not fit."""
    kind = family(sql_type)
    given = _literal(value, scope)
    if kind == "missing":  # a column without any value takes the type of the value
        return given.sql
    fits = given.family == kind or (kind in {"float", "decimal"} and given.family in NUMBERS)
    if kind in TEMPORAL and given.literal is not None:
        return _as_temporal(given, kind, scope).sql
    if not fits:
        raise TaskFailure(
            "wrong_type",
            f"{scope.where}: the value {value!r} does not fit column {column!r}, which is {kind}.",
            remedy="Give a value of that type, or convert the column in an earlier 'cast' step.",
            column=column,
        )
    return f"CAST({given.sql} AS {sql_type})"


def wrong_type(message: str, **details: Any) -> TaskFailure:
    """Return the failure for a value of a type that does not fit."""
    return TaskFailure("wrong_type", f"{message}.", remedy="Convert it in an earlier 'cast' step.", **details)


@singledispatch
def _compile(node: BaseModel, scope: Scope) -> Compiled:
    raise NotImplementedError(type(node).__name__)


@_compile.register
def _(node: ex.ColumnValue, scope: Scope) -> Compiled:
    if node.name not in scope.columns:
        raise unknown_column(node.name, scope.columns, scope.where)
    sql_type = scope.columns[node.name]
    return Compiled(present(quoted(node.name), sql_type), family(sql_type))


@_compile.register
def _(node: ex.LiteralValue, scope: Scope) -> Compiled:
    return Compiled("NULL", "missing") if node.value is None else _literal(node.value, scope)


_COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@_compile.register
def _(node: ex.Compare, scope: Scope) -> Compiled:
    (left, right), _ = _alike([node.left, node.right], scope, node.op)
    return Compiled(f"({left} {_COMPARISONS[node.op]} {right})", "boolean")


@_compile.register
def _(node: ex.Between, scope: Scope) -> Compiled:
    (value, low, high), _ = _alike([node.value, node.low, node.high], scope, node.op)
    return Compiled(f"({value} BETWEEN {low} AND {high})", "boolean")


@_compile.register
def _(node: ex.OneOf, scope: Scope) -> Compiled:
    operands = [_compile(node.value, scope), *(_literal(option, scope) for option in node.options)]
    (value, *options), _ = _unified(operands, scope, node.op)
    return Compiled(f"({value} IN ({', '.join(options)}))", "boolean")


@_compile.register
def _(node: ex.IsMissing, scope: Scope) -> Compiled:
    return Compiled(f"(TRY({_compile(node.value, scope).sql}) IS NULL)", "boolean")


@_compile.register
def _(node: ex.Logic, scope: Scope) -> Compiled:
    parts = [_need(_compile(one, scope), {"boolean"}, scope, node.op) for one in node.conditions]
    return Compiled(f"({f' {node.op.upper()} '.join(parts)})", "boolean")


@_compile.register
def _(node: ex.Not, scope: Scope) -> Compiled:
    return Compiled(f"(NOT {_need(_compile(node.condition, scope), {'boolean'}, scope, node.op)})", "boolean")


@_compile.register
def _(node: ex.TextTest, scope: Scope) -> Compiled:
    value = _need(_compile(node.value, scope), {"string"}, scope, node.op)
    return Compiled(f"{node.op}({value}, {_need(_compile(node.text, scope), {'string'}, scope, node.op)})", "boolean")


_ARITHMETIC: dict[str, str] = {"add": "({} + {})", "subtract": "({} - {})", "multiply": "({} * {})"}


@_compile.register
def _(node: ex.Arithmetic, scope: Scope) -> Compiled:
    left, right = (_compile(one, scope) for one in (node.left, node.right))
    a, b = (_need(one, NUMBERS, scope, node.op) for one in (left, right))
    kind = _widest([left.family, right.family])
    match node.op:
        case "divide":
            return Compiled(f"(CAST({a} AS DOUBLE) / nullif(CAST({b} AS DOUBLE), 0))", "float")
        case "modulo":
            return Compiled(f"({a} % nullif({b}, 0))", kind)
        case _:
            return Compiled(_ARITHMETIC[node.op].format(a, b), kind)


@_compile.register
def _(node: ex.Absolute, scope: Scope) -> Compiled:
    value = _compile(node.value, scope)
    return Compiled(f"abs({_need(value, NUMBERS, scope, node.op)})", value.family)


@_compile.register
def _(node: ex.Round, scope: Scope) -> Compiled:
    value = _compile(node.value, scope)
    digits = f"CAST({scope.bindings.bind(node.digits)} AS INTEGER)"
    return Compiled(f"round({_need(value, NUMBERS, scope, node.op)}, {digits})", value.family)


@_compile.register
def _(node: ex.TextFunction, scope: Scope) -> Compiled:
    value = _need(_compile(node.value, scope), {"string"}, scope, node.op)
    if node.op == "trim":
        return Compiled(rf"regexp_replace({value}, '^\s+|\s+$', '', 'g')", "string")
    return Compiled(f"{node.op}({value})", "integer" if node.op == "length" else "string")


@_compile.register
def _(node: ex.Substring, scope: Scope) -> Compiled:
    bounds = [node.start] if node.length is None else [node.start, node.length]
    arguments = ", ".join(scope.bindings.bind(bound) for bound in bounds)
    value = _need(_compile(node.value, scope), {"string"}, scope, node.op)
    return Compiled(f"substring({value}, {arguments})", "string")


@_compile.register
def _(node: ex.Replace, scope: Scope) -> Compiled:
    value = _need(_compile(node.value, scope), {"string"}, scope, node.op)
    old, new = scope.bindings.bind(node.old), scope.bindings.bind(node.new)
    return Compiled(f"replace({value}, {old}, {new})", "string")


@_compile.register
def _(node: ex.Concat, scope: Scope) -> Compiled:
    parts = (f"CAST({_compile(one, scope).sql} AS VARCHAR)" for one in node.values)
    return Compiled(f"({' || '.join(parts)})", "string")


@_compile.register
def _(node: ex.Coalesce, scope: Scope) -> Compiled:
    values, kind = _alike(node.values, scope, node.op)
    return Compiled(f"coalesce({', '.join(f'TRY({value})' for value in values)})", kind)


_PARTS = {"weekday": "isodow", "day_of_year": "dayofyear"}
_OF_TIME = frozenset({"hour", "minute", "second"})


@_compile.register
def _(node: ex.DatePartOf, scope: Scope) -> Compiled:
    fitting: set[Family] = {"timestamp", "time"} if node.part in _OF_TIME else {"timestamp", "date"}
    value = _need(_compile(node.value, scope), fitting, scope, f"{node.op} {node.part}")
    return Compiled(f"date_part('{_PARTS.get(node.part, node.part)}', {value})", "integer")


@_compile.register
def _(node: ex.DateTrunc, scope: Scope) -> Compiled:
    value = _compile(node.value, scope)
    fitting: set[Family] = {"timestamp"} if node.unit in _OF_TIME else {"timestamp", "date"}
    sql = f"date_trunc('{node.unit}', {_need(value, fitting, scope, f'{node.op} {node.unit}')})"
    return Compiled(f"CAST({sql} AS DATE)", "date") if value.family == "date" else Compiled(sql, "timestamp")


@_compile.register
def _(node: ex.Case, scope: Scope) -> Compiled:
    conditions = [_need(_compile(branch.when, scope), {"boolean"}, scope, node.op) for branch in node.branches]
    otherwise = node.otherwise or ex.LiteralValue(op="literal", value=None)
    (*values, last), kind = _alike([*(branch.then for branch in node.branches), otherwise], scope, node.op)
    branches = " ".join(f"WHEN {c} THEN {v}" for c, v in zip(conditions, values, strict=True))
    return Compiled(f"(CASE {branches} ELSE {last} END)", kind)


def _literal(value: ex.Scalar, scope: Scope) -> Compiled:
    placeholder = scope.bindings.bind(value)
    match value:
        case bool():
            return Compiled(f"CAST({placeholder} AS BOOLEAN)", "boolean")
        case int():
            return Compiled(f"CAST({placeholder} AS BIGINT)", "integer")
        case float():
            return Compiled(f"CAST({placeholder} AS DOUBLE)", "float")
        case str():
            return Compiled(f"CAST({placeholder} AS VARCHAR)", "string", literal=value)


def _alike(expressions: Sequence[ex.Expression], scope: Scope, op: str) -> tuple[list[str], Family]:
    return _unified([_compile(one, scope) for one in expressions], scope, op)


def _unified(operands: Sequence[Compiled], scope: Scope, op: str) -> tuple[list[str], Family]:
    """Return the operands' SQL and their common family; a text next to a date or time is read as one."""
    families = {one.family for one in operands} - {"missing"}
    temporal = {one.family for one in operands if one.family in TEMPORAL}
    if temporal <= {"date", "timestamp"} and temporal:
        target: Family | None = "timestamp" if "timestamp" in temporal else "date"
    else:
        target = next(iter(temporal)) if len(temporal) == 1 else None
    if target:
        operands = [_as_temporal(one, target, scope) if one.literal is not None else one for one in operands]
        families = {one.family for one in operands} - {"missing"}
    if not families:
        return [one.sql for one in operands], "missing"
    if families <= NUMBERS:
        return [one.sql for one in operands], _widest(list(families))
    if len(families) == 1 or families == {"date", "timestamp"}:
        return [one.sql for one in operands], target or families.pop()
    raise wrong_type(f"{scope.where}: '{op}' cannot combine {' and '.join(sorted(families))}")


def _widest(families: Sequence[Family]) -> Family:
    order: tuple[Family, ...] = ("float", "decimal", "integer")
    return next((one for one in order if one in families), "missing")


_MISSING: dict[Family, str] = {
    "boolean": "BOOLEAN", "string": "VARCHAR", "integer": "BIGINT", "timestamp": "TIMESTAMP", "date": "DATE",
}  # fmt: skip


def _need(value: Compiled, fitting: set[Family] | frozenset[Family], scope: Scope, op: str) -> str:
    if value.family == "missing":
        sql_type = next(sql_type for kind, sql_type in _MISSING.items() if kind in fitting)
        return f"CAST({value.sql} AS {sql_type})"
    if value.family not in fitting:
        raise wrong_type(f"{scope.where}: '{op}' takes {' or '.join(sorted(fitting))}, not {value.family}")
    return value.sql


_TEMPORAL: dict[Family, tuple[str, Callable[[str], object], str]] = {
    "date": ("DATE", date.fromisoformat, "2026-01-31"),
    "timestamp": ("TIMESTAMP", datetime.fromisoformat, "2026-01-31T12:00:00"),
    "time": ("TIME", time.fromisoformat, "12:00:00"),
}


def _as_temporal(value: Compiled, target: Family, scope: Scope) -> Compiled:
    sql_type, parse, example = _TEMPORAL[target]
    try:
        parse(value.literal or "")
    except ValueError:
        message = f"{scope.where}: {value.literal!r} is not a {target} in ISO 8601 format."
        raise TaskFailure("wrong_type", message, remedy=f"Write it like {example}.") from None
    sql = f"CAST({value.sql} AS TIMESTAMPTZ)" if target == "timestamp" else value.sql  # else an offset is dropped
    return Compiled(f"CAST({sql} AS {sql_type})", target)
