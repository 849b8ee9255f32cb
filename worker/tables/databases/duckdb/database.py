"""A DuckDB file, opened for reading or for loading. Only one process at a time can write to it.

A load waits for a process that has it open, at most for the connection's `lock_timeout_s`.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from worker.tables.databases.alone import alone_beside
from worker.tables.databases.base import Database
from worker.tables.databases.duckdb.dialect import DuckdbDialect
from worker.tables.databases.duckdb.failures import is_locked, loading_failures, reading_failures
from worker.tables.databases.duckdb.transaction import DuckdbTransaction, stage_rows
from worker.tables.databases.statements import LEDGER, LEDGER_COLUMNS
from worker.tables.duck.session import connect, disk_failures, lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.connections.settings import DuckdbInfo
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_POLL_INTERVAL_S = 0.1


@dataclass(frozen=True)
class Duckdb(Database):
    """A DuckDB file."""

    name: str
    info: DuckdbInfo
    dialect = DuckdbDialect()

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
        memory_limit_bytes: int,
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
    ) -> dict[str, Candidate]:
        """Stage the rows of a query with their types. The query can access nothing but this file."""
        with (
            reading_failures(self.name),
            connect(str(self.info.path), read_only=True, memory_limit_bytes=memory_limit_bytes, threads=1) as session,
        ):
            lock(session)
            stage_rows(session, query, staged, on_rows, out_of_range=out_of_range)
            return {}

    @contextmanager
    def looking(self, *, memory_limit_bytes: int) -> Iterator[DuckdbTransaction]:
        """Yield a transaction that can only read; no other process can write meanwhile."""
        with (
            reading_failures(self.name),
            connect(str(self.info.path), read_only=True, memory_limit_bytes=memory_limit_bytes, threads=1) as session,
        ):
            session.execute("BEGIN")  # all queries see the same rows
            yield DuckdbTransaction(session)

    @contextmanager
    def transaction(
        self,
        load_id: str,  # noqa: ARG002 - every other load waits
        *,
        scratch: Path | None,
        memory_limit_bytes: int,
        threads: int,
    ) -> Iterator[DuckdbTransaction]:
        """Yield a transaction that is rolled back unless committed. It spills into `scratch` beyond the memory."""
        with (
            tempfile.TemporaryDirectory(dir=scratch, prefix="duckdb-") as spill,
            loading_failures(self.name),
            closing(self._opened(Path(spill), memory_limit_bytes, threads)) as link,
        ):
            link.execute("BEGIN")
            transaction = DuckdbTransaction(link)
            transaction.ensure(LEDGER, LEDGER_COLUMNS)
            with disk_failures(link, but=self.info.path):
                yield transaction

    def _opened(self, spill: Path, memory_limit_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
        """Open the file; wait while another process has it open."""
        deadline = time.monotonic() + self.info.lock_timeout_s
        while True:
            try:
                return connect(
                    str(self.info.path),
                    memory_limit_bytes=memory_limit_bytes,
                    threads=threads,
                    spill=spill,
                    keeps_order=False,
                )
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                if not is_locked(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_INTERVAL_S)
