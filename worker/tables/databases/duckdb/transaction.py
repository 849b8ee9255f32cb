"""Load into a DuckDB file. DuckDB reads the Parquet file itself; one process at a time can have the file open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from worker.tables.databases.base import Transaction
from worker.tables.databases.definitions import DuckdbTable, own
from worker.tables.databases.duckdb import definition
from worker.tables.databases.duckdb.dialect import DuckdbDialect, shape_in
from worker.tables.databases.duckdb.reading import HUGE, kept
from worker.tables.databases.statements import STAGE, insert_staged, is_unchanged, matches, names_in, select
from worker.tables.databases.types import ExistingColumn, holds, shape_of
from worker.tables.duck.session import interruptible
from worker.tables.parquet.calendar import within_calendar
from worker.tables.parquet.columns import text
from worker.tables.parquet.staging import batches_of, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    import duckdb

    from worker.tables.databases.definitions import Defined, Definition
    from worker.tables.databases.plan import Progress, TablePlan
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_BATCH_ROWS = 256  # DuckDB itself holds 2,048 at a time, within its limit
_CHANGED = "celeriac_changed"
_DIFFERING = "celeriac_differing"


class DuckdbTransaction(Transaction):
    """One transaction of a DuckDB file."""

    dialect = DuckdbDialect()

    def __init__(self, link: duckdb.DuckDBPyConnection) -> None:
        self._link = link

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the column takes every value of `kind` exactly, or refuses it."""
        ((spelled,),) = self.rows(
            f"SELECT typeof(CAST(NULL AS {self.dialect.declare(kind)}))"
        )  # as duckdb_columns() does
        is_huge = column.declared in HUGE and pa.types.is_decimal(kind) and kind.scale == 0
        return is_huge or bool(spelled == column.declared) or holds(column.shape, shape_of(kind))

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        return self._link.execute(sql, list(values)).fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        return _count(interruptible(self._link, lambda: self._link.execute(sql, list(values)).fetchall()))

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target, or None if it does not exist."""
        *schema, table = plan.table.split(".")
        found = self.rows(
            "SELECT column_name, data_type, NOT is_nullable AND column_default IS NULL, is_generated "
            "FROM duckdb_columns() "
            "WHERE database_name = current_database() AND lower(table_name) = lower(?) "
            "AND lower(schema_name) = lower(?) ORDER BY column_index",
            table,
            schema[0] if schema else "main",
        )
        columns = [
            ExistingColumn(name, declared, bool(required), shape_in(declared), generated=bool(generated))
            for name, declared, required, generated in found
        ]
        return columns or None

    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],  # noqa: ARG002 - DuckDB has types
        memory_limit_bytes: int,  # noqa: ARG002 - the session's limit counts
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Write the rows of a table to a Parquet file as this transaction sees them."""
        query = select(self.dialect, table, condition, columns)
        stage_rows(self._link, query, staged, on_rows, out_of_range=out_of_range)
        return {}

    def define(self, table: str, among: Collection[str]) -> Defined:
        """Return the definition of a table."""
        return definition.define(self, table, among)

    def create(self, made: Definition, table: str, _source: str, names: Mapping[str, str]) -> None:
        """Create a table with all but its indexes and comments."""
        definition.create(self, own(made, DuckdbTable), table, names)

    def complete(self, made: Definition, table: str, _source: str) -> None:
        """Create the indexes and comments of a table."""
        definition.complete(self, own(made, DuckdbTable), table)

    def unstage(self) -> None:
        """Drop the view over the file."""
        self.change(f"DROP VIEW IF EXISTS {STAGE}")

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Do nothing: no other process can have the file open."""

    def insert(self, plan: TablePlan, _existing: list[ExistingColumn], on_progress: Progress) -> int:
        """Append the dataset to the target and return the number of rows."""
        self.stage(plan, on_progress)
        insertion = insert_staged(plan, lambda name: f"s.{self.dialect.quoted(name)}")
        answer = interruptible(
            self._link,
            lambda: self._link.execute(insertion).fetchall(),
            lambda done: on_progress(int(plan.row_count * done), plan.row_count),
        )
        count = _count(answer)
        on_progress(count, plan.row_count)
        return count

    def stage(self, plan: TablePlan, _on_progress: Progress) -> None:
        """Make a view over the Parquet file; nothing is copied. Its dates are looked at, for DuckDB takes any."""
        dated = [name for name, kind in plan.columns.items() if pa.types.is_temporal(kind)]
        for batch in batches_of(plan.dataset, dated) if dated else ():
            within_calendar(batch)
        columns = ", ".join(
            f"CAST({self.dialect.quoted(name)} AS {self.dialect.declare(kind)}) AS {self.dialect.quoted(name)}"
            for name, kind in plan.columns.items()
        )
        self.change(f"CREATE TEMPORARY VIEW {STAGE} AS SELECT {columns} FROM read_parquet({text(str(plan.dataset))})")  # noqa: S608 - quoted

    def drop_unchanged(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> None:
        """Copy the rows that differ into a table, and let the stage show that."""
        same = is_unchanged(plan, lambda name: f"t.{self.dialect.quoted(name)} IS NOT DISTINCT FROM {value(name)}")
        differs = f"t.{self.dialect.quoted(plan.key[0])} IS NULL OR NOT ({same})"
        self.change(
            f"CREATE TEMPORARY TABLE {_DIFFERING} AS SELECT s.* FROM {STAGE} AS s "  # noqa: S608 - quoted names
            f"LEFT JOIN {plan.target} AS t ON {matches(plan, value)} WHERE {differs}"
        )
        self.change(f"DROP VIEW {STAGE}")
        self.change(f"CREATE TEMPORARY VIEW {STAGE} AS SELECT * FROM {_DIFFERING}")  # noqa: S608 - constants of ours

    def update(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Copy the changed rows into a table, delete the old ones and insert the changed ones.

        DuckDB keeps what an UPDATE overwrites in memory until the commit; the rows of a table can spill to the disk.
        """
        given = {self.dialect.fold(name): name for name in plan.columns}
        columns = ", ".join(
            f"{value(given[self.dialect.fold(name)])} AS {self.dialect.quoted(name)}"
            if self.dialect.fold(name) in given
            else f"t.{self.dialect.quoted(name)}"
            for name in (column.name for column in existing if not column.generated)
        )
        self.change(
            f"CREATE TEMPORARY TABLE {_CHANGED} AS SELECT {columns} "  # noqa: S608 - quoted names
            f"FROM {plan.target} AS t JOIN {STAGE} AS s ON {matches(plan, value)}"
        )
        keys = names_in(plan, plan.key)
        self.change(f"DELETE FROM {plan.target} WHERE ({keys}) IN (SELECT ({keys}) FROM {_CHANGED})")  # noqa: S608 - quoted names
        return self.change(f"INSERT INTO {plan.target} BY NAME SELECT * FROM {_CHANGED}")  # noqa: S608 - quoted names

    def commit(self) -> None:
        self._link.execute("COMMIT")


def stage_rows(
    session: duckdb.DuckDBPyConnection,
    query: str,
    staged: Path,
    on_rows: Callable[[int], None],
    *,
    out_of_range: OutOfRange = "fail",
) -> None:
    """Write the rows of a query to a Parquet file, in batches; not by execute(), which would hold all in memory."""
    rewritten = kept(session, query)
    reader = interruptible(session, lambda: session.sql(rewritten).to_arrow_reader(_BATCH_ROWS))
    try:
        write_batches(_interruptibly(session, reader), reader.schema, staged, on_rows, out_of_range=out_of_range)
    finally:
        reader.close()  # while it is open somewhere, the file cannot be opened again in this process


def _interruptibly(session: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield the batches; the first, for which a sort or an aggregate does all of its work, can be interrupted.

    A thread for each of the others would cost a third of the time of a plain table.
    """
    first = interruptible(session, lambda: next(reader, None))
    if first is not None:
        yield first
        yield from reader


def _count(answer: list[tuple[Any, ...]]) -> int:
    return int(answer[0][0]) if answer and isinstance(answer[0][0], int) else 0
