"""Load into PostgreSQL with the binary COPY of ADBC, in one READ COMMITTED transaction.

An advisory lock serialises deliveries of the same load_id. If the target has the types of the dataset, the rows are
copied directly into it; otherwise they are copied into a temporary table and PostgreSQL converts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi as adbc

from shared.errors import TaskFailure
from worker.tables.databases.base import Transaction
from worker.tables.databases.definitions import PostgresqlTable, own
from worker.tables.databases.plan import read_batches
from worker.tables.databases.postgresql import definition
from worker.tables.databases.postgresql.dialect import PostgresqlDialect, shape_in
from worker.tables.databases.postgresql.reading import SPELLING, stage_rows
from worker.tables.databases.statements import STAGE, create_stage, insert_staged, is_unchanged, matches, select
from worker.tables.databases.types import ExistingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from shared.connections.settings import PostgresqlInfo
    from worker.tables.databases.definitions import Defined, Definition
    from worker.tables.databases.plan import Progress, TablePlan
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_NAME_BYTES = 63
_DEAD_PEER_CHECK_S = 10
_COLUMNS = """
    WITH RECURSIVE held (position, type, modifier) AS (
        SELECT attnum, atttypid, atttypmod FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT held.position, t.typbasetype, t.typtypmod
        FROM held JOIN pg_catalog.pg_type t ON t.oid = held.type WHERE t.typtype = 'd'
    )
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
           a.attnotnull AND NOT a.atthasdef AND a.attidentity::text = '', a.attgenerated::text <> '',
           format_type(held.type, held.modifier), format_type(held.type, -1)
    FROM held JOIN pg_catalog.pg_type t ON t.oid = held.type
         JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass(?) AND a.attnum = held.position
    WHERE t.typtype <> 'd' ORDER BY a.attnum
