"""The job that a path names: found, or the problem that says why not."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path

from api.deps import Ledger
from api.http.problems import Problem
from shared.ledger.records import Gone, Record, Unknown

JobId = Annotated[UUID, Path(description="The job's id.")]


async def _found(job_id: JobId, ledger: Ledger) -> Record:
    """Return the job. Raises `Problem`: 404 if there never was one, 410 if its retention is over."""
    return job_among(await ledger.read(str(job_id)), str(job_id))


def job_among(found: Record | Gone | Unknown, job_id: str) -> Record:
    """Return what was found under `job_id` if it is a job. Raises `Problem` as `_found` does."""
    if isinstance(found, Gone):
        raise Problem(
            410,
            "expired_job",
            f"The job {job_id} is past its retention, or was deleted. Submit it again if you need it.",
        )
    if isinstance(found, Unknown):
        raise Problem(404, "unknown_job", f"There never was a job {job_id}. Is the id complete?")
    if found.job_id is not None:
        raise Problem(
            404, "unknown_job", f"{job_id} is the step {found.step!r} of the job {found.job_id}; ask for that."
        )
    return found


FoundJob = Annotated[Record, Depends(_found)]
