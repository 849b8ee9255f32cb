"""Synchronise a table with a table of another connection.

    state of the destination's `celeriac_syncs` -> stage what is new in the source as Parquet (sorted by watermark)
      -> for each part of some rows, one transaction of the destination:
           put it into a temporary table, drop the rows that exist already with the same values,
           update and insert the rest, write the new state -> commit
      -> `delete_missing`: one more transaction, with the keys of the source

Rows are compared in the destination, after its own conversions, so that another representation of the same number
is not a difference. Memory holds a few batches; staged files and temporary tables are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from shared.jobs.data.places import TableDestination
from shared.jobs.maintenance import ByComparison, ByWatermark, SyncResult
from worker.maintenance.sync.merge import delete_others, merge
from worker.maintenance.sync.parts import parts_of
from worker.maintenance.sync.sync_state import read_state, write_state
from worker.maintenance.sync.watermark import kind_of, watermark_in
from worker.tables.databases.plan import bare_plan, plan_table
from worker.tables.duck.engine import locked_engine, parquet
from worker.tables.parquet.columns import need_columns, quoted
from worker.tables.parquet.staging import ParquetSink, batches_of, empty_columns, schema_of
from worker.tables.read import read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from shared.jobs.maintenance import SyncData
    from worker.maintenance.sync.sync_state import SyncState
    from worker.maintenance.sync.watermark import Watermark
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.plan import TablePlan

_ROW_BYTES = 512  # an estimate, for the size of row groups while sorting


@dataclass
class Sync:
    """One attempt at `job`, whose `job_key` lets a later attempt continue its counts.

    `on_progress` takes the rows so far and in total; an exception from it ends the attempt and rolls back the open
    transaction.
    """

    job: SyncData
    source: Database
    destination: Database
    job_key: str
    scratch: Path
    memory_limit_bytes: int
    threads: int
    on_progress: Callable[[int, int | None], None]
    _state: SyncState = field(init=False)
    _read_count: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _unchanged: int = field(default=0, init=False)

    def run(self) -> SyncResult:
        """Synchronise. Raises `TransientFailure` for transient failures and `TaskFailure` for permanent ones."""
        mode = self.job.mode
        staged = self._staged()
        by = mode.column if isinstance(mode, ByWatermark) else None
        kind = kind_of(by, schema_of(staged).field(by).type) if by and by not in empty_columns(staged) else None
        for part, last in parts_of(staged, self.scratch, self.job.batch_rows, by):
            self._merge(part, watermark_in(kind, last) if kind and last is not None else None)
        if isinstance(mode, ByComparison) and mode.delete_missing:
            self._delete(staged, mode.most_deleted_ratio)
        state = self._state
        return SyncResult(
            source=f"{self.source.name}:{self.job.source.table}",
            destination=f"{self.destination.name}:{self.job.destination.table}",
            read_count=self._read_count,
            inserted_count=state.inserted_count,
            updated_count=state.updated_count,
            deleted_count=state.deleted_count,
            unchanged_count=self._unchanged,
            watermark_from=state.began_at or None if by else None,
            watermark_to=state.watermark.text() if by and state.watermark else None,
        )

    def _staged(self) -> Path:
        """Read the state first and then the source, so that the rows are not older than the state."""
        dialect = self.destination.dialect
        with self._transaction() as transaction:
            self._state = read_state(transaction, self.job, job_key=self.job_key)
            there = transaction.columns(bare_plan(self.destination.name, self._target(), dialect))
            transaction.commit()
        if there is None:  # a table that was dropped is filled again
            self._state = self._state.from_the_beginning()
        mode, condition = self.job.mode, ""
        if isinstance(mode, ByWatermark) and self._state.watermark:
            condition = _since(mode, self._state.watermark, self.source.dialect)
        found = self.scratch / "found.parquet"
        self._read_count = read_table(
            self.source,
            self.job.source.table,
            found,
            scratch=self.scratch,
            memory_limit_bytes=self.memory_limit_bytes,
            on_rows=lambda _: self.on_progress(0, None),
            condition=condition,
            temporal=[mode.column] if isinstance(mode, ByWatermark) else [],
            when_empty={column.name: dialect.when_empty(column) for column in there or []},
        )
        self.on_progress(0, self._read_count)
        return self._sorted(found)

    def _sorted(self, found: Path) -> Path:
        """Return the staged rows in the order of the watermark, if there is one. Refuses keys that are not unique."""
        mode, columns = self.job.mode, {field.name: str(field.type) for field in schema_of(found)}
        need_columns(self.job.key, columns, "key")
        target = self.scratch / "sorted.parquet"
        with locked_engine(
            readable={found: "the source"},
            writable=[target],
            scratch=self.scratch,
            memory_limit_bytes=self.memory_limit_bytes,
            threads=self.threads,
            row_bytes=_ROW_BYTES,
            on_fraction=lambda _: self.on_progress(0, self._read_count),
        ) as engine:
            key = ", ".join(map(quoted, self.job.key))
            repeated = f"SELECT {key}, count(*) FROM ({parquet([found])}) GROUP BY {key} HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - quoted names
            for *values, count in engine.rows(repeated):
                example = ", ".join(f"{name} = {value}" for name, value in zip(self.job.key, values, strict=True))
                raise TaskFailure(
                    "key_not_unique",
                    f"The key {self.job.key} is not unique in the source: {example} occurs {count} times.",
                    remedy="Add columns to the key that make it unique.",
                )
            if not isinstance(mode, ByWatermark):
                return found
            need_columns([mode.column], columns, "mode.column")
            if mode.column in empty_columns(found):
                return found
            kind, column = kind_of(mode.column, schema_of(found).field(mode.column).type), quoted(mode.column)
            finite = column if kind in {"integer", "decimal"} else f"CASE WHEN isfinite({column}) THEN {column} END"
            engine.write(f"{parquet([found])} ORDER BY {finite} NULLS FIRST", {}, target)
        found.unlink()
        return target

    def _merge(self, part: Path, watermark: Watermark | None) -> None:
        plan = self._planned(part)
        with self._transaction() as transaction:
            merged = merge(transaction, plan, lambda rows, _: self.on_progress(self._done + rows, self._read_count))
            state = self._state.advanced(watermark).with_counts(inserted=merged.inserted, updated=merged.updated)
            written = write_state(transaction, state)
            self.on_progress(self._done + plan.row_count, self._read_count)
            transaction.commit()
        self._state = written
        self._unchanged += merged.unchanged
        self._done += plan.row_count

    def _delete(self, staged: Path, most_ratio: float) -> None:
        keys, columns = self.scratch / "keys.parquet", list(self.job.key)
        schema = schema_of(staged)
        with ParquetSink(keys, pa.schema([schema.field(name) for name in columns])) as sink:
            for batch in batches_of(staged, columns):
                sink.write(batch.select(columns))
        plan = self._planned(keys)
        with self._transaction() as transaction:
            if transaction.columns(plan) is None:
                return
            deleted = delete_others(
                transaction, plan, lambda *_: self.on_progress(self._done, None), most_ratio=most_ratio
            )
            written = write_state(transaction, self._state.with_counts(deleted=deleted))
            transaction.commit()
        self._state = written

    def _planned(self, dataset: Path) -> TablePlan:
        destination = self.destination
        return plan_table(
            destination.name, self._target(), dataset, load_id=self._state.sync_id, dialect=destination.dialect
        )

    def _target(self) -> TableDestination:
        target = {"kind": "table", **self.job.destination.model_dump(), "mode": "upsert", "key": self.job.key}
        return TableDestination.model_validate(target)

    def _transaction(self) -> AbstractContextManager[Transaction]:
        return self.destination.transaction(
            f"sync {self.job.destination.table}",
            scratch=self.scratch,
            memory_limit_bytes=self.memory_limit_bytes,
            threads=self.threads,
        )


def _since(mode: ByWatermark, watermark: Watermark, dialect: Dialect) -> str:
    """Return the condition for the rows to read: at or above the watermark minus the overlap, or without a value.

    Rows equal to the watermark are included, because some may have been committed after the others were read.
    """
    lowest = dialect.at_least(mode.column, watermark.before(mode).value)
    return f"({lowest} OR {dialect.quoted(mode.column)} IS NULL)"
