# ruff: noqa: S608 - this module builds SQL; every name is quoted and every value is bound
"""A DuckDB that can access only the given files and can be interrupted.

Every transformation runs in one: the client's SQL because it is untrusted, the compiled steps because they need no
other access.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import pyarrow.parquet as pq

from shared.errors import TaskFailure
from worker.tables.duck.exact import OUT_OF_RANGE, reading, storing
from worker.tables.duck.session import disk_failures, interruptible, locked
from worker.tables.parquet.columns import Columns, need_distinct, quoted, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb.sqltypes import DuckDBPyType

Params = dict[str, Any]
T = TypeVar("T")

_ROW_GROUPS_IN_MEMORY = 64  # each row group is written and read as a whole, so several must fit into memory
_FEWEST_GROUPED_ROWS = 2_048
_MOST_GROUPED_ROWS = 122_880  # DuckDB's own default


class Engine:
    """One locked-down DuckDB connection and the queries that run on it, which can be interrupted."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        labels: Mapping[str, str],
        row_group_size: int,
        on_fraction: Callable[[float], None],
    ) -> None:
        """Wrap `connection`. `labels` name files in messages; `on_fraction` gets how much of a query is done, 0..1."""
        self._connection = connection
        self._labels = labels
        self._row_group_size = row_group_size
        self._on_fraction = on_fraction

    def rows(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Run a query whose result is small and return its rows."""
        return self._run(lambda: self._connection.execute(sql, params or {}).fetchall())

    def write(self, sql: str, params: Params, target: Path) -> int:
        """Stream the rows of a query into the Parquet file `target` and return how many there are.

        Raises `TaskFailure` (``type_not_exact``, ``value_out_of_range``) for a column that Parquet does not keep.
        """
        options = (
            "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, USE_TMP_FILE false, "
            f"ROW_GROUP_SIZE {self._row_group_size}"
        )
        stored = storing(sql, self._kinds(sql, params))
        if stored.durations:  # Parquet has none; readers of Arrow are told in the file
            self.rows(f"COPY (SELECT * FROM ({stored.sql}\n) LIMIT 0) TO {text(str(target))} ({options})", params)
            options += f", {stored.metadata(pq.read_schema(target))}"
        ((count,),) = self.rows(f"COPY ({stored.sql}\n) TO {text(str(target))} ({options})", params)
        return int(count)

    def columns(self, sql: str, params: Params | None = None) -> Columns:
        """Return the columns of a query (name -> DuckDB type, in order) without running it."""
        return {name: str(kind) for name, kind in self._kinds(sql, params).items()}

    def _kinds(self, sql: str, params: Params | None) -> dict[str, DuckDBPyType]:
        empty = f"SELECT * FROM (\n{sql}\n) LIMIT 0"
        described = self._run(lambda: self._connection.execute(empty, params or {}).description or [])
        need_distinct((name for name, *_ in described), "the rows")
        return {name: kind for name, kind, *_ in described}

    def statements(self, sql: str) -> list[duckdb.Statement]:
        """Return the statements that `sql` consists of, parsed and not run."""
        with self._named_failures():
            return self._connection.extract_statements(sql)

    def define(self, name: str, sql: str) -> None:
        """Define the view `name`."""
        self.rows(f"CREATE VIEW {quoted(name)} AS\n{sql}")

    def _run(self, query: Callable[[], T]) -> T:
        with self._named_failures():
            return interruptible(self._connection, query, self._on_fraction)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            with disk_failures(self._connection):
                yield
        except duckdb.Error as error:
            raise _failure(error, self._labels) from None


@contextmanager
def locked_engine(
    *,
    readable: Mapping[Path, str],
    writable: Sequence[Path],
    scratch: Path,
    memory_limit_bytes: int,
    threads: int,
    row_bytes: int,
    on_fraction: Callable[[float], None],
) -> Iterator[Engine]:
    """Yield an engine that reads the files `readable` (path -> its name in messages), writes and reads `writable`.

    It spills into `scratch`, and its row groups suit rows of about `row_bytes`. It cannot access anything else: no
    other file, no network, no extension, no setting.
    """
    labels = {str(path): name for path, name in readable.items()}
    labels |= {str(path): f"the file {path.name}" for path in writable}
    labels[str(scratch)] = "scratch"
    wanted = memory_limit_bytes // _ROW_GROUPS_IN_MEMORY // max(row_bytes, 1)
    row_group_size = min(max(wanted, _FEWEST_GROUPED_ROWS), _MOST_GROUPED_ROWS)
    with locked(
        (*readable, *writable), scratch=scratch, memory_limit_bytes=memory_limit_bytes, threads=threads
    ) as connection:
        yield Engine(connection, labels=labels, row_group_size=row_group_size, on_fraction=on_fraction)


def parquet(paths: Sequence[Path]) -> str:
    """Return a query for all rows of Parquet files, united by column name.

    Raises `TaskFailure` (``type_not_exact``) for a column whose values DuckDB would change.
    """
    files = ", ".join(text(str(path)) for path in paths)
    changed = ", ".join(
        f"{sql} AS {quoted(name)}" for name, sql in reading([pq.read_schema(path) for path in paths]).items()
    )
    columns = f"* REPLACE ({changed})" if changed else "*"
    return f"SELECT {columns} FROM read_parquet([{files}], union_by_name = true, hive_partitioning = false)"


def _failure(error: duckdb.Error, labels: Mapping[str, str]) -> TaskFailure:
    message = str(error).split("\n\n")[0].strip()  # without DuckDB's advice and the place in our SQL
    if isinstance(error, duckdb.InvalidInputException) and OUT_OF_RANGE in message:
        said = message.partition(OUT_OF_RANGE)[2]
        return TaskFailure("value_out_of_range", f"{said[:1].upper()}{said[1:]}.", remedy="See the message.")
    for path, label in labels.items():
        message = message.replace(path, label)
    for kinds, code, remedy in _FAILURES:
        if isinstance(error, kinds):
            return TaskFailure(code, message, remedy=remedy)
    return TaskFailure(
        "transformation_failed", message, remedy="Fix the error in the message; run the steps one by one to find it."
    )


_FAILURES: tuple[tuple[tuple[type[duckdb.Error], ...], str, str], ...] = (
    (
        (duckdb.OutOfMemoryException,),
        "out_of_memory",
        "Reduce the work of one step, or raise CELERIAC_MEMORY_LIMIT_BYTES on the workers.",
    ),
    (
        (duckdb.PermissionException,),
        "access_refused",
        "Use only the dataset and the inputs; stage other data with etl.extract_data.",
    ),
    (
        (duckdb.OutOfRangeException, duckdb.ConversionException),
        "value_out_of_range",
        "Cast the column to a type that holds the value, or use TRY_CAST in the SQL.",
    ),
    (
        (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException),
        "invalid_transformation",
        "Check names and types against the columns of the dataset.",
    ),
)
