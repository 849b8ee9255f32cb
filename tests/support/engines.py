"""The three database engines, each with a connection of ours and an independent way to look into the database."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.jobs.data.places import TableDestination
from worker.reach.connections import DuckdbConnection, PostgresqlConnection, SqlConnection, SqliteConnection
from worker.tables.load import Loaded, load_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_FRESH = multiprocessing.get_context("forkserver")  # forks from a process that has imported and done nothing else
_FRESH.set_forkserver_preload(["tests.support.engines"])
ENGINES = ("postgresql", "sqlite", "duckdb")


def ignore_progress(done: int, total: int | None) -> None:
    """Take progress and do nothing with it."""


@dataclass(frozen=True)
class Engine:
    """One database, empty at first."""

    kind: str
    connection: SqlConnection
    folder: Path

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements in one transaction through the engine's own client; return the rows of the last."""
        if isinstance(self.connection, PostgresqlConnection):
            with psycopg.connect(self.connection.url) as postgresql:
                for statement in statements:
                    cursor = postgresql.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        if isinstance(self.connection, DuckdbConnection):
            with duckdb.connect(str(self.connection.path)) as file:
                for statement in statements:
                    file.execute(statement)
                return file.fetchall()
        with closing(sqlite3.connect(self.connection.path)) as sqlite, sqlite:
            for statement in statements:
                rows = sqlite.execute(statement).fetchall()
            return rows

    def load(
        self,
        table: pa.Table | Path,
        *,
        into: str = "sales",
        mode: str = "append",
        key: list[str] | None = None,
        load_id: str = "first",
        on_progress: Callable[[int, int | None], None] = ignore_progress,
        memory_limit_bytes: int = 512 * 1024**2,
    ) -> Loaded:
        """Load a Parquet file, or a table in memory by way of one."""
        if isinstance(table, pa.Table):
            dataset = self.folder / f"{secrets.token_hex(4)}.parquet"
            pq.write_table(table, dataset)
        else:
            dataset = table
        destination = TableDestination.model_validate(
            {"kind": "table", "connection": "warehouse", "table": into, "mode": mode, "key": key or []}
        )
        return load_table(
            self.connection,
            destination,
            dataset,
            load_id=load_id,
            on_progress=on_progress,
            memory_limit_bytes=memory_limit_bytes,
        )


def make_engine(kind: str, folder: Path, request: pytest.FixtureRequest) -> Engine:
    """Return an empty database; a PostgreSQL one comes from the session's server."""
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
        return Engine(kind, PostgresqlConnection("warehouse", url, lock_timeout_s=10), folder)
    if kind == "sqlite":
        return Engine(kind, SqliteConnection("warehouse", folder / "warehouse.db", lock_timeout_s=10), folder)
    return Engine(kind, DuckdbConnection("warehouse", folder / "warehouse.duckdb", lock_timeout_s=10), folder)


def exit_code_of_load(
    engine: Engine, table: pa.Table, *, kill_at: int | None, timeout_s: float = 60, **options: Any
) -> int | None:
    """Load in a process of its own that kills itself at that many rows, or right after the commit (None)."""
    child = _FRESH.Process(target=_load_and_die, args=(engine, table, kill_at, options))
    child.start()
    child.join(timeout_s)
    if child.is_alive():
        child.kill()
        pytest.fail(f"the load did not end within {timeout_s} s")
    return child.exitcode


def _load_and_die(engine: Engine, table: pa.Table, kill_at: int | None, options: dict[str, Any]) -> None:
    def die_at(done: int, _total: int | None) -> None:
        if kill_at is not None and done >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine.load(table, on_progress=die_at, **options)
    os.kill(os.getpid(), signal.SIGKILL)


def memory_growth_of_load(engine: Engine, dataset: Path, **options: Any) -> int:
    """Load in a process of its own and return by how many bytes its memory grew at most."""
    receiving, sending = _FRESH.Pipe(duplex=False)
    child = _FRESH.Process(target=_load_and_measure, args=(engine, dataset, options, sending))
    child.start()
    try:
        if not receiving.poll(120):
            pytest.fail("the load did not end within 120 s")
        growth: int = receiving.recv()
        return growth
    finally:
        child.kill()
        child.join()


def _load_and_measure(engine: Engine, dataset: Path, options: dict[str, Any], sending: Connection) -> None:
    before = _memory_bytes("VmRSS")
    engine.load(dataset, **options)
    sending.send(_memory_bytes("VmHWM") - before)


def _memory_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))
