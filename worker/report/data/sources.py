# ruff: noqa: S608 - this module builds SQL; names are quoted and paths are the worker's own
"""Datasets as views of a DuckDB that can read only these files and whose queries can be interrupted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from shared.errors import TaskFailure
from worker.tables.duck.session import disk_failures, interruptible, locked
from worker.tables.parquet.columns import NUMBERS, family, quoted, text, unknown_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Row = tuple[Any, ...]

MOST_CHARACTERS = 32_000  # of one cell; a workbook's holds 32,767
_FETCHED_ROWS = 2_000
_WITH_ZONE = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset: its view, its columns (name -> DuckDB type, in order) and its row count."""

    name: str
    columns: dict[str, str]
    row_count: int

    def need(self, column: str, where: str) -> str:
        """Return `column` quoted. Raises `TaskFailure` (``unknown_column``) that names `where` and the columns."""
        if column in self.columns:
            return quoted(column)
        raise unknown_column(column, self.columns, f"{where}: the dataset {self.name!r}")

    def is_number(self, column: str) -> bool:
        """Return whether a column holds numbers."""
        return family(self.columns[column]) in NUMBERS | {"missing"}  # without any value it has no type

    def is_time(self, column: str) -> bool:
        """Return whether a column holds dates or timestamps."""
        return family(self.columns[column]) in {"date", "timestamp", "missing"}

    def is_nested(self, column: str) -> bool:
        """Return whether a column holds lists, structures, maps or bytes."""
        kind = self.columns[column]
        return (kind.endswith((")", "]")) and not kind.startswith(("DECIMAL(", "ENUM("))) or kind == "BLOB"

    def present(self, column: str) -> str:
        """Return an SQL condition: the value is not missing, finite, and within Python's range of times."""
        name = quoted(column)
        if family(self.columns[column]) == "missing":
            return "FALSE"
        if self.columns[column] in {"FLOAT", "DOUBLE"}:
            return f"({name} IS NOT NULL AND isfinite({name}))"
        if self.is_time(column):
            return f"({name} IS NOT NULL AND isfinite({name}) AND year({name}) BETWEEN 1 AND 9999)"
        return f"({name} IS NOT NULL)"

    def finite(self, column: str) -> str:
        """Return an SQL expression: the value, or NULL where it is not `present`."""
        return f"CASE WHEN {self.present(column)} THEN {quoted(column)} END"

    def shown(self, column: str) -> str:
        """Return an SQL expression: the value as a table shows it, bounded in size."""
        name, kind = quoted(column), self.columns[column]
        if kind == "BLOB":
            return f"printf('(%d bytes)', octet_length({name}))"
        if self.is_time(column):
            return self.finite(column)
        if kind == "VARCHAR" or self.is_nested(column):
            return f"left(CAST({name} AS VARCHAR), {MOST_CHARACTERS})"
        return name


class Sources:
    """The datasets of a report, and the queries that run on them, which can be interrupted."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Table]) -> None:
        """Wrap `connection`, in which every table is a view under its quoted name."""
        self._connection = connection
        self.tables = tables

    def rows(self, sql: str) -> list[Row]:
        """Run a query with a small result and return its rows."""
        return self._waited(self._connection, lambda: self._connection.execute(sql).fetchall())

    def stream(self, sql: str) -> Iterator[Row]:
        """Run a query and yield its rows, a few thousand in memory at a time."""
        cursor = self._connection.cursor()
        try:
            self._waited(cursor, lambda: cursor.execute(sql).fetchmany(0))
            while batch := self._waited(cursor, lambda: cursor.fetchmany(_FETCHED_ROWS)):
                yield from batch
        finally:
            cursor.close()

    @staticmethod
    def _waited(connection: duckdb.DuckDBPyConnection, query: Callable[[], list[Row]]) -> list[Row]:
        try:
            with disk_failures(connection):
                return interruptible(connection, query)
        except duckdb.Error as error:
            raise _failure(error) from None


@contextmanager
def opened(paths: Mapping[str, Path], *, scratch: Path, memory_limit_bytes: int, threads: int) -> Iterator[Sources]:
    """Yield the Parquet files `paths` as tables, by name. Queries spill into `scratch`.

    Raises `TaskFailure` (``unreadable_dataset``) for a file that is not Parquet.
    """
    with locked(paths.values(), scratch=scratch, memory_limit_bytes=memory_limit_bytes, threads=threads) as connection:
        yield Sources(connection, {name: _defined(connection, name, path) for name, path in paths.items()})


def _defined(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> Table:
    source = f"read_parquet({text(str(path))}, hive_partitioning = false)"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        columns = {str(column): str(kind) for column, kind, *_ in described}
        chosen = ", ".join(
            f"make_timestamp(epoch_us({quoted(column)})) AS {quoted(column)}" if kind == _WITH_ZONE else quoted(column)
            for column, kind in columns.items()
        )
        connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT {chosen} FROM {source}")
        counted = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone() or (0,)
    except duckdb.Error as error:
        raise TaskFailure(
            "unreadable_dataset",
            f"The dataset {name!r} is not readable as Parquet: {str(error).replace(str(path), name).splitlines()[0]}",
            remedy="Stage it with etl.extract_data, which writes Parquet.",
        ) from None
    columns = {column: "TIMESTAMP" if kind == _WITH_ZONE else kind for column, kind in columns.items()}
    return Table(name, columns, int(counted[0]))


def _failure(error: duckdb.Error) -> TaskFailure:
    if isinstance(error, duckdb.OutOfMemoryException):
        return TaskFailure(
            "out_of_memory",
            "The report needs more memory than its workers may use.",
            remedy="Aggregate the dataset first (etl.transform_data), or raise CELERIAC_MEMORY_LIMIT_BYTES.",
        )
    first_line = str(error).splitlines()[0]
    return TaskFailure("unreadable_dataset", first_line, remedy="Cast the columns with etl.transform_data first.")
