"""Two databases, and the synchronisation of a table of one with a table of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.jobs.syncs import SyncData, SyncResult
from shared.ledger.ids import uuid7
from tests.support.engines import Engine, ignore_progress
from worker.maintenance.sync.sync import Sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIRS = [("sqlite", "postgresql"), ("postgresql", "duckdb"), ("duckdb", "sqlite")]
BY_TIME = {"kind": "watermark", "column": "updated_at"}
CREATE = (
    "CREATE TABLE orders (id BIGINT, customer TEXT, price DECIMAL(12, 2), day DATE, updated_at TIMESTAMP, paid BOOLEAN)"
)


@dataclass
class Pair:
    """Two empty databases, and the synchronisation of the table `orders`."""

    source: Engine
    destination: Engine
    folder: Path

    def sync(
        self,
        mode: dict[str, Any] = BY_TIME,
        *,
        key: tuple[str, ...] = ("id",),
        batch_rows: int = 1_000,
        job_key: str | None = None,
        on_progress: Callable[[int, int | None], None] = ignore_progress,
        query: str | None = None,
        dates_out_of_range: str = "fail",
        **options: Any,
    ) -> SyncResult:
        """Synchronise once: the table `orders`, or the rows of a query."""
        table = {"connection": "shop", "table": "orders"}
        job = SyncData.model_validate(
            {
                "source": {
                    **({"connection": "shop", "query": query} if query else table),
                    "dates_out_of_range": dates_out_of_range,
                },
                "destination": {**table, "connection": "warehouse"},
                "key": list(key),
                "mode": mode,
                "batch_rows": batch_rows,
                **options,
            }
        )
        scratch = self.folder / uuid7()
        scratch.mkdir()
        return Sync(
            job,
            self.source.database,
            self.destination.database,
            job_key=job_key or uuid7(),
            scratch=scratch,
            memory_limit_bytes=64 * 1024**2,
            threads=1,
            on_progress=on_progress,
        ).run()

    def rows(self, columns: str = "id, customer") -> list[tuple[Any, ...]]:
        """Return rows of the destination, by default id and customer."""
        return self.destination.run(f"SELECT {columns} FROM orders ORDER BY id")  # noqa: S608 - the test's own names


def fill(pair: Pair, *rows: tuple[int, str, str]) -> None:
    """Add rows to the source: id, customer, time."""
    values = ", ".join(
        f"({number}, '{customer}', {number}.50, '2026-01-01', '{at}', {'true' if number % 2 else 'false'})"
        for number, customer, at in rows
    )
    pair.source.run(f"INSERT INTO orders VALUES {values}")  # noqa: S608 - the test's own values


def counts(result: SyncResult) -> tuple[int, int, int, int]:
    """Return rows inserted, updated, deleted, unchanged."""
    return result.inserted_count, result.updated_count, result.deleted_count, result.unchanged_count
