"""Stage a table or a query of a SQL connection, batch by batch, in a transaction that can only read."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from adbc_driver_manager import OperationalError as AdbcOperationalError
from adbc_driver_manager import dbapi as adbc
from adbc_driver_postgresql import dbapi as postgresql

from shared.errors import TaskFailure, TransientFailure, redact
from worker.reach.connections import DuckdbConnection, PostgresqlConnection, SqliteConnection
from worker.tables.parquet.columns import quoted
from worker.tables.parquet.staging import ParquetSink, column_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from shared.jobs.data.places import SqlSource
    from worker.reach.connections import SqlConnection
    from worker.tables.inference import Candidate

_BATCH_ROWS = 10_000
_BATCH_BYTES = 4 * 1024**2
_SQLITE_CHECK_EVERY = 100_000  # of SQLite's virtual instructions
_DEFAULT_TIMEOUT_S = 1_800.0
_PASSING_STATES = {"40001", "40P01", "53300", "55P03", "57P01", "57P03"}
# the parts of SQL in which a semicolon or a parenthesis means nothing, and all other single signs
_TOKEN = re.compile(
    r"""(?P<opaque>'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/)|(?P<sign>.)""",
    re.DOTALL,
)
_SQLSTATE = re.compile(r"SQLSTATE: (\w{5})")
_LOST = re.compile("server closed the connection|could not receive data|no connection to the server")
_READING = re.compile(r"(?is)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*\(*\s*(select|with|values|table|from)\b")


def stage_sql(
    connection: SqlConnection,
    source: SqlSource,
    staged: Any,
    *,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    """Write the rows of a table or a query to the Parquet file `staged`.

    Returns what the columns may become that came as text although they are something else; the other columns have
    their types. Raises `TaskFailure` (``query_refused``, ``query_failed``, ``unsupported_type``) and
    `TransientFailure` (``database_unavailable``).
    """
    query = single_select(source.query) if source.query is not None else whole_table(source.table or "")
    try:
        if isinstance(connection, PostgresqlConnection):
            return _from_postgresql(connection, query, staged, on_rows)
        if isinstance(connection, SqliteConnection):
            return _from_sqlite(connection, query, staged, on_rows)
        return _from_duckdb(connection, query, staged, memory_limit_bytes, on_rows)
    except pa.ArrowNotImplementedError as unsupported:
        raise TaskFailure(
            "unsupported_type",
            f"A column has a type that Parquet has not: {unsupported}.",
            remedy="Convert it to text in 'query'.",
        ) from None


def single_select(query: str) -> str:
    """Return `query` without a closing semicolon.

    Raises `TaskFailure` (``query_refused``) if it is anything but one statement that reads. This is for the
    message's sake and for drivers that wrap the query; that nothing is written is the transaction's business.
    """
    depth, end, opaque_free = 0, len(query), True
    for token in _TOKEN.finditer(query):
        sign = token["sign"]
        if sign is None:
            continue
        if not opaque_free and not sign.isspace():
            raise _refused("it has more than one statement")
        if sign in {"'", '"'}:
            raise _refused("it has a quote that is never closed")
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            raise _refused("it closes a parenthesis that was not opened")
        if sign == ";":
            end, opaque_free = token.start(), False
    if depth:
        raise _refused("it opens a parenthesis that is not closed")
    if not _READING.match(query):
        raise _refused("it does not begin with SELECT, WITH, VALUES, TABLE or FROM")
    return query[:end].strip()


def whole_table(table: str) -> str:
    """Return the query for all rows of a table."""
    return f"SELECT * FROM {'.'.join(quoted(part) for part in table.split('.'))}"  # noqa: S608 - quoted names


def _from_postgresql(
    connection: PostgresqlConnection, query: str, staged: Any, on_rows: Callable[[int], None]
) -> dict[str, Candidate]:
    with _postgresql_failures(connection), closing(_connected(connection)) as session, session.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute(f"SET LOCAL statement_timeout = {int(connection.statement_timeout_s * 1_000)}")
        cursor.execute(f"SET LOCAL lock_timeout = {int(connection.lock_timeout_s * 1_000)}")
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
        cursor.execute(f"{query}\n")  # the driver wraps it: a comment at its end must not swallow what follows
        reader = cursor.fetch_record_batch()
        return _write_batches(reader, reader.schema, staged, on_rows)


def _connected(connection: PostgresqlConnection) -> adbc.Connection:
    separator = "&" if "?" in connection.url else "?"
    timeout_s = max(2, int(connection.connect_timeout_s))
    session: adbc.Connection = postgresql.connect(f"{connection.url}{separator}connect_timeout={timeout_s}")
    return session


def _from_duckdb(
    connection: DuckdbConnection,
    query: str,
    staged: Any,
    memory_limit_bytes: int,
    on_rows: Callable[[int], None],
) -> dict[str, Candidate]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_limit_bytes}B",
        "threads": 1,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "python_enable_replacements": False,
    }
    try:
        with duckdb.connect(str(connection.path), read_only=True, config=config) as session:
            session.execute("SET enable_external_access = false; SET lock_configuration = true")
            reader = session.sql(query).to_arrow_reader(_BATCH_ROWS)  # execute() would hold all rows in memory
            return _write_batches(reader, reader.schema, staged, on_rows)
    except duckdb.IOException as locked:
        raise _unavailable(connection.name, str(locked)) from None
    except duckdb.Error as failed:
        raise _query_failed(connection.name, str(failed)) from None


