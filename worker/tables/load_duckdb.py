"""Load into a DuckDB file. DuckDB reads the Parquet file itself; one process at a time can have the file open.

Another process that has it open is waited for, up to the connection's `lock_timeout_s`.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from shared.errors import TaskFailure, TransientFailure
from worker.tables.load_plan import STAGE, ExistingColumn, fold_ascii, quote, unloadable
from worker.tables.load_sql import CREATE_LEDGER, insert_staged, is_unchanged, matches
from worker.tables.load_types import Shape, holds, plain, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.reach.connections import DuckdbConnection
    from worker.tables.load_plan import TablePlan

_MAX_PRECISION = 38
_POLL_S = 0.1
_CHANGED = "celeriac_changed"
_DIFFERING = "celeriac_differing"
_TEMPLATES: dict[pa.DataType, str] = {
    pa.bool_(): "BOOLEAN", pa.string(): "VARCHAR", pa.binary(): "BLOB", pa.date32(): "DATE",
    pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT", pa.uint16(): "USMALLINT", pa.uint32(): "UINTEGER", pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT", pa.float64(): "DOUBLE",
    pa.timestamp("s"): "TIMESTAMP", pa.timestamp("ms"): "TIMESTAMP", pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("ns"): "TIMESTAMP_NS",
    pa.time32("s"): "TIME", pa.time32("ms"): "TIME", pa.time64("us"): "TIME",
}  # fmt: skip
_SHAPES = {
    **{declared: shape_of(kind) for kind, declared in _TEMPLATES.items()},
    "HUGEINT": Shape("int", 128),
    "TIMESTAMP": Shape("timestamp", 6),
    "TIMESTAMP WITH TIME ZONE": Shape("timestamptz", 6),
    "TIMESTAMPTZ": Shape("timestamptz", 6),
    "UUID": Shape("checked_text"),
    "JSON": Shape("checked_text"),
}
fold = fold_ascii


def represent(kind: pa.DataType) -> pa.DataType:
    """Return the type without encodings; raise `TaskFailure` if DuckDB has no exact place for it."""
    stored = plain(kind)
    _declare(stored)
    return stored


@contextmanager
def opened(
    connection: DuckdbConnection, *, scratch: Path | None, memory_limit_bytes: int, threads: int
) -> Iterator[DuckdbDatabase]:
    """Yield the database inside a transaction that is rolled back unless committed."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="duckdb-") as spill:
        settings: dict[str, Any] = {
            "memory_limit": f"{memory_limit_bytes}B",
            "threads": threads,
            "temp_directory": spill,
            "preserve_insertion_order": False,  # else a large load is held in memory to keep its order
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with closing(_connect(connection, settings)) as link:
                link.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
                link.execute("BEGIN")
                link.execute(CREATE_LEDGER.format(instant="TIMESTAMPTZ"))
                yield DuckdbDatabase(link)
        except duckdb.Error as error:
            raise _failure_of(error, connection) from error


class DuckdbDatabase:
    """One transaction of a DuckDB file."""

    primary_keys = False  # its index would be checked row by row against what the transaction itself has changed

    def __init__(self, link: duckdb.DuckDBPyConnection) -> None:
        self._link = link

    fold = staticmethod(fold_ascii)

    def declare(self, kind: pa.DataType) -> str:
        """Return DuckDB's type."""
        return _declare(kind)

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the column takes every value of `kind` exactly, or refuses it."""
        ((spelled,),) = self.rows(f"SELECT typeof(CAST(NULL AS {_declare(kind)}))")  # as duckdb_columns() does
        return bool(spelled == column.declared) or holds(column.shape, shape_of(kind))

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._link.execute(sql, list(values)).fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        return _count(self._link.execute(sql, list(values)).fetchall())

    def ensure(self, table: str, columns: str) -> None:
        """Make a table of this service's own if it is not there."""
        self.change(f"CREATE TABLE IF NOT EXISTS {table} ({columns.format(instant='TIMESTAMPTZ')})")

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target, or None if it is not there."""
        *schema, table = plan.table.split(".")
        found = self.rows(
            "SELECT column_name, data_type, NOT is_nullable AND column_default IS NULL FROM duckdb_columns() "
            "WHERE database_name = current_database() AND lower(table_name) = lower(?) "
            "AND lower(schema_name) = lower(?) ORDER BY column_index",
            table,
            schema[0] if schema else "main",
        )
        columns = [
            ExistingColumn(name, declared, bool(required), _shape(declared)) for name, declared, required in found
        ]
        return columns or None

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Do nothing: no other process can have the file open."""

    def insert(
        self, plan: TablePlan, _existing: list[ExistingColumn], on_progress: Callable[[int, int | None], None]
    ) -> int:
        """Append the dataset to the target and return the number of rows."""
        self.stage(plan, on_progress)
        count = self._watched(insert_staged(plan, lambda name: f"s.{quote(name)}"), plan, on_progress)
        on_progress(count, plan.row_count)
        return count

    def stage(self, plan: TablePlan, _on_progress: Callable[[int, int | None], None]) -> None:
        """Make a view over the Parquet file; nothing is copied."""
        columns = ", ".join(
            f"CAST({quote(name)} AS {_declare(kind)}) AS {quote(name)}" for name, kind in plan.columns.items()
        )
        path = str(plan.dataset).replace("'", "''")
        self.change(f"CREATE TEMPORARY VIEW {STAGE} AS SELECT {columns} FROM read_parquet('{path}')")  # noqa: S608 - quoted

    def drop_unchanged(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Put the rows that differ aside and let the view show them; return how many there are."""
        same = is_unchanged(plan, lambda name: f"t.{quote(name)} IS NOT DISTINCT FROM {value(name)}")
        differs = f"t.{quote(plan.key[0])} IS NULL OR NOT ({same})"
        self.change(
            f"CREATE TEMPORARY TABLE {_DIFFERING} AS SELECT s.* FROM {STAGE} AS s "  # noqa: S608 - quoted names
            f"LEFT JOIN {plan.target} AS t ON {matches(plan, value)} WHERE {differs}"
        )
        self.change(f"DROP VIEW {STAGE}")
        self.change(f"CREATE TEMPORARY VIEW {STAGE} AS SELECT * FROM {_DIFFERING}")  # noqa: S608 - constants of ours
        return int(self.rows(f"SELECT count(*) FROM {STAGE}")[0][0])  # noqa: S608 - a constant of ours

    def update(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Put the changed rows aside, delete the old ones and insert the changed ones.

        DuckDB keeps what an UPDATE overwrites in memory until the commit; this can go to the disk.
        """
        given = {fold_ascii(name): name for name in plan.columns}
        columns = ", ".join(
            f"{value(given[fold_ascii(name)])} AS {quote(name)}" if fold_ascii(name) in given else f"t.{quote(name)}"
            for name in (column.name for column in existing)
        )
        self.change(
            f"CREATE TEMPORARY TABLE {_CHANGED} AS SELECT {columns} "  # noqa: S608 - quoted names
            f"FROM {plan.target} AS t JOIN {STAGE} AS s ON {matches(plan, value)}"
        )
        keys = ", ".join(map(quote, plan.key))
        self.change(f"DELETE FROM {plan.target} WHERE ({keys}) IN (SELECT ({keys}) FROM {_CHANGED})")  # noqa: S608 - quoted names
        return self.change(f"INSERT INTO {plan.target} BY NAME SELECT * FROM {_CHANGED}")  # noqa: S608 - quoted names

    def cast(self, column: ExistingColumn) -> str:
        """Return the staged column, cast only to types that a text must be parsed for."""
        staged = f"s.{quote(column.name)}"
        return f"CAST({staged} AS {column.declared})" if column.shape.family == "checked_text" else staged

    def commit(self) -> None:
        """Commit the transaction."""
        self._link.execute("COMMIT")

    def _watched(self, sql: str, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> int:
        """Run a long statement in a thread and report its progress from this one, whose interruptions stop it."""
        outcome: list[int | duckdb.Error] = []

        def run() -> None:
            try:
                outcome.append(self.change(sql))
            except duckdb.Error as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name="celeriac-load")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_S)
                ratio = min(max(self._link.query_progress(), 0.0), 100.0) / 100
                on_progress(int(plan.row_count * ratio), plan.row_count)
        finally:
            if thread.is_alive():
                self._link.interrupt()
            thread.join()
        result = outcome[0]
        if isinstance(result, duckdb.Error):
            raise result
        return result


def _connect(connection: DuckdbConnection, settings: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """Open the file, waiting for whoever has it open."""
    deadline = time.monotonic() + connection.lock_timeout_s
    while True:
        try:
            return duckdb.connect(str(connection.path), config=settings)
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _is_locked(error: duckdb.Error) -> bool:
    return "Could not set lock on file" in str(error) or "different configuration" in str(error)


def _declare(kind: pa.DataType) -> str:
    types = pa.types
    if kind in _TEMPLATES:
        return _TEMPLATES[kind]
    if types.is_decimal(kind) and kind.precision <= _MAX_PRECISION:
        return f"DECIMAL({kind.precision},{kind.scale})"
    if types.is_timestamp(kind) and kind.tz and kind.unit != "ns":
        return "TIMESTAMP WITH TIME ZONE"
    if types.is_list(kind) or types.is_large_list(kind):
        return f"{_declare(plain(kind.value_type))}[]"
    if types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quote(field.name)} {_declare(plain(field.type))}' for field in kind)})"
    if types.is_map(kind):
        return f"MAP({_declare(plain(kind.key_type))}, {_declare(plain(kind.item_type))})"
    raise unloadable(kind, "DuckDB")


def _shape(declared: str) -> Shape:
    if declared.startswith("DECIMAL("):
        return Shape("decimal", int(declared.rstrip(")").split(",")[1]))
    return Shape("checked_text") if declared.startswith("ENUM(") else _SHAPES.get(declared, Shape("other"))


def _count(answer: list[tuple[Any, ...]]) -> int:
    return int(answer[0][0]) if answer and isinstance(answer[0][0], int) else 0


def _failure_of(error: duckdb.Error, connection: DuckdbConnection) -> TaskFailure:
    first_line = str(error).strip().splitlines()[0]
    text = f"DuckDB says of the connection {connection.name!r}: {first_line}"
    if _is_locked(error) or isinstance(error, duckdb.TransactionException):
        return TransientFailure(
            "database_busy",
            text,
            remedy="One process at a time can have a DuckDB file open: close the other, or load one job at a time.",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return TaskFailure("memory_exhausted", text, remedy="Raise CELERIAC_MEMORY_LIMIT_BYTES of the workers.")
    if isinstance(error, duckdb.ConstraintException):
        return TaskFailure("constraint_violated", text, remedy="Remove the rows that violate it in a transform step.")
    if isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException)):
        return TaskFailure("value_refused", text, remedy="Cast or correct the values in a transform step.")
    return TaskFailure(
        "database_refused", text, remedy="Check the path, the rights on the file and the table's definition."
    )
