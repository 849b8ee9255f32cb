"""The database engines, each with a connection of ours and an independent way to look into the database."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.connections.settings import KINDS_OF, DuckdbInfo, PostgresqlInfo, SqliteInfo
from shared.jobs.data.places import SqlSource, TableDestination
from worker.tables.databases.duckdb.database import Duckdb
from worker.tables.databases.postgresql.database import Postgresql
from worker.tables.databases.sqlite.database import Sqlite
from worker.tables.load import Loaded, load_table
from worker.tables.read import read_table, stage_sql

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from worker.tables.databases.base import Database
    from worker.tables.inference import Candidate

_FRESH = multiprocessing.get_context("forkserver")  # forks from a process that has imported and done nothing else
_FRESH.set_forkserver_preload(["tests.support.engines"])
ENGINES = sorted(KINDS_OF["sql"])  # those of the registry: a new one is tested by the suites as it comes


def ignore_progress(done: int, total: int | None) -> None:
    """Take progress and do nothing with it."""


@dataclass(frozen=True)
class Engine:
    """One database, empty at first. A new engine is a function in `_STARTED` below, and a client for `run`."""

    kind: str
    database: Database
    folder: Path
    typed: bool = True
    """Whether its columns hold values of their type only; else times and decimals are texts there."""
    schemas: bool = True
    """Whether it has schemas that one can make."""

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements in one transaction through the engine's own client; return the rows of the last."""
        match self.database:
            case Postgresql(url=url):
                with psycopg.connect(url) as postgresql:
                    for statement in statements:
                        cursor = postgresql.execute(statement.encode())
                    return cursor.fetchall() if cursor.description else []
            case Duckdb(info=info):
                with duckdb.connect(str(info.path)) as file:
                    for statement in statements:
                        file.execute(statement)
                    return file.fetchall()
            case Sqlite(info=info):
                with closing(sqlite3.connect(info.path)) as session, session:
                    for statement in statements:
                        rows = session.execute(statement).fetchall()
                    return rows
        raise NotImplementedError(f"a client for {self.kind}")

    def stage(self, **what: str) -> tuple[list[dict[str, Any]], dict[str, Candidate]]:
        """Stage a `table` or a `query`; return the staged rows and what their columns may become."""
        staged = self.folder / f"{secrets.token_hex(4)}.parquet"
        source = SqlSource.model_validate({"kind": "sql", "connection": "warehouse", **what})
        candidates = stage_sql(self.database, source, staged, memory_limit_bytes=64 * 1024**2, on_rows=lambda _: None)
        return pq.read_table(staged).to_pylist(), candidates

    def read(self, table: str = "sales", **options: Any) -> pa.Table:
        """Read a table as copies and backups do."""
        output = self.folder / f"{secrets.token_hex(4)}.parquet"
        read_table(
            self.database, table, output, scratch=self.folder, memory_limit_bytes=64 * 1024**2,
            on_rows=lambda _: None, **options,
        )  # fmt: skip
        return pq.read_table(output)

    def load(
        self,
        table: pa.Table | Path,
        *,
        into: str = "sales",
        mode: str = "append",
        key: list[str] | None = None,
        new_columns: str = "refuse",
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
            {
                "kind": "table",
                "connection": "warehouse",
                "table": into,
                "mode": mode,
                "key": key or [],
                "new_columns": new_columns,
            }
        )
        return load_table(
            self.database,
            destination,
            dataset,
            load_id=load_id,
            on_progress=on_progress,
            memory_limit_bytes=memory_limit_bytes,
        )


def postgresql_at(url: str, folder: Path, **bounds: float) -> Engine:
    """Return the PostgreSQL database at `url`; `bounds` are timeouts of its connection."""
    info = PostgresqlInfo.model_validate({"kind": "postgresql", "url_env": "WAREHOUSE_URL", **bounds})
    return Engine("postgresql", Postgresql("warehouse", info, url), folder)


def sqlite_at(path: Path, **bounds: float) -> Engine:
    """Return the SQLite file `path`."""
    info = SqliteInfo.model_validate({"kind": "sqlite", "path": path, **bounds})
    return Engine("sqlite", Sqlite("warehouse", info), path.parent, typed=False, schemas=False)


def duckdb_at(path: Path, **bounds: float) -> Engine:
    """Return the DuckDB file `path`."""
    info = DuckdbInfo.model_validate({"kind": "duckdb", "path": path, **bounds})
    return Engine("duckdb", Duckdb("warehouse", info), path.parent)


_STARTED: dict[str, Callable[[Path, pytest.FixtureRequest], Engine]] = {
    "postgresql": lambda folder, request: postgresql_at(
        request.getfixturevalue("postgres_url"), folder, lock_timeout_s=10
    ),
    "sqlite": lambda folder, _: sqlite_at(folder / "warehouse.db", lock_timeout_s=10),
    "duckdb": lambda folder, _: duckdb_at(folder / "warehouse.duckdb", lock_timeout_s=10),
}


def make_engine(kind: str, folder: Path, request: pytest.FixtureRequest) -> Engine:
    """Return an empty database; one on a server comes from the session's server."""
    return _STARTED[kind](folder, request)


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
    (growth,) = memory_growth_of(partial(engine.load, dataset, **options))
    return growth


def memory_growth_of(*calls: Callable[[], object]) -> list[int]:
    """Make calls in one process of its own; return by how many bytes its memory had grown at most after each."""
    receiving, sending = _FRESH.Pipe(duplex=False)
    child = _FRESH.Process(target=_call_and_measure, args=(calls, sending))
    child.start()
    sending.close()  # else a child that fails would be waited for
    try:
        if not receiving.poll(120):
            pytest.fail("the calls did not end within 120 s")
        try:
            growths: list[int] = receiving.recv()
        except EOFError:
            pytest.fail("the calls failed in their process; see its output")
        return growths
    finally:
        child.kill()
        child.join()


def _call_and_measure(calls: tuple[Callable[[], object], ...], sending: Connection) -> None:
    before, growths = _memory_bytes("VmRSS"), []
    for call in calls:
        call()
        growths.append(_memory_bytes("VmHWM") - before)
    sending.send(growths)


def _memory_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{name}:"))
