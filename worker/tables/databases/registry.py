"""Find the engine of a connection. A new engine is a package beside this module, and a case here."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from shared.connections.settings import DuckdbInfo, PostgresqlInfo, SqliteInfo
from worker.tables.databases.duckdb.database import Duckdb
from worker.tables.databases.postgresql.database import Postgresql
from worker.tables.databases.sqlite.database import Sqlite

if TYPE_CHECKING:
    from worker.reach.connections import SqlConnection, WorkerConnections
    from worker.tables.databases.base import Database


def database(known: WorkerConnections, name: str) -> Database:
    """Return the database of the connection `name`. Raises `TaskFailure` if it is unknown or not set up."""
    return database_at(known.sql(name))


def database_at(connection: SqlConnection) -> Database:
    """Return the database of a connection. mypy reports an engine without a case."""
    match connection.info:
        case PostgresqlInfo() as info:
            return Postgresql(connection.name, info, connection.url)
        case SqliteInfo() as info:
            return Sqlite(connection.name, info)
        case DuckdbInfo() as info:
            return Duckdb(connection.name, info)
        case unknown:
            assert_never(unknown)
