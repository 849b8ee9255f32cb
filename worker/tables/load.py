"""Load a dataset into a table of a database.

    begin (and wait for whoever delivers the same load_id)
      -> already in celeriac_loads? give its counts
      -> make the table, or check that the dataset fits it
      -> append, replace or upsert
      -> note the load_id in celeriac_loads
    commit

All of it is one transaction of the target database, so a worker killed at any moment leaves the table untouched or
complete, and a second delivery finds the first one's note.

`replace` deletes and inserts. Readers see the old rows until the commit and never wait (PostgreSQL, SQLite in WAL
mode), and grants, indexes, views and foreign keys stay; TRUNCATE and a swapped table would lock readers out or lose
those.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from shared.errors import TaskFailure
from worker.reach.connections import DuckdbConnection, PostgresqlConnection, SqlConnection
from worker.tables import load_duckdb, load_postgresql, load_sqlite
from worker.tables.load_plan import ExistingColumn, Loaded, TablePlan, check_fits, plan_table
from worker.tables.load_sql import (
    RECORD,
    RECORDED,
    create_table,
    find_duplicate_key,
    find_missing_keys,
    insert_missing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    import pyarrow as pa

    from shared.jobs.data.places import TableDestination

__all__ = ["Loaded", "load_table"]

_DEFAULT_MEMORY_BYTES = 512 * 1024**2


class Database(Protocol):
    """One transaction of an engine. It is rolled back unless `commit` was called."""

    primary_keys: bool
    """Whether a table that is made for an upsert gets a primary key."""

    def fold(self, name: str) -> str:
        """Return a column name as the engine compares it."""

    def declare(self, kind: pa.DataType) -> str:
        """Return the engine's type for a new column."""

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether a column of the target takes every value of `kind` exactly, or refuses it."""

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query; values are bound to its question marks."""

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""

    def ensure(self, table: str, columns: str) -> None:
        """Make a table of this service's own if it is not there; `{instant}` in `columns` is the type of a time."""

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target, or None if it is not there (and nobody else is making it)."""

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Make other writers of the target wait for this transaction; readers go on."""

    def insert(
        self,
        plan: TablePlan,
        existing: list[ExistingColumn],
        on_progress: Callable[[int, int | None], None],
        /,
    ) -> int:
        """Append the dataset to the target and return the number of rows."""

    def stage(self, plan: TablePlan, on_progress: Callable[[int, int | None], None], /) -> None:
        """Make the dataset readable as `celeriac_stage`, indexed by its key where that helps."""

    def drop_unchanged(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str], /) -> int:
        """Take out of the stage the rows that the target has with the same values; return how many stay."""

    def update(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str], /) -> int:
        """Update the target's rows whose key is staged and return how many; `value` as in `load_sql`."""

    def cast(self, column: ExistingColumn) -> str:
        """Return the expression for a staged column `s.column`, converted as the target's column needs."""

    def commit(self) -> None:
        """Make all of it visible and lasting at once."""


def load_table(
    connection: SqlConnection,
    destination: TableDestination,
    dataset: Path,
    *,
    load_id: str,
    on_progress: Callable[[int, int | None], None],
    scratch: Path | None = None,
    memory_limit_bytes: int = _DEFAULT_MEMORY_BYTES,
    threads: int = 1,
    only_new: bool = False,
) -> Loaded:
    """Load the Parquet file `dataset` into a table, all or nothing, and once for each `load_id`.

    `on_progress(rows, total)` is called as rows go in; what it raises ends the load and undoes it. DuckDB spills
    into `scratch` beyond `memory_limit_bytes`; the other engines stream batches of some MiB.
    With `only_new` the table must not be there.
    Raises `TaskFailure` for what cannot pass (rights, types, duplicate keys), `TransientFailure` for what can
    (no answer, locks, deadlocks, timeouts). An upsert needs each key once in the dataset, and none missing.
    """
    plan = planned(connection, destination, dataset, load_id=load_id)
    with transaction(
        connection, load_id, scratch=scratch, memory_limit_bytes=memory_limit_bytes, threads=threads
    ) as database:
        return _deliver(database, plan, on_progress, only_new=only_new)


def planned(connection: SqlConnection, destination: TableDestination, dataset: Path, *, load_id: str) -> TablePlan:
    """Return the plan of a load, with the types of the connection's engine. Raises `TaskFailure`, see `plan_table`."""
    engine: Any = load_sqlite
    if isinstance(connection, PostgresqlConnection):
        engine = load_postgresql
    elif isinstance(connection, DuckdbConnection):
        engine = load_duckdb
    return plan_table(
        connection.name, destination, dataset, load_id=load_id, represent=engine.represent, fold=engine.fold
    )


