"""The tasks of the maintenance family: contracts bound to the pure modules."""

from __future__ import annotations

from shared.jobs.maintenance import SyncData, SyncResult
from worker.connections import connections
from worker.maintenance.sync import Sync
from worker.settings import worker_settings
from worker.task import Run, runs


@runs(SyncData)
def sync_data(job: SyncData, run: Run) -> SyncResult:
    """Bring a table up to date. A rerun goes on after the last committed part, and changes nothing twice."""
    settings, known = worker_settings(), connections()
    return Sync(
        job,
        known.sql(job.source.connection),
        known.sql(job.destination.connection),
        job_key=run.idempotency_key,
        scratch=run.scratch,
        memory_limit_bytes=settings.memory_limit_bytes,
        threads=settings.threads,
        on_progress=run.progress,
    ).run()
