"""What of the source's rows is copied: which columns, by which names, and not the rows that are marked as deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import TaskFailure
from worker.tables.parquet.columns import need_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.jobs.syncs import SyncData
    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.types import ExistingColumn


@dataclass(frozen=True, slots=True)
class Copied:
    """The columns that are copied, their names in the destination, and the column that marks deleted rows."""

    names: dict[str, str]
    key: tuple[str, ...]
    deleted_by: str | None = None
    ignored: tuple[str, ...] = ()

    def schema(self, staged: pa.Schema) -> pa.Schema:
        """Return the columns of the destination."""
        return pa.schema([staged.field(name).with_name(target) for name, target in self.names.items()])

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return what is copied of staged rows."""
        if self.deleted_by is not None:
            batch = batch.filter(pc.invert(_is_marked(batch.column(self.deleted_by))))
        return batch.select(list(self.names)).rename_columns(list(self.names.values()))

    def keys(self, batch: pa.RecordBatch, *, only_marked: bool) -> pa.RecordBatch:
        """Return the keys of staged rows, of all or of those that are marked as deleted."""
        if only_marked and self.deleted_by is not None:
            batch = batch.filter(_is_marked(batch.column(self.deleted_by)))
        return batch.select(list(self.key)).rename_columns([self.names[name] for name in self.key])


def copied_of(
    job: SyncData, staged: pa.Schema, there: Sequence[ExistingColumn] | None, dialect: Dialect
) -> tuple[Copied, list[str]]:
    """Return what is copied, and the columns that the destination lacks and gets.

    `there` are the columns of the destination, None if it does not exist. Raises `TaskFailure`: ``unknown_column``,
    ``columns_do_not_fit``, ``mark_not_readable``.
    """
    known = {name: str(kind) for name, kind in zip(staged.names, staged.types, strict=True)}
    need_columns(job.key, known, "key")
    if job.deleted_by is not None:
        need_columns([job.deleted_by], known, "deleted_by")
        _refuse_unreadable(job.deleted_by, staged.field(job.deleted_by).type)
    chosen = job.columns or dict.fromkeys(known)
    need_columns(chosen, known, "columns")
    names = {name: target or name for name, target in chosen.items()}
    key = tuple(job.key)
    if there is None:
        return Copied(names, key, job.deleted_by), []
    existing = {dialect.fold(column.name) for column in there}
    new = [name for name, target in names.items() if dialect.fold(target) not in existing]
    if job.new_columns == "add":
        return Copied(names, key, job.deleted_by), [names[name] for name in new]
    if new and (job.new_columns == "refuse" or set(new) & set(key)):
        table = f"{job.destination.connection}:{job.destination.table}"
        raise TaskFailure(
            "columns_do_not_fit",
            f"The table {table} lacks the columns {[names[name] for name in new]} of the source.",
            remedy="Set new_columns to 'add' or 'ignore', name what to copy in 'columns', or add them to the table.",
            columns=[names[name] for name in new],
        )
    kept = {name: target for name, target in names.items() if name not in new}
    return Copied(kept, key, job.deleted_by, tuple(new)), []


def _is_marked(column: pa.Array) -> pa.Array:
    if pa.types.is_temporal(column.type) or pa.types.is_null(column.type):
        return pc.is_valid(column)
    return pc.fill_null(pc.not_equal(column, pa.scalar(0).cast(column.type)), fill_value=False)


def _refuse_unreadable(name: str, kind: pa.DataType) -> None:
    types = pa.types
    readable = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_temporal,
        types.is_null,
    )
    if not any(fits(kind) for fits in readable):
        raise TaskFailure(
            "mark_not_readable",
            f"deleted_by: the column {name!r} has the type {kind}, not a truth value, a number, a date or a time.",
            remedy="Use a query as the source that makes one of it, for example status = 'deleted' AS is_deleted.",
            column=name,
        )
