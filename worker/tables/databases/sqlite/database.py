"""A SQLite file: opening it for reading and for loading."""

from __future__ import annotations

import sqlite3
import time
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.tables.databases.alone import alone_beside
from worker.tables.databases.base import Database
from worker.tables.databases.sqlite.dialect import SqliteDialect
from worker.tables.databases.sqlite.failures import loading_failures, reading_failures
from worker.tables.databases.sqlite.querying import stage_rows
from worker.tables.databases.sqlite.transaction import SqliteTransaction
from worker.tables.databases.statements import LEDGER, LEDGER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from shared.connections.settings import SqliteInfo
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_CHECK_EVERY = 100_000  # instructions of the virtual machine of SQLite
_LONGEST_QUERY_S = 1_800.0


@dataclass(frozen=True)
class Sqlite(Database):
    """A SQLite file."""

    name: str
    info: SqliteInfo
    dialect = SqliteDialect()

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self.info.path.resolve())

    def alone(self, work: str) -> AbstractContextManager[None]:
        """Hold a lock on a file beside the database."""
        return alone_beside(self.info.path, self.name, work)

    def stage_query(
        self,
        query: str,
        staged: Path,
        *,
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some rows stay far below it
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",  # noqa: ARG002 - SQLite has no dates that are beyond
    ) -> dict[str, Candidate]:
        """Stage the rows of a query with the types of their values, because a column can have values of any type."""
        with self._reading() as session:
            session.set_authorizer(_only_reading)
            return stage_rows(session, query, staged, on_rows)

    def stage_table(
        self,
        table: str,
        condition: str,
        staged: Path,
        *,
        temporal: Collection[str],
        memory_limit_bytes: int,
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",  # noqa: ARG002 - SQLite has no dates that are beyond
        columns: Collection[str] = (),
    ) -> dict[str, Candidate]:
        """Stage the rows of a table with its declared types if all values fit them."""
        with self.looking(memory_limit_bytes=memory_limit_bytes) as transaction:
            return transaction.stage_table(
                table,
                condition,
                staged,
                temporal=temporal,
                memory_limit_bytes=memory_limit_bytes,
                on_rows=on_rows,
                columns=columns,
            )

    @contextmanager
    def looking(self, *, memory_limit_bytes: int) -> Iterator[SqliteTransaction]:  # noqa: ARG002 - batches of some rows
        """Yield a transaction that can only read."""
        with self._reading() as session:
            session.execute("BEGIN")  # all queries see the same rows
            yield SqliteTransaction(session)

    @contextmanager
    def transaction(
        self,
        load_id: str,  # noqa: ARG002 - SQLite allows one writer
        *,
        scratch: Path | None,  # noqa: ARG002 - SQLite chooses its temporary files
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some MiB stay far below it
        threads: int,  # noqa: ARG002 - SQLite is single-threaded
    ) -> Iterator[SqliteTransaction]:
        """Yield a write transaction that is rolled back unless committed.

        A new file is set to WAL mode, so that it can be read during a load; an existing file keeps its mode.
        """
        path = self.info.path
        with loading_failures(self.name):
            is_new = not path.exists()
            with closing(sqlite3.connect(path, timeout=self.info.lock_timeout_s, isolation_level=None)) as session:
                if is_new:
                    session.execute("PRAGMA journal_mode = WAL")
                session.execute("BEGIN IMMEDIATE")
                transaction = SqliteTransaction(session)
                transaction.ensure(LEDGER, LEDGER_COLUMNS)
                yield transaction

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a read-only session whose queries have a time limit."""
        deadline = time.monotonic() + _LONGEST_QUERY_S
        uri = f"{self.info.path.resolve().as_uri()}?mode=ro"
        with (
            reading_failures(self.name),
            closing(sqlite3.connect(uri, uri=True, timeout=self.info.lock_timeout_s)) as session,
        ):
            session.execute("PRAGMA query_only = true")
            session.set_progress_handler(lambda: int(time.monotonic() > deadline), _CHECK_EVERY)
            yield session


def _only_reading(action: int, *_: object) -> int:
    """Allow only reading; an authorizer of SQLite."""
    allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
