# ruff: noqa: S608 - this module builds SQL; every name is quoted and every value is bound
"""Convert columns to other types, and count, reject or null the values that cannot be converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from shared.jobs.data.steps import CastStep, CastTo
from worker.etl.steps.compile_expressions import wrong_type
from worker.tables.parquet.columns import NUMBERS, Family, family, fresh_name, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.etl.steps.compile_expressions import Bindings
    from worker.etl.steps.compile_steps import Source

REJECT_REASON = "reject_reason"
_SHOWN_CHARACTERS = 200  # of a value in a message

_SQL_TYPES = {
    "integer": "BIGINT", "float": "DOUBLE", "string": "VARCHAR", "boolean": "BOOLEAN",
    "date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "time": "TIME",
}  # fmt: skip
_FROM: dict[str, set[Family]] = {
    "integer": {*NUMBERS, "string", "boolean"},
    "float": {*NUMBERS, "string", "boolean"},
    "decimal": {*NUMBERS, "string", "boolean"},
    "boolean": {*NUMBERS, "string", "boolean"},
    "date": {"string", "date", "timestamp"},
    "timestamp": {"string", "date", "timestamp"},
    "timestamptz": {"string", "date", "timestamp"},
    "time": {"string", "time", "timestamp"},
}
_ZONED = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"}
# What a text has to look like; DuckDB also takes hexadecimal numbers, underscores, short years, and drops offsets.
_FORMS = {
    "integer": r"\s*[+-]?[0-9]+(\.0*)?\s*",
    "decimal": r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*",
    "float": r"(?i)\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?)\s*",
    "date": r"\s*[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([ T]00:00(:00(\.0+)?)?)?\s*",
    "dated": r"\s*[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?\s*",
    "timestamp": r"\s*[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?)?\s*",
    "timestamptz": r"\s*[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?\s*",
    "time": r"\s*[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?\s*",
}


@dataclass(frozen=True)
class Conversion:
    """How one column is converted. `sql` is NULL where the value cannot be converted."""

    column: str
    value: str
    """The column, as SQL."""
    target: str
    sql: str
    fallible: bool

    @property
    def is_bad(self) -> str:
        """A condition that is true where there is a value that cannot be converted."""
        return f"({self.value} IS NOT NULL AND {self.sql} IS NULL)"

    @property
    def shown(self) -> str:
        """The value as it was, for messages."""
        return f"left(CAST({quoted(self.column)} AS VARCHAR), {_SHOWN_CHARACTERS})"

    @property
    def reason(self) -> str:
        """Why rows are rejected; the same for all values."""
        return f"cast {self.column} to {self.target}"


def conversions(step: CastStep, source: Source) -> list[Conversion]:
    """Return how each column of a step is converted.

    Raises `TaskFailure`: ``unknown_column``; ``wrong_type`` where no value of a type can become the other.
    """
    source.need(step.columns)
    targets = {name: to if isinstance(to, CastTo) else CastTo(type=to) for name, to in step.columns.items()}
    return [_conversion(name, target, source) for name, target in targets.items()]


def _conversion(column: str, target: CastTo, source: Source) -> Conversion:
    sql_type = source.columns[column]
    kind, name = family(sql_type), source.value(column)
    if kind not in {"missing", *_FROM.get(target.type, {kind})}:
        raise wrong_type(
            f"{source.where}: column {column!r} is {kind}, which cannot become {target.type}", column=column
        )
    if target.format and kind not in {"string", "missing"}:
        raise wrong_type(f"{source.where}: 'format' reads text, and column {column!r} is {kind}", column=column)
    if sql_type in _ZONED and target.type == "timestamp" and not target.drop_offset:
        raise TaskFailure(
            "wrong_type",
            f"{source.where}: column {column!r} has instants, which lose their offset as a timestamp.",
            remedy="Cast it to 'timestamptz', or set 'drop_offset' to get the time in UTC.",
            column=column,
        )
    wanted = _SQL_TYPES.get(target.type, "DECIMAL({},{})".format(*target.digits))
    sql = f"CAST({name} AS {wanted})" if kind == "missing" else _reading(name, kind, wanted, target, source.bindings)
    return Conversion(column, name, target.type, sql, fallible=_is_fallible(kind, sql_type, wanted, target))


def _reading(name: str, kind: Family, wanted: str, target: CastTo, bindings: Bindings) -> str:
    if target.format:  # with %Y, DuckDB reads 24 as the year 24
        read = f"try_strptime({name}, {bindings.bind(target.format)})"
        return f"CASE WHEN {read} >= TIMESTAMP '1000-01-01' THEN CAST({read} AS {wanted}) END"
    converted = f"TRY_CAST({name} AS {wanted})"
    if kind == "string" and target.type in _FORMS:
        return _from_text(name, converted, target)
    if target.type == "integer" and kind in {"float", "decimal"}:
        return f"CASE WHEN {name} % 1 = 0 THEN {converted} END"
    if target.type == "date" and kind == "timestamp" and not target.drop_time:
        return f"CASE WHEN date_trunc('day', {name}) = {name} THEN {converted} END"
    if target.type == "float":
        return f"nullif({converted}, CAST('nan' AS DOUBLE))"
    return converted


def _from_text(name: str, converted: str, target: CastTo) -> str:
    form: str = target.type
    if target.drop_time:
        form = "dated"
    if target.drop_offset or target.type == "timestamptz":
        form = "timestamptz"
        converted = f"CAST(TRY_CAST({name} AS TIMESTAMPTZ) AS {_SQL_TYPES[target.type]})"
    matches = f"regexp_full_match({name}, '{_FORMS[form]}')"
    if target.type in {"integer", "float", "decimal"}:  # most texts are plain, and patterns are slow
        matches = f"(ltrim({name}, '0123456789') = '' OR {matches})"
    return f"CASE WHEN {matches} THEN {converted} END"


def _is_fallible(kind: Family, sql_type: str, wanted: str, target: CastTo) -> bool:
    if kind == "missing" or wanted in {sql_type, "VARCHAR"}:
        return False
    if kind == "string" or wanted.startswith("DECIMAL"):
        return True
    if target.type == "date" and kind == "timestamp":
        return not target.drop_time
    return wanted == "BIGINT" and (kind in {"float", "decimal"} or sql_type in {"UBIGINT", "HUGEINT", "UHUGEINT"})


def count_nulled(bad: Sequence[Conversion], source: Source) -> str:
    """Return a query for one row: how many values of each column cannot be converted."""
    counts = ", ".join(f"count(*) FILTER (WHERE {one.is_bad})" for one in bad)
    return f"SELECT {counts} FROM {source.rows}"


def count_refused(bad: Sequence[Conversion], source: Source) -> str:
    """Return a query for rows (index of the first column that is bad, rows, an example value)."""
    which = _first(bad, [str(index) for index in range(len(bad))])
    example = _first(bad, [one.shown for one in bad])
    return (
        f"SELECT which, count(*), min(example) FROM (SELECT {which} AS which, {example} AS example FROM {source.rows})"
        " WHERE which IS NOT NULL GROUP BY which ORDER BY which"
    )


def refused(bad: Sequence[Conversion], source: Source) -> str:
    """Return a query for the refused rows as they were, with the reason."""
    reasons = [
        f"{source.bindings.bind(f'{source.where}: ')} || '''' || {one.shown} || ''' ' || "
        f"{source.bindings.bind(f'in column {one.column!r} is not a valid {one.target}')}"
        for one in bad
    ]
    reason = quoted(fresh_name(REJECT_REASON, source.columns))
    return f"SELECT *, {_first(bad, reasons)} AS {reason} FROM {source.rows} WHERE {_any(bad)}"


def passed(bad: Sequence[Conversion], source: Source) -> str:
    """Return a query for the rows in which every value can be converted; the values are not yet converted."""
    return f"SELECT * FROM {source.rows} WHERE NOT {_any(bad)}"


def bad_row(one: Conversion, count: int, example: str, source: Source, index: int) -> TaskFailure:
    """Return the failure for rows that cannot be converted."""
    rows = "1 row" if count == 1 else f"{count} rows"
    return TaskFailure(
        "bad_row",
        f"{source.where}: {example!r} in column {one.column!r} is not a valid {one.target} "
        f"({rows} cannot be converted).",
        remedy="Set 'bad_rows' to 'reject' or 'null', or drop or fix such rows before this step.",
        step=index,
        column=one.column,
        example=example,
        count=count,
    )


def _first(bad: Sequence[Conversion], values: Sequence[str]) -> str:
    branches = " ".join(f"WHEN {one.is_bad} THEN {value}" for one, value in zip(bad, values, strict=True))
    return f"CASE {branches} END"


def _any(bad: Sequence[Conversion]) -> str:
    return f"({' OR '.join(one.is_bad for one in bad)})"
