"""The tasks of the maintenance family. They call pure modules."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.broker.settings import broker_settings
from shared.contract.artifacts import BackupFile
from shared.jobs.maintenance import (
    BackupData,
    BackupResult,
    CleanupOldData,
    CleanupResult,
    Folder,
    RestoreData,
    RestoreResult,
    StoreFile,
    WholeTable,
)
from shared.jobs.syncs import SyncData, SyncResult
from worker.maintenance.backup.backup import Bounds, back_up_store, back_up_tables
from worker.maintenance.backup.copies import Pruned, dated, fetched, keep, prune
from worker.maintenance.backup.restore import restore_store, restore_table, restore_tables
from worker.maintenance.backup.uses import named_by_live_jobs
from worker.maintenance.cleanup import Cleanup
from worker.maintenance.sync.sync import Sync
from worker.reach.connections import connections
from worker.runtime.task import Run, runs
from worker.settings import worker_settings
from worker.tables.databases.registry import database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.reach.connections import WorkerConnections


@runs(SyncData)
def sync_data(job: SyncData, run: Run) -> SyncResult:
    """Synchronise a table. A rerun continues after the last committed part and applies no change twice."""
    settings, known = worker_settings(), connections()
    return Sync(
        job,
        database(known, job.source.connection),
        database(known, job.destination.connection),
        job_key=run.idempotency_key,
        scratch=run.scratch,
        memory_limit_bytes=settings.memory_limit_bytes,
        threads=settings.threads,
        on_progress=run.progress,
    ).run()


@runs(BackupData)
def backup_data(job: BackupData, run: Run) -> BackupResult:
    """Write ``backup.zip``. A rerun makes a new one under its own attempt, and replaces the old copy."""
    known, source, target = connections(), job.source, run.scratch / "backup.zip"
    if isinstance(source, Folder):
        manifest = back_up_store(known.store(source.connection), source.prefix, target, _bounds(run))
    else:
        tables = [source.table] if isinstance(source, WholeTable) else source.tables
        manifest = back_up_tables(database(known, source.connection), tables, target, _bounds(run))
    artifact = run.publish(target, name="backup.zip", role="backup", media_type="application/zip")
    kept_at, pruned = None, Pruned([], [])
    if (keep_at := job.keep_at) is not None:
        store, now = known.store(keep_at.connection), datetime.now(UTC)
        path = dated(keep_at.path, now, artifact.sha256) if keep_at.copies else keep_at.path
        kept_at = f"{keep_at.connection}:{path}"
        with run.store.local_copy(artifact.uri, run.scratch) as file:
            keep(store, path, file, artifact.sha256, lambda _: run.report_pending())
        if keep_at.copies is not None:
            pruned = prune(
                store, keep_at.path, keep_at.copies, newest=path, now=now,
                restored=lambda paths: named_by_live_jobs(run.ledger, keep_at.connection, paths),
            )  # fmt: skip
    return BackupResult(
        backup=BackupFile.model_validate(artifact.model_dump()),
        source=manifest.source,
        row_count=manifest.row_count,
        tables={table.name: table.row_count for table in manifest.tables},
        left_out=manifest.left_out,
        file_count=len(manifest.files),
        content_bytes=manifest.content_bytes,
        digest=manifest.digest,
        kept_at=kept_at,
        removed_copies=pruned.removed,
        spared_copies=pruned.spared,
    )


@runs(RestoreData)
def restore_data(job: RestoreData, run: Run) -> RestoreResult:
    """Restore a backup once per job and verify it. A rerun restores what is missing."""
    known, target = connections(), job.destination
    how: Any = {"replace": job.mode == "replace", "bounds": _bounds(run)}
    with _backup_file(job.backup, known, run) as file:
        if isinstance(target, Folder):
            where, store = f"{target.connection}:{target.prefix}", known.store(target.connection)
            restored = restore_store(file, store, target.prefix, **how)
        else:
            sql, load_id = database(known, target.connection), run.idempotency_key
            if isinstance(target, WholeTable):
                restored = restore_table(file, sql, target.table, load_id=load_id, **how)
            else:
                restored = restore_tables(file, sql, target.tables, load_id=load_id, **how)
            where = f"{target.connection}:{', '.join(restored.tables)}"
    manifest = restored.manifest
    return RestoreResult(
        destination=where,
        source=manifest.source,
        created_at=manifest.created_at,
        row_count=sum(restored.tables.values()) if restored.tables else None,
        tables=dict(restored.tables),
        left_out=list(restored.left_out),
        file_count=len(manifest.files),
        content_bytes=manifest.content_bytes,
        digest=manifest.digest,
        verified=True,
    )


@runs(CleanupOldData)
def cleanup_old_data(job: CleanupOldData, run: Run) -> CleanupResult:
    """Remove what has passed its retention. A rerun removes the rest and counts only that."""
    retention_s = broker_settings().retention_s
    return Cleanup(
        run.ledger,
        run.store,
        older_than_s=retention_s if job.older_than_s is None else job.older_than_s,
        orphans_older_than_s=retention_s if job.orphans_older_than_s is None else job.orphans_older_than_s,
        dry_run=job.dry_run,
        on_progress=lambda count: run.progress(count, unit="items"),
    ).run()


@contextmanager
def _backup_file(backup: str | StoreFile, known: WorkerConnections, run: Run) -> Iterator[Path]:
    if isinstance(backup, StoreFile):
        yield fetched(known.store(backup.connection), backup.path, run.scratch)
    else:
        with run.store.local_copy(backup, run.scratch) as file:
            yield file


def _bounds(run: Run) -> Bounds:
    settings = worker_settings()
    return Bounds(
        scratch=run.scratch,
        memory_limit_bytes=settings.memory_limit_bytes,
        threads=settings.threads,
        max_bytes=settings.plain_max_bytes,
        on_progress=lambda current, total, unit: run.progress(current, total, unit=unit),
    )