@contextmanager
def transaction(
    connection: SqlConnection,
    load_id: str,
    *,
    scratch: Path | None = None,
    memory_limit_bytes: int = _DEFAULT_MEMORY_BYTES,
    threads: int = 1,
) -> Iterator[Database]:
    """Yield a transaction that is undone unless committed; others with the same `load_id` wait for its end."""
    opened: AbstractContextManager[Database]
    if isinstance(connection, PostgresqlConnection):
        opened = load_postgresql.opened(connection, load_id)
    elif isinstance(connection, DuckdbConnection):
        opened = load_duckdb.opened(connection, scratch=scratch, memory_limit_bytes=memory_limit_bytes, threads=threads)
    else:
        opened = load_sqlite.opened(connection)
    with opened as database:
        yield database


def _deliver(
    database: Database, plan: TablePlan, on_progress: Callable[[int, int | None], None], *, only_new: bool
) -> Loaded:
    earlier = _recorded(database, plan)
    if earlier is not None:
        return earlier
    if only_new and database.columns(plan) is not None:
        raise TaskFailure(
            "table_exists",
            f"The table {plan.destination} is there already.",
            remedy="Name a new table, or ask for the mode 'replace'.",
        )
    on_progress(0, plan.row_count)
    existing = fitting_target(database, plan)
    inserted = updated = deleted = 0
    if plan.mode != "append":
        database.keep_writers_out(plan)
    if plan.mode == "upsert":
        updated, inserted = _upsert(database, plan, existing, on_progress)
        on_progress(plan.row_count, plan.row_count)
    else:
        if plan.mode == "replace":
            deleted = database.change(f"DELETE FROM {plan.target}")  # noqa: S608 - a quoted name
        inserted = database.insert(plan, existing, on_progress)
    database.change(RECORD, plan.load_id, plan.destination, plan.mode, inserted, updated, deleted)
    database.commit()
    return Loaded(plan.destination, plan.mode, inserted, updated, deleted)


def fitting_target(database: Database, plan: TablePlan) -> list[ExistingColumn]:
    """Make the target if it is not there, and return its columns. Raises `TaskFailure` if the dataset does not fit."""
    if database.columns(plan) is None:
        database.change(create_table(plan, database.declare, primary_key=database.primary_keys))
    existing = database.columns(plan) or []
    check_fits(plan, existing, database.fits, database.fold)
    return existing


def staged_value(database: Database, existing: list[ExistingColumn]) -> Callable[[str], str]:
    """Return the function that gives the expression for a column of the stage, as the target's column needs it."""
    by_name = {database.fold(column.name): column for column in existing}
    return lambda name: database.cast(by_name[database.fold(name)])


def _recorded(database: Database, plan: TablePlan) -> Loaded | None:
    found = database.rows(RECORDED, plan.load_id)
    if not found:
        return None
    destination, mode, inserted, updated, deleted = found[0]
    if (destination, mode) != (plan.destination, plan.mode):
        raise TaskFailure(
            "load_id_reused",
            f"The load {plan.load_id} went to {destination} ({mode}) before, now {plan.destination} ({plan.mode}) "
            "is asked for.",
            remedy="Submit it as a new job.",
        )
    return Loaded(destination, mode, inserted, updated, deleted, already_loaded=True)


def _upsert(
    database: Database,
    plan: TablePlan,
    existing: list[ExistingColumn],
    on_progress: Callable[[int, int | None], None],
) -> tuple[int, int]:
    """Update the rows whose key is there, insert the rest; return how many of each."""
    database.stage(plan, on_progress)
    value = staged_value(database, existing)
    refuse_bad_keys(database, plan, value)
    only_keys = set(plan.columns) == set(plan.key)  # then a row that is there is as it should be
    updated = 0 if only_keys else database.update(plan, existing, value)
    return updated, database.change(insert_missing(plan, value))


def refuse_bad_keys(database: Database, plan: TablePlan, value: Callable[[str], str]) -> None:
    """Raise `TaskFailure` if a staged row has no key, or two have the same."""
    ((missing_count,),) = database.rows(find_missing_keys(plan))
    if missing_count:
        raise TaskFailure(
            "key_missing",
            f"{missing_count} rows have no value in the key {list(plan.key)}.",
            remedy="Drop or fill them in a transform step, or choose another key.",
            row_count=missing_count,
        )
    for *texts, count in database.rows(find_duplicate_key(plan, value)):
        example = ", ".join(f"{name} = {text}" for name, text in zip(plan.key, texts, strict=True))
        raise TaskFailure(
            "key_not_unique",
            f"The key {list(plan.key)} is not unique in the dataset: {example} occurs {count} times.",
            remedy="Deduplicate in a transform step, or add the columns that tell these rows apart to the key.",
        )
