# ruff: noqa: S608 - SQL is made here; every name is quoted and every value bound
"""A DuckDB that reads and writes the files it is told to, and nothing else, and that stops when told to.

Every transformation runs in one: the client's SQL because it is hostile until checked, the compiled steps because
there is no reason for them to reach further.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb

from shared.errors import TaskFailure
from worker.tables.parquet.columns import Columns, need_distinct, quoted, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

Params = dict[str, Any]

POLL_INTERVAL_S = 0.2
_ROW_GROUPS_IN_MEMORY = 64  # a row group is one page per column: written, and read again, as a whole
_FEWEST_GROUPED_ROWS = 2_048
_MOST_GROUPED_ROWS = 122_880  # DuckDB's own default
_SPILL_FACTOR = 100  # of the memory limit; a runaway cross join must not fill the disk that other jobs share


class Engine:
    """One locked-down DuckDB connection and the queries that run on it.

    Queries run in a thread of their own while this one waits and reports: inside DuckDB, an exception from a signal
    handler (the soft time limit) comes out as a bare RuntimeError "Query interrupted", so the reason would be lost.
    """

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
        """Stream the rows of a query into the Parquet file `target` and return how many there are."""
        options = (
            "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, USE_TMP_FILE false, "
            f"ROW_GROUP_SIZE {self._row_group_size}"
        )
        ((count,),) = self.rows(f"COPY ({sql}\n) TO {text(str(target))} ({options})", params)
        return int(count)

    def columns(self, sql: str, params: Params | None = None) -> Columns:
        """Return name -> DuckDB type of the columns of a query, in order, without running it."""
        empty = f"SELECT * FROM (\n{sql}\n) LIMIT 0"
        described = self._run(lambda: self._connection.execute(empty, params or {}).description or [])
        need_distinct((name for name, *_ in described), "the rows")
        return {name: str(kind) for name, kind, *_ in described}

    def statements(self, sql: str) -> list[duckdb.Statement]:
        """Return the statements that `sql` consists of, parsed and not run."""
        with self._named_failures():
            return self._connection.extract_statements(sql)

    def define(self, name: str, sql: str) -> None:
        """Define the view `name`."""
        self.rows(f"CREATE VIEW {quoted(name)} AS\n{sql}")

    def _run(self, query: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        done = threading.Event()
        rows: list[tuple[Any, ...]] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                rows.extend(query())
            except BaseException as raised:  # noqa: BLE001 - raised again by the thread that waits
                failure.append(raised)
            finally:
                done.set()

        thread = threading.Thread(target=run, name="duckdb-query", daemon=True)
        try:
            thread.start()
            while not done.wait(POLL_INTERVAL_S):
                self._on_fraction(max(0.0, self._connection.query_progress()) / 100)
        except BaseException:
            while thread.is_alive() and not done.wait(POLL_INTERVAL_S / 10):  # again, if it was about to begin
                self._connection.interrupt()
            raise
        if failure:
            with self._named_failures():
                raise failure[0]
        return rows

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
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

    It spills into `scratch`, and sizes what it writes for rows of about `row_bytes`. Nothing else is within its reach:
    no other file, no network, no extension, no setting.
    """
    spill = scratch / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{memory_limit_bytes}B",
            "threads": threads,
            "temp_directory": str(spill),
            "max_temp_directory_size": f"{memory_limit_bytes * _SPILL_FACTOR}B",
            "python_enable_replacements": False,  # else FROM finds Python variables
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        },
    )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = true")
        connection.execute("SET enable_progress_bar_print = false")
        allowed = ", ".join(text(str(path)) for path in (*readable, *writable))
        connection.execute(f"SET allowed_paths = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        labels = {str(path): name for path, name in readable.items()}
        labels |= {str(path): f"the file {path.name}" for path in writable}
        labels[str(scratch)] = "scratch"
        wanted = memory_limit_bytes // _ROW_GROUPS_IN_MEMORY // max(row_bytes, 1)
        row_group_size = min(max(wanted, _FEWEST_GROUPED_ROWS), _MOST_GROUPED_ROWS)
        yield Engine(connection, labels=labels, row_group_size=row_group_size, on_fraction=on_fraction)
    finally:
        connection.close()


def parquet(paths: Sequence[Path]) -> str:
    """Return a query for all rows of Parquet files, united by column name."""
    files = ", ".join(text(str(path)) for path in paths)
    return f"SELECT * FROM read_parquet([{files}], union_by_name = true, hive_partitioning = false)"


def _failure(error: duckdb.Error, labels: Mapping[str, str]) -> TaskFailure:
    message = str(error).split("\n\n")[0].strip()  # without DuckDB's advice and the place in our SQL
    for path, label in labels.items():
        message = message.replace(path, label)
    for kinds, code, remedy in _FAILURES:
        if isinstance(error, kinds):
            return TaskFailure(code, message, remedy=remedy)
    return TaskFailure("transformation_failed", message, remedy="See the message; try the steps one by one.")


_FAILURES: tuple[tuple[tuple[type[duckdb.Error], ...], str, str], ...] = (
    (
        (duckdb.OutOfMemoryException,),
        "out_of_memory",
        "Do less in one step, or raise CELERIAC_MEMORY_LIMIT_BYTES on the workers.",
    ),
    (
        (duckdb.PermissionException,),
        "access_refused",
        "A transformation reads its dataset and its inputs only; stage other data with etl.extract_data.",
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
