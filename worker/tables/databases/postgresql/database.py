"""A PostgreSQL database: connecting, reading, and transactions for loading."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from adbc_driver_postgresql import dbapi as postgresql

from worker.tables.databases.alone import work_in_progress
from worker.tables.databases.base import Database
from worker.tables.databases.postgresql.dialect import PostgresqlDialect
from worker.tables.databases.postgresql.failures import loading_failures, reading_failures
from worker.tables.databases.postgresql.reading import stage_rows
from worker.tables.databases.postgresql.transaction import PostgresqlTransaction
from worker.tables.databases.statements import LEDGER, LEDGER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from adbc_driver_manager import dbapi as adbc

    from shared.connections.settings import PostgresqlInfo
    from worker.tables.inference import Candidate
    from worker.tables.parquet.calendar import OutOfRange

_PORT = 5432


@dataclass(frozen=True, slots=True)
class Postgresql(Database):
    """A PostgreSQL database with its credentials."""

    name: str
    info: PostgresqlInfo
    url: str = field(repr=False)
    dialect = PostgresqlDialect()

    @property
    def place(self) -> str:
        """Host, port and name of the database."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or _PORT}{parts.path}"

    @contextmanager
    def alone(self, work: str) -> Iterator[None]:
        """Hold an advisory lock in a transaction of its own, which works with poolers of connections, too."""
        with closing(self._connected()) as link, closing(link.cursor()) as cursor:
            with loading_failures(self.name, self.url):
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", (f"celeriac {work}",))
                is_alone = cursor.fetchall() == [(True,)]
            if not is_alone:
                raise work_in_progress(self.name, work)
            yield

    def stage_query(
        self,
        query: str,
        staged: Path,
        *,
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some MiB stay far below it
        on_rows: Callable[[int], None],
        out_of_range: OutOfRange = "fail",
    ) -> dict[str, Candidate]:
        """Stage the rows of a query in batches. Numerics are staged as text to keep all digits."""
        with self._reading() as (_, cursor):
            return stage_rows(cursor, query, staged, out_of_range=out_of_range, on_rows=on_rows)

    @contextmanager
    def looking(self, *, memory_limit_bytes: int) -> Iterator[PostgresqlTransaction]:  # noqa: ARG002 - batches of some MiB
        """Yield a transaction that can only read; a table of which the account sees only some rows is refused."""
        with self._reading("ISOLATION LEVEL REPEATABLE READ, READ ONLY") as (link, cursor):
            cursor.execute("SET LOCAL row_security = off")
            yield PostgresqlTransaction(link, cursor)

    @contextmanager
    def _reading(self, mode: str = "READ ONLY") -> Iterator[tuple[adbc.Connection, adbc.Cursor]]:
        """Yield a session in a transaction that can only read, with bounded statements and waits."""
        with reading_failures(self.name, self.url), closing(self._connected()) as link, link.cursor() as cursor:
            cursor.execute(f"SET TRANSACTION {mode}")
            cursor.execute(f"SET LOCAL statement_timeout = {int(self.info.statement_timeout_s * 1_000)}")
            cursor.execute(f"SET LOCAL lock_timeout = {int(self.info.lock_timeout_s * 1_000)}")
            yield link, cursor

    @contextmanager
    def transaction(
        self,
        load_id: str,
        *,
        scratch: Path | None,  # noqa: ARG002 - large intermediate data is on the server
        memory_limit_bytes: int,  # noqa: ARG002 - batches of some MiB stay far below it
        threads: int,  # noqa: ARG002 - a session is single-threaded
    ) -> Iterator[PostgresqlTransaction]:
        """Yield a transaction that holds the lock of `load_id` and is rolled back unless committed."""
        with (
            loading_failures(self.name, self.url),
            closing(self._connected()) as link,
            closing(link.cursor()) as cursor,
        ):
            transaction = PostgresqlTransaction(link, cursor)
            try:
                transaction.begin(self.info)
                if not transaction.has(LEDGER):
                    transaction.ensure(LEDGER, LEDGER_COLUMNS)
                    transaction.commit()
                    transaction.begin(self.info)
                transaction.lock(f"load {load_id}")
                yield transaction
            finally:
                link.rollback()

    def _connected(self) -> adbc.Connection:
        """Connect, with timeouts for connecting and for an unresponsive network unless the URL sets them."""
        parts = urlsplit(self.url)
        defaults = {
            "connect_timeout": str(max(1, round(self.info.connect_timeout_s))),
            "tcp_user_timeout": "60000",
            "keepalives_idle": "30",
            "application_name": "celeriac",
        }
        query = {**defaults, **dict(parse_qsl(parts.query, keep_blank_values=True))}
        bounded = urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
        link: adbc.Connection = postgresql.connect(bounded)
        return link
