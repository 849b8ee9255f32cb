"""PostgreSQL: what only it has, and servers that refuse, wait, crawl or die."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psycopg
import pyarrow as pa
import pytest

from shared.errors import TaskFailure, TransientFailure
from tests.support.engines import Engine, make_engine, postgresql_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE = pa.table({"id": [1, 2, 3]})
SECRET = "s3cr3t/p@ss w%rd"  # noqa: S105 - not a secret of anything


@pytest.fixture
def postgresql(postgres_url: str, tmp_path: Path) -> Engine:
    return postgresql_at(postgres_url, tmp_path, lock_timeout_s=0.2, statement_timeout_s=10)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_wrong_password_is_final_and_appears_nowhere(postgres_url: str, tmp_path: Path) -> None:
    """The failure says what to check; the password is in no text of it."""
    parts = urlsplit(postgres_url)
    url = f"postgresql://celeriac:{quote(SECRET, safe='')}@127.0.0.1:{parts.port}{parts.path}"
    with pytest.raises(TaskFailure) as caught:
        postgresql_at(url, tmp_path).load(TABLE)
    assert (caught.value.code, caught.value.retryable) == ("database_access_denied", False)
    chain = f"{caught.value.document()} {caught.value!r} {caught.value.__cause__!r}"
    for secret in (SECRET, quote(SECRET, safe=""), "s3cr3t"):
        assert secret not in chain


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://celeriac:s3cr3t p@127.0.0.1:1/x",  # a space
        "postgresql://celeriac:s3cr3t/p@127.0.0.1:1/x",  # the path begins within the password
        "postgresql://celeriac:p@127.0.0.1:1/x?s3cr3t=1",  # an unknown parameter
        "postgresql://celeriac:s3cr3t%zz@127.0.0.1:1/x",  # a broken escape
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str, tmp_path: Path) -> None:
    """Libpq quotes what it does not understand, which may be a part of the password; the failure does not."""
    with pytest.raises(TaskFailure) as caught:
        postgresql_at(url, tmp_path).load(TABLE)
    assert "s3cr3t" not in f"{caught.value.document()} {caught.value.__cause__!r}"


def test_a_server_that_is_not_there_can_come_back(tmp_path: Path) -> None:
    """A refused connection is transient."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TransientFailure) as caught:
        postgresql_at(f"postgresql://u:{SECRET[:6]}@127.0.0.1:{port}/x", tmp_path).load(TABLE)
    assert caught.value.code == "database_unavailable"
    assert SECRET[:6] not in str(caught.value.document())


def test_a_silent_server_is_given_up(silent_port: int, tmp_path: Path) -> None:
    """Connecting has a bound (libpq's smallest is 2 s)."""
    with pytest.raises(TransientFailure) as caught:
        postgresql_at(f"postgresql://u@127.0.0.1:{silent_port}/x", tmp_path, connect_timeout_s=1).load(TABLE)
    assert caught.value.code == "database_unavailable"


def test_a_database_that_does_not_exist_is_final(postgres_url: str, tmp_path: Path) -> None:
    """Trying again would not make it."""
    with pytest.raises(TaskFailure) as caught:
        postgresql_at(postgres_url.rsplit("/", 1)[0] + "/nowhere", tmp_path).load(TABLE)
    assert (caught.value.code, caught.value.retryable) == ("database_access_denied", False)


def test_missing_privileges_are_final(postgresql: Engine, postgres_url: str, tmp_path: Path) -> None:
    """A user without the right to write is told so."""
    role = f"reader_{urlsplit(postgres_url).path.strip('/')}"
    postgresql.load(pa.table({"id": [0]}), load_id="before")
    postgresql.run(f"CREATE ROLE {role} LOGIN PASSWORD 'reader'", f"GRANT SELECT ON celeriac_loads TO {role}")
    parts = urlsplit(postgres_url)
    try:
        with pytest.raises(TaskFailure) as caught:
            postgresql_at(f"postgresql://{role}:reader@127.0.0.1:{parts.port}{parts.path}", tmp_path).load(TABLE)
    finally:
        postgresql.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert (caught.value.code, caught.value.retryable) == ("database_access_denied", False)


@pytest.mark.parametrize(("mode", "key"), [("append", []), ("replace", []), ("upsert", ["id"])])
def test_a_lock_of_another_is_waited_for_with_a_bound(
    postgresql: Engine, postgres_url: str, mode: str, key: list[str]
) -> None:
    """A table locked for longer than the bound fails the attempt, and that is transient."""
    postgresql.load(TABLE, load_id="before")
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientFailure) as caught:
            postgresql.load(TABLE, mode=mode, key=key)
    assert (caught.value.code, caught.value.details) == ("database_busy", {"sqlstate": "55P03"})


