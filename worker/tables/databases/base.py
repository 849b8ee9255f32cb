"""What every engine can do: the interface of a database, and of a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from worker.tables.databases.statements import STAGE, select, update_matching
from worker.tables.databases.types import holds, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa

    from worker.tables.databases.definitions import Defined, Definition
    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.plan import Progress, TablePlan
    from worker.tables.databases.types import ExistingColumn
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange


class Database(ABC):
    """One database. It connects only when a method is called.

    Transient errors are raised as `TransientFailure`, all others as `TaskFailure`, without credentials.
    """

    dialect: ClassVar[Dialect]
    name: str
    """The name of its connection."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, without credentials: the same for each connection to it."""

    @abstractmethod
    def alone(self, work: str) -> AbstractContextManager[None]:
        """Do some work in this database that no other process does meanwhile, of this service or another one.

        Raises `TransientFailure` (``work_in_progress``) if one does. The end of the process ends it, too.
        """

    @abstractmethod
    def stage_query(
        self,
        query: str,
        staged: Path,
        *,
        memory_limit_bytes: int,
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
    ) -> dict[str, Candidate]:
        """Write the rows of one SELECT to the Parquet file `staged`, in a transaction that can only read.

        `out_of_range` says what becomes of dates and times that are infinite or beyond the years 1 to 9999. `on_rows`
        gets the number of rows so far. Returns what the columns may become that came as text although they are
        something else; the other columns have their types.
        """

    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],  # noqa: ARG002 - for engines that have no types of their own
        memory_limit_bytes: int,
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Write the rows of a table that meet `condition` (empty: all), with the types of the table.

        The types do not depend on which rows are read. Columns in `temporal` become dates or times even where the
        engine stores them as text. `columns` are the only ones that are read, in this order. Otherwise it is the same
        as `stage_query`.
        """
        query = select(self.dialect, table, condition, columns)
        return self.stage_query(
            query, staged, memory_limit_bytes=memory_limit_bytes, on_rows=on_rows, out_of_range=out_of_range
        )

    @abstractmethod
    def transaction(
        self, load_id: str, *, scratch: Path | None, memory_limit_bytes: int, threads: int
    ) -> AbstractContextManager[Transaction]:
        """Open a transaction that is rolled back unless committed; others with the same `load_id` wait for its end.

        The table `celeriac_loads` exists in it.
        """

    @abstractmethod
    def looking(self, *, memory_limit_bytes: int) -> AbstractContextManager[Transaction]:
        """Open a transaction that can only read, and sees one state of all tables whatever others write meanwhile."""


class Transaction(ABC):
    """One transaction of a database. It is rolled back unless `commit` was called."""

    dialect: ClassVar[Dialect]

    @abstractmethod
    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],
        memory_limit_bytes: int,
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Write the rows of a table to a Parquet file as this transaction sees them; see `Database.stage_table`."""

    @abstractmethod
    def define(self, table: str, among: Collection[str]) -> Defined:
        """Return the definition of a table, with its foreign keys to the tables of `among`, its backup's.

        Raises `TaskFailure` (``definition_not_restorable``) that names what could not be made again.
        """

    @abstractmethod
    def create(self, definition: Definition, table: str, source: str, names: Mapping[str, str]) -> None:
        """Create `table` by the definition of `source`, ready for rows; `names` has the new names of all tables."""

    @abstractmethod
    def complete(self, definition: Definition, table: str, source: str) -> None:
        """Add what is made when the rows are there."""

    def relate(  # noqa: B027 - most have related them
        self, definition: Definition, table: str, source: str, names: Mapping[str, str]
    ) -> None:
        """Add the foreign keys that are made when all tables of a backup have their rows and keys."""

    def changed_with(self, tables: Collection[str]) -> list[str]:  # noqa: ARG002 - for engines that change others
        """Return the foreign keys by which rows of other tables would change if all rows of `tables` were deleted."""
        return []

    def unstage(self) -> None:  # noqa: B027 - most inserts stage nothing
        """Remove what an insertion has staged, so that the next one can stage."""

    def advance_numbers(self, plan: TablePlan) -> None:  # noqa: B027 - most count from the rows that are there
        """Let the numbers that the database gives to new rows begin after those of the rows that are there."""

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether a column of the target takes every value of `kind` exactly, or refuses it."""
        return self.dialect.declare(kind) == column.declared or holds(column.shape, shape_of(kind))

    def refuse_inexact(self, plan: TablePlan, existing: list[ExistingColumn]) -> None:  # noqa: B027 - most need nothing
        """Raise `TaskFailure` (``value_not_exact``) for a staged value that the target's column would round."""

    @abstractmethod
    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query; values are bound to its question marks."""

    @abstractmethod
    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""

    def ensure(self, table: str, columns: str) -> None:
        """Create a table of this service if it does not exist.

        In `columns`, `{instant}` stands for `Dialect.instant` and `{short_text}` for `Dialect.short_text`.
        """
        dialect = self.dialect
        declared = columns.format(instant=dialect.instant, short_text=dialect.short_text)
        self.change(f"CREATE TABLE IF NOT EXISTS {table} ({declared})")

    @abstractmethod
    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target; None if it does not exist, and then no other load can create it."""

    @abstractmethod
    def keep_writers_out(self, plan: TablePlan) -> None:
        """Make other writers of the target wait for this transaction; readers do not wait."""

    @abstractmethod
    def insert(self, plan: TablePlan, existing: list[ExistingColumn], on_progress: Progress) -> int:
        """Append the dataset to the target and return the number of rows."""

    @abstractmethod
    def stage(self, plan: TablePlan, on_progress: Progress) -> None:
        """Make the dataset readable as `celeriac_stage`, indexed by its key where that helps."""

    @abstractmethod
    def drop_unchanged(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> None:
        """Remove the staged rows that the target has with the same values; `value` as in `statements`."""

    def staged_count(self) -> int:
        """Return the number of rows in the stage."""
        return int(self.rows(f"SELECT count(*) FROM {STAGE}")[0][0])  # noqa: S608 - a constant of ours

    def update(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> int:  # noqa: ARG002 - for engines that rewrite whole rows
        """Update the target's rows whose key is staged and return how many; `value` as in `statements`."""
        return self.change(update_matching(plan, value))

    @abstractmethod
    def commit(self) -> None:
        """Commit: all changes become visible together."""
