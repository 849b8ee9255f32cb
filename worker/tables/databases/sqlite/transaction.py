"""Load into a SQLite file in one `BEGIN IMMEDIATE` transaction, so a second delivery waits for the first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.tables.databases.base import Transaction
from worker.tables.databases.definitions import SqliteTable, own
from worker.tables.databases.plan import read_batches
from worker.tables.databases.sqlite import definition
from worker.tables.databases.sqlite.dialect import SqliteDialect, affinity, keeps
from worker.tables.databases.sqlite.reading import stage_typed_rows
from worker.tables.databases.statements import STAGE, create_stage, is_unchanged, matches, names_in, select
from worker.tables.databases.types import ExistingColumn, Shape, shape_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from worker.tables.databases.definitions import Defined, Definition
    from worker.tables.databases.plan import Progress, TablePlan
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_NUMBER = r"^[ \t\n\v\f\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$"
_ANY = Shape("other")  # the affinity decides, see `fits`


class SqliteTransaction(Transaction):
    """One write transaction of a SQLite file."""

    dialect = SqliteDialect()

    def __init__(self, session: sqlite3.Connection) -> None:
        self._session = session

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the affinity of the column keeps values of `kind` unchanged, or the values are looked at."""
        return keeps(column.declared, kind) or _is_looked_at(column, kind)

    def refuse_inexact(self, plan: TablePlan, existing: list[ExistingColumn]) -> None:
        """Raise `TaskFailure` (``value_not_exact``) for a staged text that a column of times would make a number."""
        self._session.create_function("celeriac_is_number", 1, _is_number, deterministic=True)
        for name in _looked_at(plan, existing):
            condition = f"celeriac_is_number({self.dialect.quoted(name)})"
            for (example,) in self.rows(f"SELECT {self.dialect.quoted(name)} FROM {STAGE} WHERE {condition} LIMIT 1"):  # noqa: S608 - quoted names
                raise _becomes_number(name, example)

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        return self._session.execute(sql, values).fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        return max(0, self._session.execute(sql, values).rowcount)

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target, or None if it does not exist."""
        *schema, table = plan.table.split(".")
        found = self.rows(
            "SELECT name, type, \"notnull\" AND dflt_value IS NULL AND NOT (pk AND upper(type) = 'INTEGER'), "
            "hidden > 1 "
            "FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid",
            table,
            schema[0] if schema else "main",
        )
        columns = [
            ExistingColumn(name, declared, bool(required), _ANY, generated=bool(generated))
            for name, declared, required, generated in found
        ]
        return columns or None

    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some rows stay far below it
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",  # noqa: ARG002 - SQLite has no dates that are beyond
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Write the rows of a table to a Parquet file with its declared types if all values fit them."""
        *schema, name = table.split(".")
        declared = self._session.execute(
            "SELECT name, upper(type) FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid",
            (name, *(schema or ["main"])),
        ).fetchall()
        if columns:
            known = {self.dialect.fold(one): kind for one, kind in declared}
            declared = [(one, known.get(self.dialect.fold(one), "")) for one in columns]
        query = select(self.dialect, table, condition, columns)
        return stage_typed_rows(self._session, query, declared, staged, temporal=temporal, on_rows=on_rows)

    def define(self, table: str, among: Collection[str]) -> Defined:
        """Return the definition of a table."""
        return definition.define(self, table, among)

    def create(self, made: Definition, table: str, _source: str, names: Mapping[str, str]) -> None:
        """Create a table with all but its indexes."""
        definition.create(self, own(made, SqliteTable), table, names)

    def complete(self, made: Definition, table: str, _source: str) -> None:
        """Create the indexes of a table."""
        definition.complete(self, own(made, SqliteTable), table)

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Do nothing: `BEGIN IMMEDIATE` locks the whole file."""

    def insert(self, plan: TablePlan, existing: list[ExistingColumn], on_progress: Progress) -> int:
        """Append the dataset to the target and return the number of rows."""
        return self._insert_into(plan.target, plan, on_progress, _looked_at(plan, existing))

    def stage(self, plan: TablePlan, on_progress: Progress) -> None:
        """Copy the dataset into a temporary table, indexed by the key."""
        self.change(create_stage(plan))
        self._insert_into(STAGE, plan, on_progress)
        self.change(f"CREATE INDEX temp.celeriac_stage_key ON {STAGE} ({names_in(plan, plan.key)})")

    def drop_unchanged(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> None:
        """Delete the staged rows that are unchanged in the target."""
        same = is_unchanged(plan, lambda name: f"t.{self.dialect.quoted(name)} IS {value(name)}")
        self.change(
            f"DELETE FROM {STAGE} WHERE rowid IN (SELECT s.rowid FROM {STAGE} AS s "  # noqa: S608 - quoted names
            f"JOIN {plan.target} AS t ON {matches(plan, value)} WHERE {same})"
        )

    def commit(self) -> None:
        self._session.execute("COMMIT")

    def _insert_into(self, table: str, plan: TablePlan, on_progress: Progress, looked_at: Sequence[str] = ()) -> int:
        marks = ", ".join("?" * len(plan.columns))
        rows = (row for batch in read_batches(plan, on_progress) for row in _rows(_without_numbers(batch, looked_at)))
        insertion = f"INSERT INTO {table} ({names_in(plan, plan.columns)}) VALUES ({marks})"  # noqa: S608 - quoted names
        return self._session.executemany(insertion, rows).rowcount


def _is_looked_at(column: ExistingColumn, kind: pa.DataType) -> bool:
    """Return whether texts go into a column of times, whose affinity keeps all but those that are numbers."""
    return (
        pa.types.is_string(kind)
        and affinity(column.declared) == "NUMERIC"
        and any(word in column.declared.upper() for word in ("DATE", "TIME"))
    )


def _looked_at(plan: TablePlan, existing: list[ExistingColumn]) -> list[str]:
    known = {plan.dialect.fold(column.name): column for column in existing}
    return [name for name, kind in plan.columns.items() if _is_looked_at(known[plan.dialect.fold(name)], kind)]


def _without_numbers(batch: pa.RecordBatch, looked_at: Sequence[str]) -> pa.RecordBatch:
    for name in looked_at:
        column = batch.column(name)
        numbers = pc.filter(column, pc.match_substring_regex(column, _NUMBER))
        if len(numbers):
            raise _becomes_number(name, numbers[0].as_py())
    return batch


def _is_number(value: str | None) -> bool:
    return value is not None and re.search(_NUMBER, value) is not None


def _becomes_number(name: str, example: str) -> TaskFailure:
    return TaskFailure(
        "value_not_exact",
        f"A value of column {name!r}, {example!r}, would become a number in SQLite's column of times.",
        remedy="Write it as a time in a transform step, or change the column of the table to TEXT.",
        column=name,
    )


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a batch as SQLite stores them."""
    columns = [_stored(column, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return zip(*columns, strict=True)


def _stored(column: pa.Array, name: str) -> Sequence[Any]:
    family = shape_of(column.type).family
    if family == "decimal":
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if family in {"date", "timestamp", "timestamptz", "time"}:
        column = pc.cast(column, pa.string())
    elif family == "float" and pc.any(pc.is_nan(column)).as_py():
        raise TaskFailure(
            "value_not_storable",
            f"The column {name!r} has NaN values, which SQLite would store as NULL.",
            remedy="Replace NaN in a transform step, for example by NULL.",
            column=name,
        )
    values: list[Any] = column.to_pylist()
    return values
