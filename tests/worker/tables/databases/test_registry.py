"""Every engine has an object, which an engine's settings choose; an engine without one is an error, not SQLite."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest

from shared.connections.settings import DuckdbInfo, PostgresqlInfo, SqlInfo, SqliteInfo, load_connections
from shared.errors import TaskFailure
from tests.support.engines import ENGINES, duckdb_at, sqlite_at
from worker.reach.connections import SqlConnection, WorkerConnections
from worker.tables.databases.duckdb.database import Duckdb
from worker.tables.databases.postgresql.database import Postgresql
from worker.tables.databases.registry import database, database_at
from worker.tables.databases.sqlite.database import Sqlite

EXAMPLE = Path(__file__).parents[4] / "examples" / "connections.toml"
URL = "postgresql://celeriac:s3cr3t@db/sales"


@pytest.mark.parametrize(("name", "engine"), [("warehouse", Postgresql), ("local", Sqlite), ("mart", Duckdb)])
def test_a_connection_has_the_database_of_its_engine(name: str, engine: type[object]) -> None:
    """It has the name, the settings and, unseen, the credentials of the connection."""
    known = WorkerConnections(load_connections(EXAMPLE), {"WAREHOUSE_URL": URL})
    found = database(known, name)
    assert (type(found), found.name) == (engine, name)
    assert "s3cr3t" not in repr(found)


def test_every_engine_of_the_settings_has_one() -> None:
    """The suites of reading and loading run for each of them."""
    infos: tuple[type[Any], ...] = typing.get_args(SqlInfo)
    made = [database_at(SqlConnection("x", info.model_construct(), URL)) for info in infos]
    assert len({type(each) for each in made}) == len(infos) == len(ENGINES)
    assert len({each.dialect.engine for each in made}) == len(infos)
    assert {PostgresqlInfo, SqliteInfo, DuckdbInfo} <= set(infos)


def test_an_unknown_engine_is_an_error() -> None:
    """Nothing is taken for SQLite because it is nothing else."""
    with pytest.raises(AssertionError, match="unreachable"):
        database_at(SqlConnection("x", typing.cast("Any", object())))


def test_a_file_that_is_not_a_database_is_final(tmp_path: Path) -> None:
    """Nothing is written into a file of another kind."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but more than one hundred bytes of text: " * 20)
    before = path.read_bytes()
    for engine in (sqlite_at(path), duckdb_at(path)):
        with (
            pytest.raises(TaskFailure) as caught,
            engine.database.transaction("first", scratch=tmp_path, memory_limit_bytes=2**26, threads=1),
        ):
            pass
        assert (caught.value.code, caught.value.retryable) == ("database_refused", False)
    assert path.read_bytes() == before
