"""Load into a SQLite file: one `BEGIN IMMEDIATE` transaction, so a second delivery waits for the first.

A file that is made here is set to WAL mode, so that readers go on while a load writes; an existing file keeps its mode.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure, TransientFailure
from worker.tables.load_plan import STAGE, ExistingColumn, fold_ascii, quote, read_batches, unloadable
from worker.tables.load_sql import CREATE_LEDGER, create_stage, is_unchanged, matches, update_matching
from worker.tables.load_types import Shape, shape_of, signed_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worker.reach.connections import SqliteConnection
    from worker.tables.load_plan import TablePlan

_DECLARED = {
    "bool": "BOOLEAN", "int": "INTEGER", "float": "REAL", "decimal": "TEXT", "text": "TEXT", "binary": "BLOB",
    "date": "DATE", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMPTZ", "time": "TIME",
}  # fmt: skip
_EXACT_IN_REAL_BITS = 32
_AFFINITIES = (("INT", "INTEGER"), ("CHAR", "TEXT"), ("CLOB", "TEXT"), ("TEXT", "TEXT"), ("BLOB", "BLOB"),
               ("REAL", "REAL"), ("FLOA", "REAL"), ("DOUB", "REAL"))  # fmt: skip
_TEXTUAL, _DATED = (
    {"TEXT", "BLOB"},
    {"TEXT", "BLOB", "NUMERIC"},
)  # no date looks like a number, so NUMERIC keeps it
_KEEPING = {
    "bool": {"INTEGER", "NUMERIC", "BLOB"}, "int": {"INTEGER", "NUMERIC", "BLOB"},
    "float": {"REAL", "NUMERIC", "BLOB"}, "decimal": _TEXTUAL, "text": _TEXTUAL, "binary": {"BLOB"},
    "date": _DATED, "timestamp": _DATED, "timestamptz": _DATED, "time": _DATED,
}  # fmt: skip
_TRANSIENT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PROTOCOL")
_ANY = Shape("other")  # affinity decides, see fits
fold = fold_ascii


def represent(kind: pa.DataType) -> pa.DataType:
    """Return the Arrow type in which a column is written; raise `TaskFailure` if SQLite has no place for it."""
    plain = signed_micros(kind)
    if shape_of(plain).family not in _DECLARED:
        raise unloadable(kind, "SQLite")
    return plain


@contextmanager
def opened(connection: SqliteConnection) -> Iterator[SqliteDatabase]:
    """Yield the database inside a write transaction that is rolled back unless committed."""
    try:
        is_new = not connection.path.exists()
        with closing(sqlite3.connect(connection.path, timeout=connection.lock_timeout_s, isolation_level=None)) as db:
            if is_new:
                db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            db.execute(CREATE_LEDGER.format(instant="TIMESTAMP"))
            yield SqliteDatabase(db)
    except sqlite3.Error as error:
        raise _failure_of(error, connection) from error


class SqliteDatabase:
    """One write transaction of a SQLite file."""

    primary_keys = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    fold = staticmethod(fold_ascii)

    def declare(self, kind: pa.DataType) -> str:
        """Return the declared type; its affinity leaves the stored values as they are."""
        return _DECLARED[shape_of(kind).family]

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the column's affinity keeps values of `kind` as they are written."""
        shape = shape_of(kind)
        if shape.family == "int" and affinity(column.declared) == "REAL":
            return (shape.size or 64) <= _EXACT_IN_REAL_BITS
        return affinity(column.declared) in _KEEPING[shape.family]

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        return max(0, self._connection.execute(sql, values).rowcount)

    def ensure(self, table: str, columns: str) -> None:
        """Make a table of this service's own if it is not there."""
        self.change(f"CREATE TABLE IF NOT EXISTS {table} ({columns.format(instant='TIMESTAMP')})")

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target, or None if it is not there."""
        *schema, table = plan.table.split(".")
        found = self.rows(
            "SELECT name, type, \"notnull\" AND dflt_value IS NULL AND NOT (pk AND upper(type) = 'INTEGER') "
            "FROM pragma_table_info(?, ?) ORDER BY cid",
            table,
            schema[0] if schema else "main",
        )
        columns = [ExistingColumn(name, declared, bool(required), _ANY) for name, declared, required in found]
        return columns or None

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Do nothing: `BEGIN IMMEDIATE` has done it for the whole file."""

    def insert(
        self, plan: TablePlan, _existing: list[ExistingColumn], on_progress: Callable[[int, int | None], None]
    ) -> int:
        """Append the dataset to the target and return the number of rows."""
        return self._insert_into(plan.target, plan, on_progress)

    def stage(self, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> None:
        """Copy the dataset into a temporary table (a file of SQLite's own), indexed by the key."""
        self.change(create_stage(plan, self.declare))
        self._insert_into(STAGE, plan, on_progress)
        self.change(f"CREATE INDEX temp.celeriac_stage_key ON {STAGE} ({', '.join(map(quote, plan.key))})")

    def drop_unchanged(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Delete the staged rows that the target has; return how many stay."""
        same = is_unchanged(plan, lambda name: f"t.{quote(name)} IS {value(name)}")
        self.change(
            f"DELETE FROM {STAGE} WHERE rowid IN (SELECT s.rowid FROM {STAGE} AS s "  # noqa: S608 - quoted names
            f"JOIN {plan.target} AS t ON {matches(plan, value)} WHERE {same})"
        )
        return int(self.rows(f"SELECT count(*) FROM {STAGE}")[0][0])  # noqa: S608 - a constant of ours

    def update(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Update the rows whose key is staged."""
        return self.change(update_matching(plan, value))

    def cast(self, column: ExistingColumn) -> str:
        """Return the staged column as it is."""
        return f"s.{quote(column.name)}"

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.execute("COMMIT")

    def _insert_into(self, quoted: str, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> int:
        names = ", ".join(map(quote, plan.columns))
        marks = ", ".join("?" * len(plan.columns))
        rows = (row for batch in read_batches(plan, on_progress) for row in _rows(batch))
        return self._connection.executemany(f"INSERT INTO {quoted} ({names}) VALUES ({marks})", rows).rowcount  # noqa: S608 - quoted names


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
            f"The column {name!r} has NaN values, which SQLite would turn into missing ones.",
            remedy="Replace NaN in a transform step, for example by a missing value.",
            column=name,
        )
    values: list[Any] = column.to_pylist()
    return values


def affinity(declared: str) -> str:
    """Return a column's affinity by SQLite's rules ("Determination Of Column Affinity", in their order)."""
    if not declared:
        return "BLOB"
    return next((affinity for part, affinity in _AFFINITIES if part in declared.upper()), "NUMERIC")


def _failure_of(error: sqlite3.Error, connection: SqliteConnection) -> TaskFailure:
    name = getattr(error, "sqlite_errorname", "") or ""
    text = f"SQLite says of the connection {connection.name!r}: {error}."
    if name.startswith(_TRANSIENT):
        return TransientFailure(
            "database_busy", text, remedy="Another process writes the file, or its disk is full or failing."
        )
    if isinstance(error, sqlite3.IntegrityError):
        return TaskFailure("constraint_violated", text, remedy="Remove the rows that violate it in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the rights on the file and the table's definition."
    )
