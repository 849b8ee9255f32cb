"""The jobs that a request selects: one by the id in its path, or all that match its filter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Depends, Path
from pydantic import ConfigDict, Field, model_validator

from api.deps import Ledger
from api.http.models import In
from api.http.page_tokens import next_id_of, page_token
from api.http.problems import Problem
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import EXACT, Filter, JobCriteria
from shared.ledger.ids import time_floor
from shared.ledger.records import Gone, Record, Unknown
from shared.ledger.states import State

BULK_MAX = 1_000
_CLOCK_SLACK_S = 60.0  # an id has the gateway's time, `created_at` the ledger's


class JobFilter(JobCriteria):
    """Which jobs to list. Omitted fields match every job."""

    page_size: int = Field(default=50, ge=1, le=200, description="Maximum number of jobs per page.")
    page_token: str | None = Field(
        default=None,
        max_length=200,
        description="`next_page_token` of the previous page; the filters must be the same.",
    )


class JobSelection(JobCriteria):
    """A filter of jobs, as in `GET /jobs`. Omitted fields match every job."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    page_token: str | None = Field(
        default=None,
        max_length=200,
        description="`next_page_token` of the previous response; the filter must be the same.",
    )


class BulkRequest(In):
    """The jobs of a bulk call: either their ids or a filter."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=BULK_MAX)] | None = Field(
        default=None, description=f"Ids of the jobs, at most {BULK_MAX:,}."
    )
    filter: JobSelection | None = Field(
        default=None, description=f"Filter of the jobs: the newest first, at most {BULK_MAX:,} per call."
    )
    dry_run: bool = Field(default=False, description="Return what would be done without doing it.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either 'ids' or 'filter'")
        return self


JobId = Annotated[UUID, Path(description="The job's id.")]


async def found_job(job_id: JobId, ledger: Ledger) -> Record:
    """Return the job. Raises `Problem`: 404 if it never existed, 410 if its retention has ended."""
    return job_among(await ledger.read(str(job_id)), str(job_id))


def job_among(found: Record | Gone | Unknown, job_id: str) -> Record:
    """Return the record found under `job_id` if it is a job. Raises `Problem` as `found_job` does."""
    if isinstance(found, Gone):
        raise Problem(
            410,
            "expired_job",
            f"The retention of job {job_id} has ended, or it was deleted. Submit it again if you need it.",
        )
    if isinstance(found, Unknown):
        raise Problem(404, "unknown_job", f"There is no job {job_id}. Check the id.")
    if found.job_id is not None:
        raise Problem(
            404, "unknown_job", f"{job_id} is the step {found.step!r} of the job {found.job_id}; use the job's id."
        )
    return found


FoundJob = Annotated[Record, Depends(found_job)]


def canonical(wanted: JobFilter | JobSelection) -> str:
    """Return the filter as text; a page token is bound to it."""
    return wanted.model_dump_json(exclude={"page_token", "page_size"})


def ledger_filter(wanted: JobFilter | JobSelection) -> Filter:
    """Return the filter of the ledger. Raises `Problem` (422) for a page token of other filters."""
    return Filter(
        states=tuple(wanted.state),
        **wanted.model_dump(mode="json", include=set(EXACT)),
        lower_id=_first_id(wanted.created_after, -_CLOCK_SLACK_S),
        upper_id=next_id_of(wanted.page_token, canonical(wanted))
        if wanted.page_token
        else _first_id(wanted.created_before, _CLOCK_SLACK_S),
    )


def is_between(created_at: datetime, wanted: JobFilter | JobSelection) -> bool:
    """Return whether a job was created within the times of the filter. Its id is exact to about a minute only."""
    after, before = wanted.created_after, wanted.created_before
    return (after is None or after <= created_at) and (before is None or created_at < before)


async def selected(
    ledger: AsyncLedger, wanted: JobSelection, states: Collection[State], *, most: int
) -> tuple[Sequence[Record], str | None]:
    """Return at most `most` matching jobs in one of `states`, newest first, and the token of the next page."""
    everywhere = ledger_filter(wanted)
    found: dict[str, Record] = {}
    looked_at: list[str] = []  # the last id searched per state, if more follow
    for state in states:  # one query per state uses its index; jobs in other states cost nothing
        records, next_id = await ledger.list(replace(everywhere, states=(state,)), limit=most)
        found |= {record.id: record for record in records}
        looked_at += [next_id] if next_id else []
    floor = max(looked_at, default="")
    newest_first = sorted((job_id for job_id in found if job_id >= floor), reverse=True)
    if len(newest_first) > most:
        newest_first = newest_first[:most]
        floor = newest_first[-1]
    return [found[job_id] for job_id in newest_first], page_token(floor, canonical(wanted)) if floor else None


def _first_id(moment: datetime | None, slack_s: float) -> str | None:
    return None if moment is None else time_floor(max(0, int((moment.timestamp() + slack_s) * 1000)))