def test_a_delivery_that_is_under_way_is_waited_for_with_a_bound(postgresql: Engine, postgres_url: str) -> None:
    """The lock of a load_id that never comes free makes the attempt fail, and that is transient."""
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('celeriac load first', 0))")
        with pytest.raises(TransientFailure) as caught:
            postgresql.load(TABLE)
    assert caught.value.code == "database_busy"
    assert postgresql.load(TABLE).inserted_count == 3


def test_a_statement_that_takes_too_long_is_ended(postgresql: Engine, postgres_url: str, tmp_path: Path) -> None:
    """The statement timeout counts for the COPY too."""
    postgresql.run(
        "CREATE TABLE sales (id BIGINT)",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NEW; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON sales FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    with pytest.raises(TransientFailure) as caught:
        postgresql_at(postgres_url, tmp_path, statement_timeout_s=0.3).load(TABLE)
    assert (caught.value.code, caught.value.details) == ("database_busy", {"sqlstate": "57014"})


def test_a_deadlock_is_transient(postgresql: Engine) -> None:
    """Serialisation failures and deadlocks are tried again."""
    postgresql.run(
        "CREATE TABLE sales (id BIGINT)",
        "CREATE FUNCTION unlucky() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION USING ERRCODE = ''40P01'', MESSAGE = ''deadlock detected''; END'",
        "CREATE TRIGGER unlucky BEFORE INSERT ON sales FOR EACH ROW EXECUTE FUNCTION unlucky()",
    )
    with pytest.raises(TransientFailure) as caught:
        postgresql.load(TABLE)
    assert caught.value.code == "database_busy"


def test_a_connection_cut_while_rows_go_in_is_transient(postgresql: Engine) -> None:
    """The server ends our session during the COPY: the attempt fails, is transient, and left nothing."""
    big = pa.table({"id": pa.array(range(300_000))})
    cut: list[int] = []

    def cut_once(done: int, _total: int | None) -> None:
        if done and not cut:
            cut.append(done)
            postgresql.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'celeriac'"
            )

    with pytest.raises(TransientFailure) as caught:
        postgresql.load(big, on_progress=cut_once)
    assert caught.value.code == "database_unavailable"
    assert postgresql.load(big, on_progress=cut_once).inserted_count == 300_000
    assert postgresql.run("SELECT count(*) FROM sales") == [(300_000,)]


def test_readers_see_the_old_rows_while_a_replace_runs(postgresql: Engine) -> None:
    """`replace` makes nobody wait who only reads."""
    postgresql.load(pa.table({"id": [7]}), load_id="old")
    seen: list[object] = []
    postgresql.load(TABLE, mode="replace", on_progress=lambda *_: seen.append(postgresql.run("SELECT * FROM sales")))
    assert seen
    assert all(rows == [(7,)] for rows in seen)
    assert postgresql.run("SELECT count(*) FROM sales") == [(3,)]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_texts_are_parsed_for_types_that_check_them(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """uuid, jsonb and enumerations take texts and refuse wrong ones."""
    engine = make_engine("postgresql", tmp_path, request)
    engine.run("CREATE TYPE mood AS ENUM ('ok')", "CREATE TABLE sales (id UUID, doc JSONB, mood mood, s VARCHAR(3))")
    row = {"id": ["0192f0c1-2a4b-7c3d-8e5f-0123456789ab"], "doc": ['{"a": 1}'], "mood": ["ok"], "s": ["abc"]}
    key = ["id"] if mode == "upsert" else []
    engine.load(pa.table(row), mode=mode, key=key)
    assert engine.run("SELECT id::text, doc::text, mood::text, s FROM sales") == [
        (row["id"][0], '{"a": 1}', "ok", "abc")
    ]
    with pytest.raises(TaskFailure) as caught:  # never cut
        engine.load(pa.table({**row, "s": ["abcd"]}), mode=mode, key=key, load_id="second")
    assert caught.value.code == "value_refused"


def test_a_name_that_would_be_cut_is_refused(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A column name of more than 63 bytes is refused."""
    engine = make_engine("postgresql", tmp_path, request)
    with pytest.raises(TaskFailure) as caught:
        engine.load(pa.table({"ü" * 32: [1]}))
    assert caught.value.code == "column_name_refused"
