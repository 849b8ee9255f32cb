"""What an operator sends and gets: queues, workers, and calls for many jobs at once. See `schemas` for the rules."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from api.jobs.schemas import Links
from shared.contract.options import SubmissionOptions
from shared.ledger.filters import JobCriteria

BULK_MAX = 1_000


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Queue(_Out):
    """A queue: what waits in it, and who works on it. Steps of workflows count as jobs."""

    name: str = Field(description="Its name.")
    is_paused: bool = Field(description="Whether nothing of it is started.")
    paused_at: AwareDatetime | None = Field(description="Since when it is paused.")
    depth: int = Field(ge=0, description="Jobs that wait, over all priorities and for whatever reason.")
    held: int = Field(ge=0, description="Of these, jobs held back by the pause. Others are held when a worker asks.")
    concurrency_limited: int = Field(ge=0, description="Of these, jobs that wait for a place of their concurrency key.")
    running: int = Field(ge=0, description="Jobs under way.")
    consumers: int = Field(ge=0, description="Workers that take jobs from it.")
    oldest_waiting: str | None = Field(description="The job (or step) that has waited longest.")
    oldest_waiting_s: float | None = Field(description="For how long it has, in seconds; null if none waits.")
    waiting_reason: Literal["no_consumer", "queue_paused"] | None = Field(
        description="Why nothing of it starts although jobs wait: it is paused, or no worker takes jobs from it."
    )


class QueueList(_Out):
    """All queues."""

    queues: list[Queue] = Field(description="The queues, in alphabetical order.")


class ActiveJob(_Out):
    """What a worker runs."""

    id: str = Field(description="The job, or the step of one.")
    kind: str = Field(description="Its kind.")
    job_id: str = Field(description="The job that it is or belongs to.")
    step: str | None = Field(description="Name of the step, if it is one.")
    started_at: AwareDatetime = Field(description="When this attempt began.")


class WorkerVersions(_Out):
    """What a worker is made of."""

    celeriac: str = Field(description="Of this service.")
    celery: str = Field(description="Of Celery.")
    python: str = Field(description="Of Python.")


class Worker(_Out):
    """A worker process."""

    name: str = Field(description="Its name, as the attempts of jobs have it.")
    host: str = Field(description="Its machine or container.")
    pid: int = Field(description="Its process id there.")
    families: list[str] = Field(description="Families whose kinds it runs.")
    queues: list[str] = Field(description="Queues that it takes jobs from; none while it shuts down.")
    concurrency: int = Field(ge=0, description="Jobs it can run at once.")
    versions: WorkerVersions = Field(description="What it is made of.")
    state: Literal["online", "stopping", "lost"] = Field(
        description="`stopping` while it ends what it has; `lost` if it has been silent for longer than a lease."
    )
    started_at: AwareDatetime = Field(description="When it was ready.")
    last_seen_at: AwareDatetime = Field(description="When it gave its last heartbeat, about one a second.")
    active: list[ActiveJob] = Field(description="What it runs now.")


class WorkerList(_Out):
    """All workers."""

    workers: list[Worker] = Field(description="The workers, by name. A lost one is shown for an hour.")


class RetryRequest(_In):
    """How to repeat a job. What is left out is as it was."""

    params: dict[str, Any] | None = Field(
        default=None, description="Parameters in place of the job's own; see its kind."
    )
    options: SubmissionOptions | None = Field(
        default=None,
        description="Options in place of the job's own, each by itself. Its `run_at` and `delay_s` are not kept.",
    )
    only_failed: bool = Field(
        default=False,
        description="Of a workflow, run only the steps again that did not succeed; the others' results are used again.",
    )


class JobSelection(JobCriteria):
    """Jobs by a filter, as in `GET /jobs`. What is left out does not matter."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    page_token: str | None = Field(
        default=None, max_length=200, description="`next_page_token` of the answer before, with the same filter."
    )


class BulkRequest(_In):
    """Which jobs: by their ids or by a filter, one of both."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=BULK_MAX)] | None = Field(
        default=None, description=f"These jobs, at most {BULK_MAX:,}."
    )
    filter: JobSelection | None = Field(
        default=None, description=f"Jobs like these, newest first, at most {BULK_MAX:,} a call."
    )
    dry_run: bool = Field(default=False, description="Tell what would be done, and do nothing.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either 'ids' or 'filter'")
        return self


class Refused(_Out):
    """A job that a call for many did not touch."""

    id: str = Field(description="The job.")
    code: str = Field(description="Why, as the call for this job alone would say it.", examples=["job_ended"])
    message: str = Field(description="Why, in words.")


class BulkCancelled(_Out):
    """What became of a call to cancel many jobs."""

    dry_run: bool = Field(description="Whether this only tells what would be done.")
    cancelled: list[str] = Field(description="Jobs that are cancelled.")
    requested: list[str] = Field(description="Jobs whose worker is told to stop them.")
    refused: list[Refused] = Field(description="Jobs that it could not be done to.")
    next_page_token: str | None = Field(description="Give it in the filter to go on; null if that was all.")


class Retried(_Out):
    """A job that is repeated."""

    retried_from: str = Field(description="The job that was repeated.")
    id: str | None = Field(description="The new job; null in a dry run.")
    links: Links | None = Field(description="Where to go on; null in a dry run.")


class BulkRetried(_Out):
    """What became of a call to repeat many jobs."""

    dry_run: bool = Field(description="Whether this only tells what would be done.")
    retried: list[Retried] = Field(description="Jobs that run again as new ones.")
    refused: list[Refused] = Field(description="Jobs that it could not be done to.")
    next_page_token: str | None = Field(description="Give it in the filter to go on; null if that was all.")
