"""Tables and queries are staged in batches by transactions that can only read."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure, TransientFailure
from shared.jobs.data.places import SqlSource
from worker.reach.connections import DuckdbConnection, PostgresqlConnection, SqliteConnection
from worker.tables.read import single_select, stage_sql

if TYPE_CHECKING:
    from pathlib import Path

    from worker.reach.connections import SqlConnection


def stage(connection: SqlConnection, folder: Path, **what: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the staged rows and the candidates."""
    staged = folder / "staged.parquet"
    source = SqlSource(kind="sql", connection="warehouse", **what)
    candidates = stage_sql(connection, source, staged, memory_limit_bytes=64 * 1024**2, on_rows=lambda _: None)
    return pq.read_table(staged).to_pylist(), candidates


@pytest.fixture
def postgresql(postgres_url: str) -> PostgresqlConnection:
    """Return a PostgreSQL database with a table of 30,000 rows."""
    with psycopg.connect(postgres_url) as session:
        session.execute('CREATE TABLE sales (id bigint, "Name" text, price numeric(12, 2), day date, tags text[])')
        session.execute(
            "INSERT INTO sales SELECT i, 'name ' || i, i * 0.25, date '2024-01-01' + (i % 30)::int, ARRAY['a'] "
            "FROM generate_series(1, 30000) AS i"
        )
    return PostgresqlConnection("warehouse", postgres_url)


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteConnection:
    """Return a SQLite file with columns of several kinds."""
    path = tmp_path / "w.db"
    with closing(sqlite3.connect(path)) as session, session:
        session.execute("CREATE TABLE sales (id TEXT, n INTEGER, r REAL, mixed, blob BLOB)")
        session.execute("INSERT INTO sales VALUES ('007', 1, 1e300, 'x', x'00ff'), ('8', NULL, 0.5, 2, NULL)")
    return SqliteConnection("warehouse", path, lock_timeout_s=0.1)


@pytest.fixture
def duck(tmp_path: Path) -> DuckdbConnection:
    """Return a DuckDB file with a table."""
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as session:
        session.execute("CREATE TABLE sales AS SELECT range AS id, 'n' || range AS name FROM range(25000)")
    return DuckdbConnection("warehouse", path)


def test_postgresql_table(postgresql: PostgresqlConnection, tmp_path: Path) -> None:
    """All rows come with their types; a numeric comes as exact text that is to become a decimal."""
    rows, candidates = stage(postgresql, tmp_path, table="public.sales")
    assert len(rows) == 30_000
    assert {"id": 1, "Name": "name 1", "price": "0.25", "day": date(2024, 1, 2), "tags": ["a"]} == rows[0]
    assert sum(range(1, 30_001)) * Decimal("0.25") == sum(Decimal(row["price"]) for row in rows)
    assert candidates == {"price": "decimal"}


def test_postgresql_query(postgresql: PostgresqlConnection, tmp_path: Path) -> None:
    """A query may end in a semicolon or a comment; equal column names are made distinct."""
    rows, _ = stage(
        postgresql, tmp_path, query="SELECT a.id, b.id FROM sales a JOIN sales b USING (id) WHERE id = 7; -- done"
    )
    assert rows == [{"id": 7, "id_2": 7}]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM sales",
        "SELECT 1; DELETE FROM sales",
        "WITH gone AS (DELETE FROM sales RETURNING id) SELECT * FROM gone",
        "SELECT 1) TO PROGRAM 'touch /tmp/celeriac-was-here' --",
        "SELECT 1) TO STDOUT; DELETE FROM sales; COPY (SELECT 1",
        "SELECT set_config('transaction_read_only', 'off', false), nextval('s')",
        "SELECT 'a' FROM no_such_table",
    ],
)
def test_postgresql_cannot_be_written(
    postgresql: PostgresqlConnection, postgres_url: str, tmp_path: Path, query: str
) -> None:
    """Whatever the query is, the database stays as it was, and the failure shows no password."""
    with pytest.raises(TaskFailure) as raised:
        stage(postgresql, tmp_path, query=query)
    assert raised.value.code in {"query_refused", "query_failed"}
    password = postgres_url.split(":")[2].split("@", maxsplit=1)[0]
    assert password not in str(raised.value.document())
    with psycopg.connect(postgres_url) as session:
        assert session.execute("SELECT count(*) FROM sales").fetchone() == (30_000,)


