"""PostgreSQL is read with its types, by transactions that can only read."""

from __future__ import annotations

import socket
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.support.engines import Engine, postgresql_at

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def postgresql(postgres_url: str, tmp_path: Path) -> Engine:
    """Return a PostgreSQL database with a table of 30,000 rows."""
    engine = postgresql_at(postgres_url, tmp_path)
    engine.run(
        'CREATE TABLE sales (id bigint, "Name" text, price numeric(12, 2), day date, tags text[])',
        "INSERT INTO sales SELECT i, 'name ' || i, i * 0.25, date '2024-01-01' + (i % 30)::int, ARRAY['a'] "
        "FROM generate_series(1, 30000) AS i",
    )
    return engine


def test_a_table_comes_with_its_types(postgresql: Engine) -> None:
    """All rows come with their types; a numeric comes as exact text that is to become a decimal."""
    rows, candidates = postgresql.stage(table="public.sales")
    assert len(rows) == 30_000
    assert {"id": 1, "Name": "name 1", "price": "0.25", "day": date(2024, 1, 2), "tags": ["a"]} == rows[0]
    assert sum(range(1, 30_001)) * Decimal("0.25") == sum(Decimal(row["price"]) for row in rows)
    assert candidates == {"price": "decimal"}


def test_a_query_may_end_in_a_comment(postgresql: Engine) -> None:
    """A query may end in a semicolon or a comment; equal column names are made distinct."""
    rows, _ = postgresql.stage(query="SELECT a.id, b.id FROM sales a JOIN sales b USING (id) WHERE id = 7; -- done")
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
def test_nothing_can_be_written(postgresql: Engine, postgres_url: str, query: str) -> None:
    """Whatever the query is, the database stays as it was, and the failure shows no password."""
    with pytest.raises(TaskFailure) as raised:
        postgresql.stage(query=query)
    assert raised.value.code in {"query_refused", "query_failed"}
    password = postgres_url.split(":")[2].split("@", maxsplit=1)[0]
    assert password not in str(raised.value.document())
    with psycopg.connect(postgres_url) as session:
        assert session.execute("SELECT count(*) FROM sales").fetchone() == (30_000,)


def test_what_a_query_changed_is_undone(postgresql: Engine) -> None:
    """Large objects can be made in a read-only transaction (until PostgreSQL 15); it is never committed."""
    postgresql.stage(query="SELECT lo_from_bytea(0, 'x') AS made")
    rows, _ = postgresql.stage(query="SELECT count(*) AS objects FROM pg_largeobject_metadata")
    assert rows == [{"objects": 0}]


def test_a_statement_that_takes_too_long_is_ended(postgres_url: str, tmp_path: Path) -> None:
    """The server ends it."""
    with pytest.raises(TaskFailure, match="statement timeout"):
        postgresql_at(postgres_url, tmp_path, statement_timeout_s=0.2).stage(query="SELECT pg_sleep(30)::text")


def test_a_server_that_is_down_can_come_back(tmp_path: Path) -> None:
    """A refused connection is tried again, and no credentials are shown."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://u:hush-hush@127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(TransientFailure) as raised:
            postgresql_at(url, tmp_path).stage(table="sales")
    assert raised.value.code == "database_unavailable"
    assert "hush-hush" not in str(raised.value.document())


@pytest.mark.parametrize(
    ("user", "code"),
    [("celeriac:s3cr3t", "database_access_denied"), ("celeriac:s3cr3t p", "connection_misconfigured")],
)
def test_a_wrong_password_or_url_is_final_and_appears_nowhere(
    postgres_url: str, tmp_path: Path, user: str, code: str
) -> None:
    """Reading says the same as loading: nothing that libpq quotes of the URL is repeated."""
    parts = urlsplit(postgres_url)
    with pytest.raises(TaskFailure) as raised:
        postgresql_at(f"postgresql://{user}@127.0.0.1:{parts.port}{parts.path}", tmp_path).stage(table="sales")
    assert (raised.value.code, raised.value.retryable) == (code, False)
    assert "s3cr3t" not in f"{raised.value.document()} {raised.value.__cause__!r}"
