"""DuckDB as every family runs it: bounded, interruptible, and without access to anything but the given files."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

import duckdb

from worker.runtime.scratch import scratch_full
from worker.tables.parquet.columns import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")

_POLL_INTERVAL_S = 0.2
_SPILL_FACTOR = 100  # of the memory limit; a runaway cross join must not fill the disk that other jobs share


def connect(
    path: str,
    *,
    memory_limit_bytes: int,
    threads: int,
    spill: Path | None = None,
    read_only: bool = False,
    keeps_order: bool = True,
) -> duckdb.DuckDBPyConnection:
    """Return a connection to the file `path`, or to `:memory:`, that spills into the folder `spill`.

    Without `keeps_order` DuckDB need not hold a large insertion in memory to keep its rows in order.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit_bytes}B",
        "threads": threads,
        "preserve_insertion_order": keeps_order,
        "python_enable_replacements": False,  # else FROM finds Python variables
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    if spill is not None:
        config |= {"temp_directory": str(spill), "max_temp_directory_size": f"{memory_limit_bytes * _SPILL_FACTOR}B"}
    connection = duckdb.connect(path, read_only=read_only, config=config)
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    return connection


def lock(connection: duckdb.DuckDBPyConnection, paths: Iterable[Path] = ()) -> None:
    """Allow access to the files `paths` only: no other file, no network, no extension, no change of a setting."""
    connection.execute(f"SET allowed_paths = [{', '.join(text(str(path)) for path in paths)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _is_disk_full(error: duckdb.Error, connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether DuckDB failed because a disk is full, and not because it reached its own limit for spilling.

    Where the disk has less free space than that limit, DuckDB takes the free space as the limit and reports the same
    error; then the number in it is not the one that was set.
    """
    said = str(error)
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return True
    if "max_temp_directory_size" not in said:
        return False
    with closing(connection.cursor()) as beside:  # a failed transaction refuses further queries
        (bound,) = beside.execute("SELECT current_setting('max_temp_directory_size')").fetchone() or ("",)
    return f"/{bound} used" not in said


@contextmanager
def disk_failures(connection: duckdb.DuckDBPyConnection, *, but: Path | None = None) -> Iterator[None]:
    """Raise `scratch_full` where DuckDB finds the disk full; not where it is full for the file `but`."""
    try:
        yield
    except duckdb.Error as error:
        if _is_disk_full(error, connection) and (but is None or str(but) not in str(error)):
            raise scratch_full() from None
        raise


@contextmanager
def locked(
    paths: Iterable[Path], *, scratch: Path, memory_limit_bytes: int, threads: int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB in memory that reads and writes the files `paths` only, in UTC, and spills into `scratch`."""
    spill = scratch / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    connection = connect(":memory:", memory_limit_bytes=memory_limit_bytes, threads=threads, spill=spill)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # The statistics in a Parquet file leave NaN out, so DuckDB would take a test for NaN as false for all rows.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        lock(connection, paths)
        yield connection
    finally:
        connection.close()


def interruptible(
    connection: duckdb.DuckDBPyConnection, query: Callable[[], T], on_fraction: Callable[[float], None] = lambda _: None
) -> T:
    """Run `query` on `connection` in a separate thread; return what it returns, and raise what it raises.

    This thread waits and reports how much is done (0..1). An exception that interrupts it, or that `on_fraction`
    raises, stops the query and is raised. Inside DuckDB, an exception from a signal handler (the soft time limit) would
    become a RuntimeError "Query interrupted", and the reason would be lost.
    """
    done = threading.Event()
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(query())
        except BaseException as raised:  # noqa: BLE001 - raised again by the thread that waits
            failure.append(raised)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="duckdb-query", daemon=True)
    try:
        thread.start()
        while not done.wait(_POLL_INTERVAL_S):
            on_fraction(min(max(connection.query_progress(), 0.0), 100.0) / 100)
    except BaseException:
        while thread.is_alive() and not done.wait(
            _POLL_INTERVAL_S / 10
        ):  # repeated, because the query may not have begun
            connection.interrupt()
        raise
    if failure:
        raise failure[0]
    return answer[0]
