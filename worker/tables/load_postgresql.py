"""Load into PostgreSQL: ADBC's binary COPY, inside one READ COMMITTED transaction.

Deliveries of the same load_id wait for each other on an advisory lock. Where the target's types are the dataset's,
the rows are copied straight into it; otherwise they pass through a temporary table and PostgreSQL converts them.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.parse import quote as percent

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi as adbc
from adbc_driver_postgresql import dbapi as postgresql

from shared.errors import TaskFailure
from worker.tables.load_plan import STAGE, ExistingColumn, quote, read_batches, unloadable
from worker.tables.load_sql import (
    CREATE_LEDGER,
    create_stage,
    insert_staged,
    is_unchanged,
    matches,
    update_matching,
)
from worker.tables.load_types import Shape, holds, shape_of, signed_micros
from worker.tables.postgresql_errors import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.reach.connections import PostgresqlConnection
    from worker.tables.load_plan import TablePlan

_NAME_BYTES = 63
_DEAD_PEER_CHECK_S = 10
_DECLARED = {
    "bool": "boolean", "text": "text", "binary": "bytea", "date": "date",
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
}  # fmt: skip
_SIZED = {
    ("int", 16): "smallint", ("int", 32): "integer", ("int", 64): "bigint",
    ("float", 32): "real", ("float", 64): "double precision",
}  # fmt: skip
_SHAPES = {
    **{declared: Shape(family) for family, declared in _DECLARED.items()},  # type: ignore[arg-type] # keys are families
    **{declared: Shape(family, bits) for (family, bits), declared in _SIZED.items()},  # type: ignore[arg-type] # keys are families
    "numeric": Shape("decimal"),
    "character varying": Shape("text"),
    "citext": Shape("text"),
    "uuid": Shape("checked_text"),
    "json": Shape("checked_text"),
    "jsonb": Shape("checked_text"),
}


def fold(name: str) -> str:
    """Return the name: quoted ones are compared as they are."""
    return name


def represent(kind: pa.DataType) -> pa.DataType:
    """Return the Arrow type in which a column is copied; raise `TaskFailure` if PostgreSQL has no place for it."""
    plain = signed_micros(kind)
    if shape_of(plain).family == "other":
        raise unloadable(kind, "PostgreSQL")
    return plain


@contextmanager
def opened(connection: PostgresqlConnection, load_id: str) -> Iterator[PostgresqlDatabase]:
    """Yield the database inside a transaction that holds the lock of `load_id` and is rolled back unless committed."""
    try:
        with (
            closing(postgresql.connect(_with_timeouts(connection))) as link,
            closing(link.cursor()) as cursor,
        ):
            database = PostgresqlDatabase(link, cursor)
            try:
                database.begin(connection)
                if not database.rows("SELECT to_regclass('celeriac_loads') IS NOT NULL")[0][0]:
                    database.lock("celeriac_loads")  # CREATE IF NOT EXISTS fails when two run it at once
                    database.change(CREATE_LEDGER.format(instant="timestamptz"))
                    database.commit()
                    database.begin(connection)
                database.lock(f"load {load_id}")
                yield database
            finally:
                link.rollback()
    except adbc.Error as error:
        raise failure_of(error, connection) from None  # the driver's text may quote the URL


class PostgresqlDatabase:
    """One transaction of a PostgreSQL database."""

    primary_keys = True

    def __init__(self, link: adbc.Connection, cursor: adbc.Cursor) -> None:
        self._link = link
        self._cursor = cursor

    fold = staticmethod(fold)

    def begin(self, connection: PostgresqlConnection) -> None:
        """Begin a transaction with bounded statements and waits.

        READ COMMITTED whatever the database's default is: what is read after a lock must see what its last owner
        committed. The server looks whether this client is still there also while it computes.
        """
        self.change("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        for name, seconds in (
            ("statement_timeout", connection.statement_timeout_s),
            ("lock_timeout", connection.lock_timeout_s),
            ("client_connection_check_interval", _DEAD_PEER_CHECK_S),  # since PostgreSQL 14
        ):
            self.rows(
                "SELECT set_config(name, ?, true) FROM pg_settings WHERE name = ?",
                f"{int(seconds * 1000)}ms",
                name,
            )

    def lock(self, what: str) -> None:
        """Wait for the lock that this service calls `what`, and hold it until the transaction ends."""
        self.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))::text", f"celeriac {what}")

    def declare(self, kind: pa.DataType) -> str:
        """Return PostgreSQL's type, spelled as `format_type` does."""
        shape = shape_of(kind)
        if shape.family == "decimal":
            return f"numeric({kind.precision},{kind.scale})"
        return _SIZED.get((shape.family, shape.size or 0)) or _DECLARED[shape.family]

    def fits(self, column: ExistingColumn, kind: pa.DataType) -> bool:
        """Return whether the column takes every value of `kind` exactly, or refuses it."""
        return self.declare(kind) == column.declared or holds(column.shape, shape_of(kind))

    def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Return the rows of a query. A failure shows only when they are fetched, so all are."""
        self._cursor.execute(_numbered(sql) if values else sql, values or None)
        return self._cursor.fetchall()

    def change(self, sql: str, *values: str | int) -> int:
        """Run a statement and return how many rows it changed."""
        self._cursor.execute(_numbered(sql) if values else sql, values or None)
        return max(0, self._cursor.rowcount)

    def ensure(self, table: str, columns: str) -> None:
        """Make a table of this service's own if it is not there."""
        if not self.rows("SELECT to_regclass(?) IS NOT NULL", table)[0][0]:
            self.lock(table)  # CREATE IF NOT EXISTS fails when two run it at once
            self.change(f"CREATE TABLE IF NOT EXISTS {table} ({columns.format(instant='timestamptz')})")

    def columns(self, plan: TablePlan) -> list[ExistingColumn] | None:
        """Return the columns of the target; None if it is not there, and then nobody else of ours makes it."""
        for name in plan.columns:
            _refuse_long(name)
        if not self._exists(plan):
            self.lock(f"table {plan.table}")
            if not self._exists(plan):
                return None
        found = self.rows(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typtype::text, "
            "a.attnotnull AND NOT a.atthasdef AND a.attidentity::text = '' "
            "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            plan.target,
        )
        return [
            ExistingColumn(name, declared, bool(required), _shape(declared, is_enumeration=typtype == "e"))
            for name, declared, typtype, required in found
        ]

    def keep_writers_out(self, plan: TablePlan) -> None:
        """Lock the table against other writers, so that what is deleted or matched next is all there is."""
        self.change(f"LOCK TABLE {plan.target} IN SHARE ROW EXCLUSIVE MODE")

    def insert(
        self, plan: TablePlan, existing: list[ExistingColumn], on_progress: Callable[[int, int | None], None]
    ) -> int:
        """Append the dataset to the target and return the number of rows."""
        by_name = {column.name: column for column in existing}
        if all(self.declare(kind) == by_name[name].declared for name, kind in plan.columns.items()):
            *schema, table = plan.table.split(".")
            return self._copy(table, plan, on_progress, db_schema_name=schema[0] if schema else None)
        self.stage(plan, on_progress)
        return self.change(insert_staged(plan, lambda name: self.cast(by_name[name])))

    def stage(self, plan: TablePlan, on_progress: Callable[[int, int | None], None]) -> None:
        """Copy the dataset into a temporary table, which PostgreSQL drops with the session."""
        self.change(create_stage(plan, self.declare) + " ON COMMIT DROP")
        self._copy(STAGE, plan, on_progress, temporary=True)
        self.change(f"ANALYZE {STAGE}")

    def drop_unchanged(self, plan: TablePlan, existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Delete the staged rows that the target has; return how many stay."""
        without_equality = {column.name for column in existing if column.declared == "json"}

        def equal(name: str) -> str:
            as_text = "::text" if name in without_equality else ""
            return f"t.{quote(name)}{as_text} IS NOT DISTINCT FROM {value(name)}{as_text}"

        self.change(
            f"DELETE FROM {STAGE} AS s USING {plan.target} AS t "  # noqa: S608 - quoted names
            f"WHERE {matches(plan, value)} AND {is_unchanged(plan, equal)}"
        )
        return int(self.rows(f"SELECT count(*) FROM {STAGE}")[0][0])  # noqa: S608 - a constant of ours

    def update(self, plan: TablePlan, _existing: list[ExistingColumn], value: Callable[[str], str]) -> int:
        """Update the rows whose key is staged."""
        return self.change(update_matching(plan, value))

    def cast(self, column: ExistingColumn) -> str:
        """Return the staged column, cast only to types without an assignment cast from text.

        An explicit cast to varchar(n) would cut a text; an assignment refuses it.
        """
        staged = f"s.{quote(column.name)}"
        return f"{staged}::{column.declared}" if column.shape.family == "checked_text" else staged

    def commit(self) -> None:
        """Commit the transaction."""
        self._link.commit()

    def _exists(self, plan: TablePlan) -> bool:
        return bool(self.rows("SELECT to_regclass(?) IS NOT NULL", plan.target)[0][0])

    def _copy(self, table: str, plan: TablePlan, on_progress: Callable[[int, int | None], None], **where: Any) -> int:
        raised: list[BaseException] = []  # the driver would make texts of them

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


def _with_timeouts(connection: PostgresqlConnection) -> str:
    """Return the URL with bounds on connecting and on a silent network, unless it sets its own."""
    parts = urlsplit(connection.url)
    defaults = {
        "connect_timeout": str(max(1, round(connection.connect_timeout_s))),
        "tcp_user_timeout": "60000",
        "keepalives_idle": "30",
        "application_name": "celeriac",
    }
    query = {**defaults, **dict(parse_qsl(parts.query, keep_blank_values=True))}
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=percent)))


def _numbered(sql: str) -> str:
    head, *rest = sql.split("?")
    return head + "".join(f"${index}{part}" for index, part in enumerate(rest, start=1))


def _shape(declared: str, *, is_enumeration: bool) -> Shape:
    if is_enumeration:
        return Shape("checked_text")
    name, _, arguments = declared.partition("(")
    if name == "numeric" and arguments:
        return Shape("decimal", int(arguments.rstrip(")").split(",")[1]))
    if arguments and name.startswith("time"):  # timestamp(3) would round
        return Shape("other")
    return _SHAPES.get(name, Shape("other"))


def _refuse_nul(batch: pa.RecordBatch) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) and pc.any(pc.match_substring(column, "\0")).as_py():
            raise TaskFailure(
                "value_not_storable",
                f"The column {name!r} has texts with a NUL character, which PostgreSQL cannot store.",
                remedy="Remove it in a transform step, for example with replace(column, chr(0), '').",
                column=name,
            )


def _refuse_long(name: str) -> None:
    if len(name.encode()) > _NAME_BYTES:
        raise TaskFailure(
            "column_name_refused",
            f"The column name {name!r} is longer than {_NAME_BYTES} bytes, which PostgreSQL would cut.",
            remedy="Rename the column in a transform step.",
        )