def _write_batches(
    batches: Iterable[pa.RecordBatch], found: pa.Schema, staged: Any, on_rows: Callable[[int], None]
) -> dict[str, Candidate]:
    names = column_names(found.names)
    fields = [
        pa.field(name, field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type)
        for name, field in zip(names, found, strict=True)
    ]
    schema = pa.schema(fields)
    with ParquetSink(staged, schema) as sink:
        for batch in batches:
            columns = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
            sink.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            on_rows(sink.row_count)
    return {name: "decimal" for name, field in zip(names, found, strict=True) if _is_numeric(field.type)}


def _is_numeric(kind: pa.DataType) -> bool:
    """Return whether a column is PostgreSQL's numeric, which the driver hands over as text to lose no digit."""
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric"


def _from_sqlite(
    connection: SqliteConnection, query: str, staged: Any, on_rows: Callable[[int], None]
) -> dict[str, Candidate]:
    """Stage rows as text, for a SQLite column can have values of any type; numbers become numbers again."""
    with sqlite_session(connection) as session:
        session.set_authorizer(only_reading)
        cursor = session.execute(query)
        return _write_rows(cursor, [column[0] for column in cursor.description], staged, on_rows)


@contextmanager
def sqlite_session(connection: SqliteConnection) -> Iterator[sqlite3.Connection]:
    """Yield a session that cannot write and ends by itself. Its errors become `TaskFailure` and `TransientFailure`."""
    deadline = time.monotonic() + _DEFAULT_TIMEOUT_S
    uri = f"{connection.path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=connection.lock_timeout_s)) as session:
            session.execute("PRAGMA query_only = true")
            session.set_progress_handler(lambda: int(time.monotonic() > deadline), _SQLITE_CHECK_EVERY)
            yield session
    except sqlite3.OperationalError as failed:
        if failed.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise _unavailable(connection.name, str(failed)) from None
        raise _query_failed(connection.name, str(failed)) from None
    except sqlite3.Error as failed:
        raise _query_failed(connection.name, str(failed)) from None


def only_reading(action: int, *_: object) -> int:
    """Let SQLite's authorizer refuse whatever does not read."""
    allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def _write_rows(
    cursor: sqlite3.Cursor, raw_names: list[str], staged: Any, on_rows: Callable[[int], None]
) -> dict[str, Candidate]:
    names = column_names(raw_names)
    schema = pa.schema([(name, pa.string()) for name in names])
    only_numbers = [True] * len(names)
    with ParquetSink(staged, schema) as sink:
        while rows := list(islice(cursor, _BATCH_ROWS)):
            columns = list(zip(*rows, strict=True))
            for at, column in enumerate(columns):
                only_numbers[at] &= all(value is None or isinstance(value, (int, float)) for value in column)
            arrays = [pa.array(map(_sqlite_text, column), pa.string()) for column in columns]
            sink.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
            on_rows(sink.row_count)
    return {name: "number" if numbers else "text" for name, numbers in zip(names, only_numbers, strict=True)}


def _sqlite_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str) else repr(value)


@contextmanager
def _postgresql_failures(connection: PostgresqlConnection) -> Iterator[None]:
    try:
        yield
    except (adbc.Error, OSError) as failed:  # OSError: what Arrow makes of an error while rows arrive
        message = connection.scrub(str(failed))
        noted = _SQLSTATE.search(message)
        state = getattr(failed, "sqlstate", None) or (noted[1] if noted else "")
        lost = _LOST.search(message) is not None or (isinstance(failed, AdbcOperationalError) and not state)
        if lost or state in _PASSING_STATES or state.startswith("08"):
            raise _unavailable(connection.name, message) from None
        raise _query_failed(connection.name, message) from None


def _refused(why: str) -> TaskFailure:
    return TaskFailure(
        "query_refused", f"source.query: {why}.", remedy="Give one SELECT statement, without others beside it."
    )


def _query_failed(name: str, message: str) -> TaskFailure:
    return TaskFailure(
        "query_failed",
        f"The database {name!r} refused the query: {redact(message)[:500]}",
        remedy="Check 'table' or 'query' against the database, and the rights of its account.",
    )


def _unavailable(name: str, message: str) -> TransientFailure:
    return TransientFailure(
        "database_unavailable",
        f"The database {name!r} cannot be read now: {redact(message)[:500]}",
        remedy="It may pass; look at the database.",
    )
