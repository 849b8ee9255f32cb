"""Bring a table up to date with a table of another connection.

    state of the destination's `celeriac_syncs` -> stage what is new in the source as Parquet (sorted by watermark)
      -> for each part of some rows, one transaction of the destination:
           put it into a temporary table, drop the rows that are there already with the same values,
           update and insert the rest, write the new state -> commit
      -> `delete_missing`: one more transaction, with the keys of the source

Rows are compared in the destination, after its own conversions, so that a number that a database stores in another
way does not count as a difference. Memory holds some batches; staged files and temporary tables are on disks.
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
from worker.reach.connections import SqliteConnection
from worker.tables.duck.engine import locked_engine, parquet
from worker.tables.load import planned, transaction
from worker.tables.load_plan import bare_plan
from worker.tables.load_sqlite import affinity
from worker.tables.parquet.columns import need_columns, quoted
from worker.tables.parquet.staging import ParquetSink, batches_of, empty_columns, schema_of
from worker.tables.read_table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from shared.jobs.maintenance import SyncData
    from worker.maintenance.sync.sync_state import SyncState
    from worker.maintenance.sync.watermark import Watermark
    from worker.reach.connections import SqlConnection
    from worker.tables.load import Database
    from worker.tables.load_plan import ExistingColumn

_ROW_BYTES = 512  # a guess, for the size of row groups while sorting
_EMPTY_TYPES = {  # what a column without a value may be, so that it fits a column of the destination
    "bool": pa.bool_(), "int": pa.int16(), "float": pa.int16(), "decimal": pa.int16(), "binary": pa.binary(),
    "date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
}  # fmt: skip
_EMPTY_BY_AFFINITY = {"INTEGER": pa.int16(), "NUMERIC": pa.int16(), "REAL": pa.int16(), "BLOB": pa.binary()}


@dataclass
class Sync:
    """One attempt at `job`, whose `job_key` lets a later attempt go on with its counts.

    `on_progress` takes rows so far and in all; what it raises ends the attempt and undoes the transaction under way.
    """

    job: SyncData
    source: SqlConnection
    destination: SqlConnection
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
        """Synchronise. Raises `TaskFailure` for what cannot pass and `TransientFailure` for what can."""
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
        """Read the state, then the source: what is read is not older than what the state says."""
        with self._transaction() as database:
            self._state = read_state(database, self.job, job_key=self.job_key)
            existing = database.columns(bare_plan(self.destination.name, self._target()))
            database.commit()
        if existing is None:  # a table that was dropped is filled again
            self._state = self._state.from_the_beginning()
        mode, condition = self.job.mode, ""
        if isinstance(mode, ByWatermark) and self._state.watermark:
            condition = _since(mode, self._state.watermark, sqlite=isinstance(self.source, SqliteConnection))
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
            when_empty=_empty_types(existing or []),
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
                    remedy="Add the columns that tell these rows apart to the key.",
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
        plan = planned(self.destination, self._target(), part, load_id=self._state.sync_id)
        with self._transaction() as database:
            merged = merge(database, plan, lambda rows, _: self.on_progress(self._done + rows, self._read_count))
            state = self._state.advanced(watermark).with_counts(inserted=merged.inserted, updated=merged.updated)
            written = write_state(database, state)
            self.on_progress(self._done + plan.row_count, self._read_count)
            database.commit()
        self._state = written
        self._unchanged += merged.unchanged
        self._done += plan.row_count

    def _delete(self, staged: Path, most_ratio: float) -> None:
        keys, columns = self.scratch / "keys.parquet", list(self.job.key)
        schema = schema_of(staged)
        with ParquetSink(keys, pa.schema([schema.field(name) for name in columns])) as sink:
            for batch in batches_of(staged, columns):
                sink.write(batch.select(columns))
        plan = planned(self.destination, self._target(), keys, load_id=self._state.sync_id)
        with self._transaction() as database:
            if database.columns(plan) is None:
                return
            deleted = delete_others(
                database, plan, lambda *_: self.on_progress(self._done, None), most_ratio=most_ratio
            )
            written = write_state(database, self._state.with_counts(deleted=deleted))
            database.commit()
        self._state = written

    def _target(self) -> TableDestination:
        target = {"kind": "table", **self.job.destination.model_dump(), "mode": "upsert", "key": self.job.key}
        return TableDestination.model_validate(target)

    def _transaction(self) -> AbstractContextManager[Database]:
        return transaction(
            self.destination,
            f"sync {self.job.destination.table}",
            scratch=self.scratch,
            memory_limit_bytes=self.memory_limit_bytes,
            threads=self.threads,
        )


def _since(mode: ByWatermark, watermark: Watermark, *, sqlite: bool) -> str:
    """Return the condition for rows to look at: not below the watermark, less the overlap, or without one.

    Not only above it: rows with the same watermark may have been committed after the others were read.
    """
    column = quoted(mode.column)
    return f"({column} >= {watermark.before(mode).literal(sqlite=sqlite)} OR {column} IS NULL)"


def _empty_types(existing: list[ExistingColumn]) -> dict[str, pa.DataType]:
    types: dict[str, pa.DataType] = {}
    for column in existing:
        if column.shape.family == "other":  # SQLite: any value may be anywhere, and affinity decides
            types[column.name] = _EMPTY_BY_AFFINITY.get(affinity(column.declared), pa.string())
        else:
            types[column.name] = _EMPTY_TYPES.get(column.shape.family, pa.string())
    return types
