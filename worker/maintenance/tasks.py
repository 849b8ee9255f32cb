"""The tasks of the maintenance family. They call pure modules."""

from __future__ import annotations

from typing import Any

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
    WholeTable,
)
from shared.jobs.syncs import SyncData, SyncResult
from worker.maintenance.backup.backup import Bounds, back_up_store, back_up_tables
from worker.maintenance.backup.files import write_file
from worker.maintenance.backup.restore import restore_store, restore_table, restore_tables
from worker.maintenance.cleanup import Cleanup
from worker.maintenance.sync.sync import Sync
from worker.reach.connections import connections
from worker.runtime.task import Run, runs
from worker.settings import worker_settings
from worker.tables.databases.registry import database


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
    kept_at = None
    if job.keep_at is not None:
        kept_at = f"{job.keep_at.connection}:{job.keep_at.path}"
        with target.open("rb") as content:
            write_file(known.store(job.keep_at.connection), job.keep_at.path, content, lambda _: run.report_pending())
    artifact = run.publish(target, name="backup.zip", role="backup", media_type="application/zip")
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
    )


@runs(RestoreData)
def restore_data(job: RestoreData, run: Run) -> RestoreResult:
    """Restore a backup once per job and verify it. A rerun restores what is missing."""
    known, target = connections(), job.destination
    how: Any = {"replace": job.mode == "replace", "bounds": _bounds(run)}
    with run.store.local_copy(job.backup, run.scratch) as file:
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


def _bounds(run: Run) -> Bounds:
    settings = worker_settings()
    return Bounds(
        scratch=run.scratch,
        memory_limit_bytes=settings.memory_limit_bytes,
        threads=settings.threads,
        max_bytes=settings.plain_max_bytes,
        on_progress=lambda current, total, unit: run.progress(current, total, unit=unit),
    )
