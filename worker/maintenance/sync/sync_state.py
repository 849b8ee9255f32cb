"""The state of a synchronisation in its destination: its progress, and the attempt that wrote last.

One row per pair of tables in `celeriac_syncs`, written in the transaction that writes the rows. Both modes share it,
so that neither overwrites newer rows of the other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shared.errors import TransientFailure
from shared.jobs.syncs import ByWatermark
from worker.maintenance.sync.watermark import Watermark

if TYPE_CHECKING:
    from shared.jobs.syncs import SyncData
    from worker.tables.databases.base import Transaction

_TABLE = "celeriac_syncs"
_COLUMNS = """
    sync_id {short_text} PRIMARY KEY, description TEXT NOT NULL, version BIGINT NOT NULL, job TEXT NOT NULL,
    watermark_column TEXT NOT NULL, watermark_kind TEXT NOT NULL, watermark TEXT NOT NULL, began_at TEXT NOT NULL,
    inserted_count BIGINT NOT NULL, updated_count BIGINT NOT NULL, deleted_count BIGINT NOT NULL,
    synced_at {instant} NOT NULL DEFAULT CURRENT_TIMESTAMP
"""
_READ = f"""
    SELECT version, job, watermark_column, watermark_kind, watermark, began_at, inserted_count, updated_count,
    deleted_count FROM {_TABLE} WHERE sync_id = ?
"""  # noqa: S608 - a constant of ours
_UPDATE = f"""
    UPDATE {_TABLE} SET version = ?, job = ?, watermark_column = ?, watermark_kind = ?, watermark = ?, began_at = ?,
    inserted_count = ?, updated_count = ?, deleted_count = ?, synced_at = CURRENT_TIMESTAMP WHERE sync_id = ?
"""  # noqa: S608 - a constant of ours
_INSERT = f"""
    INSERT INTO {_TABLE} (version, job, watermark_column, watermark_kind, watermark, began_at, inserted_count,
    updated_count, deleted_count, sync_id, description) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - a constant of ours


@dataclass(frozen=True, slots=True)
class SyncState:
    """The progress of a synchronisation. The counts and `began_at` (a watermark's text) belong to `job`."""

    sync_id: str
    description: str
    job: str
    version: int = 0
    column: str = ""  # of the watermark
    watermark: Watermark | None = None
    began_at: str = ""
    inserted_count: int = 0
    updated_count: int = 0
    deleted_count: int = 0

    def from_the_beginning(self) -> SyncState:
        """Return the state without its progress."""
        return replace(self, watermark=None, began_at="")

    def without_watermark(self) -> SyncState:
        """Return the state of a destination without rows."""
        return replace(self, watermark=None)

    def with_counts(self, *, inserted: int = 0, updated: int = 0, deleted: int = 0) -> SyncState:
        """Return the state with these rows added to its counts."""
        return replace(
            self,
            inserted_count=self.inserted_count + inserted,
            updated_count=self.updated_count + updated,
            deleted_count=self.deleted_count + deleted,
        )

    def advanced(self, watermark: Watermark | None) -> SyncState:
        """Return the state with `watermark` if that is higher."""
        if watermark is None or (self.watermark is not None and not watermark.is_above(self.watermark)):
            return self
        return replace(self, watermark=watermark)


def sync_id_of(job: SyncData) -> str:
    """Return the id of a synchronisation, made from its two tables, or from a query and a table."""
    parts = [
        job.source.model_dump(include={"connection", "table", "query"}, exclude_none=True),
        job.destination.model_dump(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def origin_of(job: SyncData) -> str:
    """Return where the rows come from, without credentials."""
    return f"{job.source.connection}:{job.source.table or 'query'}"


def read_state(transaction: Transaction, job: SyncData, *, job_key: str) -> SyncState:
    """Return the stored state; a new job starts with zero counts, a new column or a reset without a watermark."""
    transaction.ensure(_TABLE, _COLUMNS)
    description = f"{origin_of(job)} -> {job.destination.connection}:{job.destination.table}"
    fresh = SyncState(sync_id_of(job), description, job_key)
    wanted = job.mode.column if isinstance(job.mode, ByWatermark) else None
    for version, owner, column, kind, text, began_at, *counts in transaction.rows(_READ, fresh.sync_id):
        if wanted not in {None, column}:
            return replace(fresh, version=int(version), column=wanted or "")
        if job.reset and owner != job_key:
            return replace(fresh, version=int(version), column=wanted or column)
        watermark = Watermark.parse(kind, text) if kind else None
        if owner == job_key:
            return SyncState(fresh.sync_id, description, job_key, int(version), column, watermark, began_at, *counts)
        current = watermark.text() if watermark else ""
        return replace(fresh, version=int(version), column=column, watermark=watermark, began_at=current)
    return replace(fresh, column=wanted or "")


def write_state(transaction: Transaction, state: SyncState) -> SyncState:
    """Write `state` and return it with its new version.

    Raises `TransientFailure` (``sync_overtaken``) if another attempt has written since it was read: the rows that
    this attempt has read may be older than those that the other has copied.
    """
    found = transaction.rows(_READ, state.sync_id)
    if (int(found[0][0]) if found else 0) != state.version:
        raise TransientFailure(
            "sync_overtaken",
            f"Another job synchronises {state.description} at the same time.",
            remedy="This job is retried from the other's progress. Synchronise these tables in one schedule only.",
        )
    state = replace(state, version=state.version + 1)
    watermark = state.watermark
    reached = (watermark.kind, watermark.text()) if watermark else ("", "")
    counts = (state.inserted_count, state.updated_count, state.deleted_count)
    values = (state.version, state.job, state.column, *reached, state.began_at, *counts, state.sync_id)
    if found:
        transaction.change(_UPDATE, *values)
    else:
        transaction.change(_INSERT, *values, state.description)
    return state