"""


class PostgresqlTransaction(Transaction):
    """One transaction of a PostgreSQL database."""

    dialect = PostgresqlDialect()

    def __init__(self, link: adbc.Connection, cursor: adbc.Cursor) -> None:
        self._link = link
        self._cursor = cursor

    def begin(self, info: PostgresqlInfo) -> None:
        """Begin a transaction with bounded statements and waits.

        READ COMMITTED, whatever the default of the database is: a read after a lock must see what the previous holder
        committed. The server also checks during a statement whether this client is still connected.
        """
        self.change("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        for name, seconds in (
            ("statement_timeout", info.statement_timeout_s),
            ("lock_timeout", info.lock_timeout_s),
            ("client_connection_check_interval", _DEAD_PEER_CHECK_S),  # since PostgreSQL 14
        ):
            self.rows(
                "SELECT set_config(name, ?, true) FROM pg_settings WHERE name = ?",
                f"{int(seconds * 1000)}ms",
                name,
            )
        for setting in SPELLING:
            self.change(setting)

    def lock(self, what: str) -> None:
        """Wait for the advisory lock named `what`, and hold it until the transaction ends."""
        self.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))::text", f"celeriac {what}")

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query. All are fetched, because errors appear only then."""
        self._cursor.execute(_numbered(sql) if values else sql, values or None)
        return self._cursor.fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        self._cursor.execute(_numbered(sql) if values else sql, values or None)
        return max(0, self._cursor.rowcount)

    def has(self, table: str) -> bool:
        """Return whether a table, given as an SQL identifier, exists."""
        return bool(self.rows("SELECT to_regclass(?) IS NOT NULL", table)[0][0])

    def ensure(self, table: str, columns: str) -> None:
        """Create a table of this service if it does not exist."""
        if not self.has(table):
            self.lock(table)  # concurrent CREATE IF NOT EXISTS can fail
            super().ensure(table, columns)

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target; None if it does not exist, locked so that no other load creates it."""
        for name in plan.columns:
            _refuse_long(name)
        if not self.has(plan.target):
            self.lock(f"table {plan.table}")
            if not self.has(plan.target):
                return None
        return [
            ExistingColumn(name, declared, bool(required), shape_in(limited), limited, bare, bool(generated))
            for name, declared, required, generated, limited, bare in self.rows(_COLUMNS, plan.target, plan.target)
        ]

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether a column of the target takes the values of `kind`, or `refuse_inexact` refuses them."""
        return self.dialect.declare(kind) == column.declared or self.dialect.takes(column, kind)

    def refuse_inexact(self, plan: TablePlan, existing: list[ExistingColumn]) -> None:
        """Raise `TaskFailure` (``value_not_exact``) for a staged value that PostgreSQL would round."""
        by_name = {column.name: column for column in existing}
        conditions = {name: self.dialect.inexact(by_name[name], kind) for name, kind in plan.columns.items()}
        for name, condition in conditions.items():
            if not condition:
                continue
            value = f"s.{self.dialect.quoted(name)}::text"
            for (example,) in self.rows(f"SELECT {value} FROM {STAGE} AS s WHERE {condition} LIMIT 1"):  # noqa: S608 - quoted names
                declared = by_name[name].declared
                raise TaskFailure(
                    "value_not_exact",
                    f"A value of column {name!r}, {example}, does not fit {declared} without a change.",
                    remedy="Round the column in a transform step, or change the column of the table.",
                    column=name,
                )

    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],  # noqa: ARG002 - PostgreSQL has types
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some MiB stay far below it
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Write the rows of a table to a Parquet file as this transaction sees them."""
        query = select(self.dialect, table, condition, columns)
        return stage_rows(self._cursor, query, staged, out_of_range=out_of_range, on_rows=on_rows)

    def define(self, table: str, among: Collection[str]) -> Defined:
        """Return the definition of a table, locked against changes of it until the transaction ends."""
        return definition.define(self, table, among)

    def create(self, made: Definition, table: str, source: str, _names: Mapping[str, str]) -> None:
        """Create a table with its columns and checks."""
        definition.create(self, own(made, PostgresqlTable), table, source)

    def complete(self, made: Definition, table: str, source: str) -> None:
        """Create the keys, indexes and comments of a table."""
        definition.complete(self, own(made, PostgresqlTable), table, source)

    def relate(self, made: Definition, table: str, source: str, names: Mapping[str, str]) -> None:
        """Create the foreign keys of a table."""
        definition.relate(self, own(made, PostgresqlTable), table, source, names)

    def changed_with(self, tables: Collection[str]) -> list[str]:
        """Return the foreign keys of other tables that delete rows, or set them to something else."""
        marks = ", ".join("to_regclass(?)" for _ in tables)
        targets = [self.dialect.target(table) for table in tables]
        found = self.rows(
            "SELECT conname::text, conrelid::regclass::text FROM pg_catalog.pg_constraint "  # noqa: S608 - marks
            f"WHERE contype = 'f' AND confdeltype IN ('c', 'n', 'd') AND confrelid IN ({marks}) "
            f"AND conrelid NOT IN ({marks}) ORDER BY 1",
            *targets,
            *targets,
        )
        return [f"{name!r} of {table}" for name, table in found]

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.change(f"DROP TABLE IF EXISTS pg_temp.{STAGE}")

    def advance_numbers(self, plan: TablePlan) -> None:
        """Set the sequences of serial and identity columns to the highest number that is there, if that is higher."""
        found = self.rows(
            "SELECT attname::text, pg_get_serial_sequence(?, attname::text) FROM pg_catalog.pg_attribute "
            "WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped "
            "AND pg_get_serial_sequence(?, attname::text) IS NOT NULL",
            *[plan.target] * 3,
        )
        for column, sequence in found:
            self.rows(
                f"SELECT setval(?::regclass, number) FROM (SELECT max({self.dialect.quoted(column)}) AS number "  # noqa: S608 - quoted names
                f"FROM {plan.target}) AS rows WHERE number > 0 AND number >= (SELECT last_value FROM {sequence})",
                sequence,
            )

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Lock the table against other writers, so that no row is added while rows are matched or deleted."""
        self.change(f"LOCK TABLE {plan.target} IN SHARE ROW EXCLUSIVE MODE")

    def insert(self, plan: TablePlan, existing: list[ExistingColumn], on_progress: Progress) -> int:
        """Append the dataset to the target and return the number of rows."""
        by_name = {column.name: column for column in existing}
        if all(self.dialect.declare(kind) == by_name[name].declared for name, kind in plan.columns.items()):
            *schema, table = plan.table.split(".")
            return self._copy(table, plan, on_progress, db_schema_name=schema[0] if schema else None)
        self.stage(plan, on_progress)
        self.refuse_inexact(plan, existing)
        return self.change(insert_staged(plan, lambda name: self.dialect.cast(by_name[name], plan.columns[name])))

    def stage(self, plan: TablePlan, on_progress: Progress) -> None:
        """Copy the dataset into a temporary table, which PostgreSQL drops with the session."""
        self.change(create_stage(plan) + " ON COMMIT DROP")
        self._copy(STAGE, plan, on_progress, temporary=True)
        self.change(f"ANALYZE {STAGE}")

    def drop_unchanged(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> None:
        """Delete the staged rows that are unchanged in the target."""
        as_texts = {column.name for column in existing if column.shape.family in {"checked_text", "list"}}

        def equal(name: str) -> str:
            as_text = "::text" if name in as_texts else ""  # some have no equality, and some equal what is not the same
            return f"t.{self.dialect.quoted(name)}{as_text} IS NOT DISTINCT FROM ({value(name)}){as_text}"

        self.change(
            f"DELETE FROM {STAGE} AS s USING {plan.target} AS t "  # noqa: S608 - quoted names
            f"WHERE {matches(plan, value)} AND {is_unchanged(plan, equal)}"
        )

    def commit(self) -> None:
        self._link.commit()

    def _copy(self, table: str, plan: TablePlan, on_progress: Progress, **where: Any) -> int:
        raised: list[BaseException] = []  # the driver would convert them to text

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for batch in read_batches(plan, on_progress):
                    _refuse_nul(batch)
                    yield batch
            except BaseException as error:
                raised.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(pa.schema(list(plan.columns.items())), batches())
        try:
            return self._cursor.adbc_ingest(table, reader, mode="append", **where)
        except adbc.Error:
            if raised:
                raise raised[0] from None
            raise


def _numbered(sql: str) -> str:
    head, *rest = sql.split("?")
    return head + "".join(f"${index}{part}" for index, part in enumerate(rest, start=1))


def _refuse_nul(batch: pa.RecordBatch) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        texts = column.flatten() if pa.types.is_list(column.type) else column
        if pa.types.is_string(texts.type) and pc.any(pc.match_substring(texts, "\0")).as_py():
            raise TaskFailure(
                "value_not_storable",
                f"The column {name!r} has text with a NUL character, which PostgreSQL cannot store.",
                remedy="Remove the character in a transform step, for example with replace(column, chr(0), '').",
                column=name,
            )


def _refuse_long(name: str) -> None:
    if len(name.encode()) > _NAME_BYTES:
        raise TaskFailure(
            "column_name_refused",
            f"The column name {name!r} is longer than {_NAME_BYTES} bytes; PostgreSQL would truncate it.",
            remedy="Rename the column in a transform step.",
        )
