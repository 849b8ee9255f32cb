"""Synchronise a table with a table, or a query, of another connection.

    alone with these two -> state of the destination's `celeriac_syncs`
      -> stage what is new in the source as Parquet (sorted by watermark)
      -> delete the rows whose key is marked in the source: one transaction
      -> for each part of some rows, one transaction of the destination:
           put it into a temporary table, drop the rows that exist already with the same values,
           update and insert the rest, write the new state -> commit
      -> `delete_missing`, `mark_missing`: one more transaction, with the keys of the source

Rows are compared in the destination, after its own conversions, so that another representation of the same number
is not a difference. Memory holds a few batches; staged files and temporary tables are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from shared.errors import TaskFailure
from shared.jobs.data.places import TableDestination
from shared.jobs.syncs import ByComparison, ByWatermark, SyncResult
from worker.maintenance.sync.copied import copied_of
from worker.maintenance.sync.merge import delete_marked, delete_others, has_rows, merge
from worker.maintenance.sync.parts import parts_of
from worker.maintenance.sync.sync_state import origin_of, read_state, write_state
from worker.maintenance.sync.watermark import kind_of, watermark_in
from worker.tables.databases.plan import bare_plan, plan_table
from worker.tables.duck.engine import locked_engine, parquet
from worker.tables.parquet.columns import need_columns, quoted
from worker.tables.parquet.staging import ParquetSink, batches_of, empty_columns, schema_of
from worker.tables.read import read_query, read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from shared.jobs.syncs import SyncData
    from worker.maintenance.sync.copied import Copied
    from worker.maintenance.sync.sync_state import SyncState
    from worker.maintenance.sync.watermark import Watermark
    from worker.tables.databases.base import Database, Transaction
    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.plan import TablePlan
    from worker.tables.databases.types import ExistingColumn

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
    _copied: Copied = field(init=False)
    _added: list[str] = field(default_factory=list, init=False)
    _read_count: int = field(default=0, init=False)
    _done: int = field(default=0, init=False)
    _unchanged: int = field(default=0, init=False)

    def run(self) -> SyncResult:
        """Synchronise. Raises `TransientFailure` for transient failures and `TaskFailure` for permanent ones."""
        job, dialect = self.job, self.source.dialect
        origin = dialect.named(job.source.table) if job.source.table else f"query {job.source.query}"
        target = self.destination.dialect.named(job.destination.table)
        with self.destination.alone(f"sync {self.source.place} {origin} to {target}"):
            return self._run()

    def _run(self) -> SyncResult:
        mode = self.job.mode
        staged = self._staged()
        by = mode.column if isinstance(mode, ByWatermark) else None
        kind = kind_of(by, schema_of(staged).field(by).type) if by and by not in empty_columns(staged) else None
        if self.job.deleted_by is not None:
            self._delete_marked(staged)
        for part, last in parts_of(staged, self.scratch, self.job.batch_rows, by, self._copied):
            self._merge(part, watermark_in(kind, last) if kind and last is not None else None)
        if isinstance(mode, ByComparison) and (mode.delete_missing or mode.mark_missing):
            self._delete_others(staged, mode)
        state = self._state
        return SyncResult(
            source=origin_of(self.job),
            destination=f"{self.destination.name}:{self.job.destination.table}",
            read_count=self._read_count,
            inserted_count=state.inserted_count,
            updated_count=state.updated_count,
            deleted_count=state.deleted_count,
            unchanged_count=self._unchanged,
            watermark_from=state.began_at or None if by else None,
            watermark_to=state.watermark.text() if by and state.watermark else None,
            added_columns=self._added,
            ignored_columns=list(self._copied.ignored),
        )

    def _staged(self) -> Path:
        """Read the state first and then the source, so that the rows are not older than the state."""
        dialect, mode = self.destination.dialect, self.job.mode
        with self._transaction() as transaction:
            self._state = read_state(transaction, self.job, job_key=self.job_key)
            plan = bare_plan(self.destination.name, self._target(), dialect)
            there = transaction.columns(plan)
            is_empty = there is not None and not has_rows(transaction, plan)
            transaction.commit()
        if there is None:  # a table that was dropped is filled again
            self._state = self._state.from_the_beginning()
        elif is_empty and isinstance(mode, ByWatermark) and self._state.watermark:
            if mode.when_emptied == "fail":
                raise _emptied(plan.destination, self._state.watermark)
            self._state = self._state.from_the_beginning()
        found = self._read(there)
        self._copied, self._added = copied_of(self.job, schema_of(found), there, dialect)
        if self._added and self._state.watermark:  # the rows below the watermark have values in the new columns, too
            self._state = self._state.from_the_beginning()
            found = self._read(there)
        self._refuse_mark()
        self.on_progress(0, self._read_count)
        return self._sorted(found)

    def _read(self, there: list[ExistingColumn] | None) -> Path:
        """Write the rows of the source that are to be looked at to a file."""
        job, dialect = self.job, self.destination.dialect
        needed = [job.mode.column] if isinstance(job.mode, ByWatermark) else []
        needed += [job.deleted_by] if job.deleted_by is not None else []
        condition = ""
        if isinstance(job.mode, ByWatermark) and self._state.watermark:
            condition = _since(job.mode, self._state.watermark, self.source.dialect)
        sources = {target: name for name, target in (job.columns or {}).items()}
        read, what = (read_query, job.source.query) if job.source.query else (read_table, job.source.table)
        found = self.scratch / "found.parquet"
        found.unlink(missing_ok=True)
        self._read_count = read(
            self.source,
            what or "",
            found,
            scratch=self.scratch,
            memory_limit_bytes=self.memory_limit_bytes,
            on_rows=lambda _: self.on_progress(0, None),
            condition=condition,
            columns=list(dict.fromkeys([*job.columns, *needed])) if job.columns else (),
            temporal=needed,
            out_of_range=job.source.dates_out_of_range,
            when_empty={sources.get(one.name, one.name): dialect.when_empty(one) for one in there or []},
        )
        return found

    def _refuse_mark(self) -> None:
        """Raise `TaskFailure` if the column for the mark of missing rows is one that is copied."""
        mode, fold = self.job.mode, self.destination.dialect.fold
        mark = mode.mark_missing if isinstance(mode, ByComparison) else None
        if mark is not None and fold(mark) in map(fold, self._copied.names.values()):
            raise TaskFailure(
                "columns_do_not_fit",
                f"mode.mark_missing: {mark!r} is a column of the source, too.",
                remedy="Choose the name of another column, or leave it out of 'columns'.",
                column=mark,
            )

    def _sorted(self, found: Path) -> Path:
        """Return the staged rows in the order of the watermark, if there is one. Refuses keys that are not unique."""
        mode, columns = self.job.mode, {field.name: str(field.type) for field in schema_of(found)}
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
            if watermark and not plan.row_count and not has_rows(transaction, plan):
                watermark = None  # of nothing that was copied; a watermark says that the table is not empty
            state = self._state.advanced(watermark).with_counts(inserted=merged.inserted, updated=merged.updated)
            written = write_state(transaction, state)
            self.on_progress(self._done + plan.row_count, self._read_count)
            transaction.commit()
        self._state = written
        self._unchanged += merged.unchanged
        self._done += plan.row_count

    def _delete_marked(self, staged: Path) -> None:
        """Delete the rows whose key the source marks."""
        plan = self._planned(self._keys(staged, only_marked=True))
        if not plan.row_count:
            return
        with self._transaction() as transaction:
            if transaction.columns(plan) is None:
                return
            deleted = delete_marked(transaction, plan, lambda *_: self.on_progress(self._done, None))
            self._commit_deletion(transaction, plan, self._state.with_counts(deleted=deleted))

    def _delete_others(self, staged: Path, mode: ByComparison) -> None:
        """Delete or mark the rows whose key the source does not have."""
        plan = self._planned(self._keys(staged, only_marked=False))
        with self._transaction() as transaction:
            if transaction.columns(plan) is None:
                return
            others = delete_others(
                transaction,
                plan,
                lambda *_: self.on_progress(self._done, None),
                most_ratio=mode.most_deleted_ratio,
                mark=mode.mark_missing,
            )
            state = self._state.with_counts(deleted=others.gone, updated=others.returned)
            self._commit_deletion(transaction, plan, state)

    def _commit_deletion(self, transaction: Transaction, plan: TablePlan, state: SyncState) -> None:
        """Write the state with the deletion; an empty table has no watermark."""
        state = state if has_rows(transaction, plan) else state.without_watermark()
        written = write_state(transaction, state)
        transaction.commit()
        self._state = written

    def _keys(self, staged: Path, *, only_marked: bool) -> Path:
        """Write the keys of the staged rows to a file: of all, or of those that are marked as deleted."""
        keys, copied, schema = self.scratch / "keys.parquet", self._copied, schema_of(staged)
        columns = list(copied.key)
        read = [*columns, copied.deleted_by] if only_marked and copied.deleted_by else columns
        with ParquetSink(
            keys, pa.schema([schema.field(name).with_name(copied.names[name]) for name in columns])
        ) as sink:
            for batch in batches_of(staged, read):
                sink.write(copied.keys(batch, only_marked=only_marked))
        return keys

    def _planned(self, dataset: Path) -> TablePlan:
        destination = self.destination
        target = self._target([self._copied.names[name] for name in self._copied.key])
        return plan_table(destination.name, target, dataset, load_id=self._state.sync_id, dialect=destination.dialect)

    def _target(self, key: list[str] | None = None) -> TableDestination:
        target = {
            "kind": "table",
            **self.job.destination.model_dump(),
            "mode": "upsert",
            "key": key or self.job.key,
            "new_columns": "add" if self.job.new_columns == "add" else "refuse",
        }
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


def _emptied(destination: str, watermark: Watermark) -> TaskFailure:
    return TaskFailure(
        "destination_emptied",
        f"The table {destination} has no row, but rows up to {watermark.text()} were copied into it before.",
        remedy="Set mode.when_emptied to 'refill', or 'reset' once, to copy all rows again.",
    )