def test_what_a_query_did_all_the_same_is_undone(postgresql: PostgresqlConnection, tmp_path: Path) -> None:
    """Large objects can be made in a read-only transaction (until PostgreSQL 15); it is never committed."""
    stage(postgresql, tmp_path, query="SELECT lo_from_bytea(0, 'x') AS made")
    rows, _ = stage(postgresql, tmp_path, query="SELECT count(*) AS objects FROM pg_largeobject_metadata")
    assert rows == [{"objects": 0}]


def test_postgresql_statement_timeout(postgres_url: str, tmp_path: Path) -> None:
    """A query that takes too long is ended by the server."""
    connection = PostgresqlConnection("warehouse", postgres_url, statement_timeout_s=0.2)
    with pytest.raises(TaskFailure, match="statement timeout"):
        stage(connection, tmp_path, query="SELECT pg_sleep(30)::text")


def test_postgresql_that_is_down_can_pass(tmp_path: Path) -> None:
    """A refused connection is tried again, and no credentials are shown."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://u:hush-hush@127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(TransientFailure) as raised:
            stage(PostgresqlConnection("warehouse", url), tmp_path, table="sales")
    assert raised.value.code == "database_unavailable"
    assert "hush-hush" not in str(raised.value.document())


def test_sqlite_table(sqlite: SqliteConnection, tmp_path: Path) -> None:
    """Values of any type survive as text; columns of numbers alone are to become numbers."""
    rows, candidates = stage(sqlite, tmp_path, table="sales")
    assert rows == [
        {"id": "007", "n": "1", "r": "1e+300", "mixed": "x", "blob": "00ff"},
        {"id": "8", "n": None, "r": "0.5", "mixed": "2", "blob": None},
    ]
    assert candidates == {"id": "text", "n": "number", "r": "number", "mixed": "text", "blob": "text"}


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM sales",
        "SELECT 1; DELETE FROM sales",
        "WITH x AS (SELECT 1) DELETE FROM sales",
        "SELECT load_extension('x')",
    ],
)
def test_sqlite_cannot_be_written(sqlite: SqliteConnection, tmp_path: Path, query: str) -> None:
    """Only reading is authorized."""
    with pytest.raises(TaskFailure) as raised:
        stage(sqlite, tmp_path, query=query)
    assert raised.value.code in {"query_refused", "query_failed"}
    assert len(stage(sqlite, tmp_path, table="sales")[0]) == 2


def test_a_locked_sqlite_can_pass(sqlite: SqliteConnection, tmp_path: Path) -> None:
    """Another's exclusive lock is waited for, then tried again later."""
    with closing(sqlite3.connect(sqlite.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientFailure) as raised:
            stage(sqlite, tmp_path, table="sales")
        other.rollback()
    assert raised.value.code == "database_unavailable"


def test_duckdb_file(duck: DuckdbConnection, tmp_path: Path) -> None:
    """A DuckDB file is read with its types."""
    rows, candidates = stage(duck, tmp_path, query="FROM sales ORDER BY id")
    assert (len(rows), rows[-1], candidates) == (25_000, {"id": 24_999, "name": "n24999"}, {})


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT 1; DELETE FROM sales",
        "WITH x AS (SELECT 1) DELETE FROM sales",
        "FROM duckdb_secrets(), no_such",
    ],
)
def test_duckdb_reaches_nothing_else(duck: DuckdbConnection, tmp_path: Path, query: str) -> None:
    """Neither files nor writes are within a query's reach."""
    with pytest.raises(TaskFailure) as raised:
        stage(duck, tmp_path, query=query)
    assert raised.value.code in {"query_refused", "query_failed"}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT ';' AS a, \"x;y\" FROM t -- ; \n",
        "/* ; */ SELECT $$;)$$",
        "(SELECT 1) UNION (SELECT 2);",
        "WITH a AS (SELECT 1) SELECT * FROM a ; ",
        "values (1, ')')",
        "SELECT 'it''s ; fine'",
    ],
)
def test_one_statement_passes(query: str) -> None:
    """Semicolons and parentheses in texts, names and comments mean nothing."""
    assert single_select(query).startswith(query.strip()[:6])


@pytest.mark.parametrize(
    "query", ["SELECT 'open", "SELECT (1", "SELECT 1)", "SELECT 1;;SELECT 2", "EXPLAIN SELECT 1", ""]
)
def test_anything_else_is_refused(query: str) -> None:
    """The message says why."""
    with pytest.raises(TaskFailure) as raised:
        single_select(query)
    assert raised.value.code == "query_refused"
