"""The jobs that a request selects: one by the id in its path, or all that match its filter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Self

from fastapi import Depends, Path
from pydantic import ConfigDict, Field, model_validator

from api.deps import Ledger, Settings
from api.forgotten import Forgotten
from api.http.models import In
from api.http.page_tokens import TOKEN_MAX, next_id_of, page_token
from api.http.paths import text_of
from api.http.problems import Problem
from shared.broker.reading import MAX_NAME
from shared.broker.settings import BrokerSettings
from shared.broker.unclaimed import NotThere, adopt_unclaimed
from shared.ledger.aclient import AsyncLedger
from shared.ledger.calling.filters import EXACT, Filter, JobCriteria
from shared.ledger.ids import time_floor
from shared.ledger.records import Gone, Record, Unknown
from shared.ledger.states import State

BULK_MAX = 1_000
CANCEL_REASON = "Cancelled on request."
_CLOCK_SLACK_S = 60.0  # an id has the gateway's time, `created_at` the ledger's


class JobFilter(JobCriteria):
    """Which jobs to list. Omitted fields match every job."""

    page_size: int = Field(default=50, ge=1, le=200, description="Maximum number of jobs per page.")
    page_token: str | None = Field(
        default=None,
        max_length=TOKEN_MAX,
        description="`next_page_token` of the previous page; the filters must be the same.",
    )


class JobSelection(JobCriteria):
    """A filter of jobs, as in `GET /jobs`. Omitted fields match every job."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    page_token: str | None = Field(
        default=None,
        max_length=TOKEN_MAX,
        description="`next_page_token` of the previous response; the filter must be the same.",
    )


class BulkRequest(In):
    """The jobs of a bulk call: either their ids or a filter."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=BULK_MAX)] | None = Field(
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


Id = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


PathId = Annotated[
    str,
    Path(
        description=f"The job's id. Other Celery clients may choose any text of at most {MAX_NAME} characters: encode "
        "all but letters and digits, also slashes (`%2F`).",
        json_schema_extra={"maxLength": MAX_NAME},
    ),
]


def id_in(job_id: str) -> str:
    """Return the id that a path has percent-encoded. Raises `Problem` (404) if no job can have it."""
    text = text_of(job_id)
    if text is None or len(text) > MAX_NAME:
        what = f"A job's id is text in UTF-8, percent-encoded, of at most {MAX_NAME} characters."
        raise Problem(404, "unknown_job", f"There is no job with this id. {what}")
    return text


async def _job_id(job_id: PathId) -> str:
    return id_in(job_id)


JobId = Annotated[str, Depends(_job_id)]


async def find(ledger: AsyncLedger, settings: BrokerSettings, job_id: str) -> Record | NotThere:
    """Return the job, also one whose message another Celery client sent and no worker has claimed.

    Raises `Problem`: 404 for a step, 410 if its retention has ended.
    """
    found = await _look_for(ledger, settings, job_id)
    return found if isinstance(found, NotThere) else job_among(found, job_id)


async def _look_for(ledger: AsyncLedger, settings: BrokerSettings, job_id: str) -> Record | Gone | Unknown | NotThere:
    found = await ledger.read(job_id)
    if isinstance(found, Unknown):
        if missing := await adopt_missing(ledger, settings, [job_id]):
            return missing[job_id]
        found = await ledger.read(job_id)
    return found


async def adopt_missing(
    ledger: AsyncLedger, settings: BrokerSettings, job_ids: Sequence[str]
) -> Mapping[str, NotThere]:
    """Create the jobs with these ids, unknown to the ledger, whose messages wait; return those that it still lacks."""
    missing = await adopt_unclaimed(ledger, settings, job_ids)
    known = await ledger.known(list(missing)) if missing else set()  # a worker may have claimed some meanwhile
    return {job_id: why for job_id, why in missing.items() if job_id not in known}


def unknown_job(job_id: str, missing: NotThere) -> Problem:
    """Return the answer for a job that the ledger does not have."""
    known = "It is not known whether there is a job" if missing.may_wait else "There is no job"
    return Problem(404, "unknown_job", f"{known} {job_id}. {missing.why}")


async def job_of(ledger: AsyncLedger, settings: BrokerSettings, job_id: str) -> Record:
    """Return the job. Raises `Problem`: 404 if it never existed, 410 if its retention has ended; `DamagedRecord`."""
    found = await find(ledger, settings, job_id)
    if isinstance(found, NotThere):
        raise unknown_job(job_id, found)
    return found


async def job_or_row(ledger: AsyncLedger, settings: BrokerSettings, job_id: str, forgotten: Forgotten | None) -> Record:
    """Return the job, from its rows if the ledger has forgotten it. Raises `Problem` as `job_of`, or 503; see there."""
    found = await _look_for(ledger, settings, job_id)
    is_there = isinstance(found, Record) or (isinstance(found, Gone) and found.is_deleted)
    if forgotten is not None and not is_there and (row := await forgotten.read(job_id)) is not None:
        found = row
    if isinstance(found, NotThere):
        raise unknown_job(job_id, found)
    return job_among(found, job_id)


async def _found(job_id: JobId, ledger: Ledger, settings: Settings) -> Record:
    return await job_of(ledger, settings, job_id)


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


FoundJob = Annotated[Record, Depends(_found)]


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
    """Return whether a job was created within the times of the filter. Its id gives the time only to about a minute."""
    after, before = wanted.created_after, wanted.created_before
    return (after is None or after <= created_at) and (before is None or created_at < before)


async def selected(
    ledger: AsyncLedger, wanted: JobSelection, states: Collection[State], *, most: int
) -> tuple[Sequence[Record], str | None]:
    """Return at most `most` matching jobs in one of `states`, newest first, and the token of the next page."""
    everywhere = ledger_filter(wanted)
    found: dict[str, Record] = {}  # by `Record.place`
    looked_at: list[str] = []  # the last id searched per state, if more follow
    for state in states:  # one query per state uses its index; jobs in other states cost nothing
        records, next_id = await ledger.list(replace(everywhere, states=(state,)), limit=most)
        found |= {record.place: record for record in records if isinstance(record, Record)}
        looked_at += [next_id] if next_id else []
    floor = max(looked_at, default="")
    newest_first = sorted((place for place in found if place >= floor), reverse=True)
    if len(newest_first) > most:
        newest_first = newest_first[:most]
        floor = newest_first[-1]
    return [found[place] for place in newest_first], page_token(floor, canonical(wanted)) if floor else None


def _first_id(moment: datetime | None, slack_s: float) -> str | None:
    return None if moment is None else time_floor(max(0, int((moment.timestamp() + slack_s) * 1000)))
