"""Workers: their versions, queues and running jobs."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from api.deps import Ledger
from api.http.models import at
from api.http.problems import problems
from api.operations.schemas import ActiveJob, Worker, WorkerList, WorkerVersions
from shared.ledger.operations import Operations, WorkerState

router = APIRouter(tags=["workers"])


@router.get("/workers", summary="List the workers", responses=problems(503))
async def list_workers(ledger: Ledger) -> WorkerList:
    """Return all live workers, and as `lost` those whose heartbeat stopped within the last hour."""
    return WorkerList(workers=[_shown(worker) for worker in await Operations(ledger).workers()])


def _shown(worker: WorkerState) -> Worker:
    about = worker.about
    return Worker(
        name=about.name,
        host=about.host,
        pid=about.pid,
        families=list(about.families),
        queues=list(worker.queues),
        kinds=None if worker.kinds is None else list(worker.kinds),
        concurrency=about.concurrency,
        versions=WorkerVersions(**about.versions),
        state=_state(worker),
        started_at=at(about.started_at),
        last_seen_at=at(worker.seen_at),
        active=[
            ActiveJob(
                id=job.id, kind=job.kind, job_id=job.job_id or job.id, step=job.step, started_at=at(job.started_at)
            )
            for job in worker.active
        ],
    )


def _state(worker: WorkerState) -> Literal["online", "stopping", "lost"]:
    if worker.is_lost:
        return "lost"
    return "stopping" if worker.about.is_stopping else "online"
