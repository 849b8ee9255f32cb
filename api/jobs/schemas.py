"""What the calls for jobs answer. What they take lies with what is done with it: see submissions, selection, reruns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field

from api.http.models import Out
from shared.contract.artifacts import Artifact
from shared.ledger.states import State, StepState

WaitingReason = Literal["scheduled", "queue_paused", "concurrency_limited", "no_consumer", "behind"]
_WHY_IT_WAITS = (
    "Why it does not run yet: it is to start, or to be tried again, at `due_at`; its queue is paused; as many jobs of "
    "its concurrency key run as may; no worker takes jobs from its queue; or it is `behind` `queue_position` others. "
    "Null if it does not wait. A workflow waits as its first waiting step does."
)
_HOW_MANY_BEFORE = "How many jobs of its queue, over all priorities, are before it if it is `behind`; 0: it is next."


class Links(Out):
    """Where to go on."""

    self: str = Field(description="The job.")
    events: str = Field(description="Its events, as they happen.")
    logs: str = Field(description="Its log lines.")
    artifacts: str = Field(description="Its files.")
    cancel: str = Field(description="POST here to cancel it.")
    retry: str = Field(description="POST here to run it again, as a new job, if it did not succeed.")


class JobAccepted(Out):
    """A job that is written down and will run."""

    id: str = Field(description="Its id, a UUID that sorts by time.")
    kind: str = Field(description="Its kind.")
    state: Literal["scheduled", "queued"] = Field(description="`scheduled` if it is to start later.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    links: Links = Field(description="Where to go on.")


class BatchAccepted(Out):
    """Jobs that are written down and will run."""

    jobs: list[JobAccepted] = Field(description="The jobs, in the order of the submission.")


class WouldAccept(Out):
    """A submission that would have been accepted; nothing was."""

    kind: str = Field(description="Its kind.")
    queue: str = Field(description="The queue it would go to.")
    params: dict[str, Any] = Field(description="The parameters, with their defaults.")
    steps: list[str] = Field(description="Names of its steps, if it is a workflow.")


class WouldAcceptBatch(Out):
    """A batch that would have been accepted; nothing was."""

    jobs: list[WouldAccept] = Field(description="The submissions, in order.")


class Attempt(Out):
    """One claim of a job by a worker."""

    attempt: int = Field(ge=1, description="Its number, from 1.")
    worker: str = Field(description="The worker that made it.")
    started_at: AwareDatetime = Field(description="When it began.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    outcome: str | None = Field(description="How it ended: a final state, `retrying`, `released` or `lost`.")


class Progress(Out):
    """How far a job is."""

    current: float = Field(description="Units done.")
    total: float | None = Field(description="Units in all; null if not known.")
    unit: str = Field(description="What is counted.", examples=["rows", "bytes", "steps"])
    message: str = Field(description="What is being done.")
    ratio: float | None = Field(description="`current` / `total`, 0 to 1; null if the total is not known.")


class JobError(Out):
    """Why a job did not succeed."""

    code: str = Field(description="Stable name of the failure, for programs.")
    message: str = Field(description="What went wrong.")
    remedy: str = Field(description="What to do about it; may be empty.")
    retryable: bool = Field(description="Whether the failure is transient: another attempt may succeed.")
    details: dict[str, Any] = Field(description="Figures for programs.")
    step: str | None = Field(description="The step of a workflow that failed.")


class JobStep(Out):
    """A step of a workflow."""

    id: str = Field(description="Its id.")
    name: str = Field(description="Its name, unique within the job: a path, if workflows are nested.")
    kind: str = Field(description="Its kind.")
    queue: str = Field(description="Its queue.")
    state: StepState = Field(description="Its state.")
    after: list[str] = Field(description="Ids of the steps that it waits for; their results feed it.")
    may_fail: bool = Field(description="Whether the job goes on without its result if it fails.")
    reused_from: str | None = Field(description="The step of an earlier job whose result stands for its own.")
    attempt: int = Field(ge=0, description="Attempts so far.")
    worker: str | None = Field(description="The worker that has or had it last.")
    waiting_reason: WaitingReason | None = Field(description=_WHY_IT_WAITS)
    queue_position: int | None = Field(description=_HOW_MANY_BEFORE)
    queued_at: AwareDatetime | None = Field(description="When it was queued last.")
    started_at: AwareDatetime | None = Field(description="When it first started.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    progress: Progress | None = Field(description="How far it is.")
    result: dict[str, Any] | None = Field(description="What it returned.")
    error: JobError | None = Field(description="Why it did not succeed.")


class JobSummary(Out):
    """A job in a list."""

    id: str = Field(description="Its id.")
    kind: str = Field(description="Its kind.")
    queue: str = Field(description="Its queue.")
    state: State = Field(description="Its state.")
    priority: int = Field(ge=0, le=9, description="9 is most urgent.")
    tags: list[str] = Field(description="Words to find it by.")
    schedule: str | None = Field(description="Id of the schedule that made it.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    due_at: AwareDatetime | None = Field(description="When it is to start, or to be tried again.")
    expires_at: AwareDatetime | None = Field(description="When it expires if it has not started.")
    queued_at: AwareDatetime | None = Field(description="When it was queued last.")
    started_at: AwareDatetime | None = Field(description="When it first started.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    waiting_reason: WaitingReason | None = Field(description=_WHY_IT_WAITS)
    queue_position: int | None = Field(description=_HOW_MANY_BEFORE)
    attempt: int = Field(ge=0, description="Attempts so far.")
    retries: int = Field(ge=0, description="Retries so far.")
    worker: str | None = Field(description="The worker that has or had it last.")
    progress: Progress | None = Field(description="How far it is.")
    error: JobError | None = Field(description="Why it did not succeed, or what is to be retried.")
    cancel_requested_at: AwareDatetime | None = Field(description="When it was asked to stop.")
    retried_from: str | None = Field(description="The job that this one repeats.")
    retried_as: str | None = Field(description="The latest job that repeats this one.")
    steps_done: int = Field(ge=0, description="Steps that succeeded.")
    steps_total: int = Field(ge=0, description="Steps in all; 0 if it is not a workflow.")
    links: Links = Field(description="Where to go on.")


class Job(JobSummary):
    """A job."""

    params: dict[str, Any] = Field(description="The parameters, with their defaults.")
    options: dict[str, Any] = Field(description="The options that were given.")
    attempts: list[Attempt] = Field(description="Every attempt, in order.")
    result: dict[str, Any] | None = Field(description="What it returned; see the kind's result schema.")
    artifacts: list[Artifact] = Field(description="The files it made.")
    steps: list[JobStep] = Field(description="The steps of a workflow, in order.")


class JobPage(Out):
    """Some jobs, newest first."""

    jobs: list[JobSummary] = Field(description="The jobs. May be fewer than asked for although more follow.")
    next_page_token: str | None = Field(description="Give it as `page_token` for the next page; null at the end.")


class CancelRequest(Out):
    """What became of a request to cancel."""

    id: str = Field(description="The job.")
    state: Literal["cancelled", "cancel_requested"] = Field(
        description="`cancelled`, or `cancel_requested` while the worker that runs it is told to stop."
    )


class Refused(Out):
    """A job that a call for many did not touch."""

    id: str = Field(description="The job.")
    code: str = Field(description="Why, as the call for this job alone would say it.", examples=["job_ended"])
    message: str = Field(description="Why, in words.")


class BulkCancelled(Out):
    """What became of a call to cancel many jobs."""

    dry_run: bool = Field(description="Whether this only tells what would be done.")
    cancelled: list[str] = Field(description="Jobs that are cancelled.")
    requested: list[str] = Field(description="Jobs whose worker is told to stop them.")
    refused: list[Refused] = Field(description="Jobs that it could not be done to.")
    next_page_token: str | None = Field(description="Give it in the filter to go on; null if that was all.")


class Retried(Out):
    """A job that is repeated."""

    retried_from: str = Field(description="The job that was repeated.")
    id: str | None = Field(description="The new job; null in a dry run.")
    links: Links | None = Field(description="Where to go on; null in a dry run.")


class BulkRetried(Out):
    """What became of a call to repeat many jobs."""

    dry_run: bool = Field(description="Whether this only tells what would be done.")
    retried: list[Retried] = Field(description="Jobs that run again as new ones.")
    refused: list[Refused] = Field(description="Jobs that it could not be done to.")
    next_page_token: str | None = Field(description="Give it in the filter to go on; null if that was all.")
