"""Response models of the job routes. The request models are in submissions, selection and reruns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, WithJsonSchema

from api.http.models import Out
from shared.contract.artifacts import Artifact
from shared.ledger.states import STEP_STATES, OnlyOfSteps, State

WaitingReason = Literal[
    "scheduled", "queue_paused", "concurrency_limited", "rate_limited", "no_consumer", "no_worker_for_kind", "behind"
]
_WHY_IT_WAITS = (
    "Why it does not run yet: `scheduled`, its start or next attempt is at `due_at`; `queue_paused`; "
    "`concurrency_limited`, the limit of its concurrency key is reached; `rate_limited`, its turn has not come by the "
    "rate of its kind; `no_consumer`, no worker consumes its queue; "
    "`no_worker_for_kind`, no worker that consumes its queue can run its kind, or the version of it that accepted the "
    "job; "
    "`behind`, `queue_position` jobs are before it. Null if it is not waiting. For a workflow, the reason of its first "
    "waiting step."
)
_HOW_MANY_BEFORE = (
    "Number of jobs before it in its queue, of all priorities, if it is `behind`; 0 means that it is next."
)

_STEP_STATE = {  # one list, without a name: in Go the values of two named enums are constants of one package
    "type": "string",
    "enum": [str(state) for state in STEP_STATES],
}
StepState = Annotated[State | OnlyOfSteps, WithJsonSchema(_STEP_STATE)]


class Links(Out):
    """URLs of what belongs to a job."""

    self: str = Field(description="The job.")
    events: str = Field(description="A stream of its events.")
    logs: str = Field(description="Its log lines.")
    artifacts: str = Field(description="Its files.")
    cancel: str = Field(description="POST here to cancel it.")
    rerun: str = Field(description="POST here to rerun it as a new job if it did not succeed.")


class JobAccepted(Out):
    """An accepted job: it is stored and will run."""

    id: str = Field(description="Its id, a UUID that sorts by time.")
    kind: str = Field(description="Its kind.")
    state: Literal[State.SCHEDULED, State.QUEUED, State.RUNNING, State.RETRYING] = Field(
        description="`scheduled` if it starts later, else `queued`; any of them if the header `Job-Existed` is set."
    )
    created_at: AwareDatetime = Field(description="When it was accepted.")
    links: Links = Field(description="URLs of what belongs to it.")


class BatchAccepted(Out):
    """Accepted jobs: they are stored and will run."""

    jobs: list[JobAccepted] = Field(description="The jobs, in the order of the submission.")


class WouldAccept(Out):
    """A valid submission of a dry run; nothing was accepted."""

    kind: str = Field(description="Its kind.")
    queue: str = Field(description="The queue that it would use.")
    params: dict[str, Any] = Field(description="The parameters that were given.")
    steps: list[str] = Field(description="Names of its steps, if it is a workflow.")


class WouldAcceptBatch(Out):
    """A valid batch of a dry run; nothing was accepted."""

    jobs: list[WouldAccept] = Field(description="The submissions, in order.")


class Attempt(Out):
    """One claim of a job by a worker."""

    attempt: int = Field(ge=1, description="Its number, from 1.")
    worker: str = Field(description="The worker that ran it.")
    started_at: AwareDatetime = Field(description="When it started.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    outcome: str | None = Field(description="How it ended: a final state, `retrying`, `released` or `lost`.")


class Progress(Out):
    """Progress of a job."""

    current: float = Field(description="Units done.")
    total: float | None = Field(description="Total units; null if unknown.")
    unit: str = Field(description="Name of the unit.", examples=["rows", "bytes", "steps"])
    message: str = Field(description="What it is doing.")
    ratio: float | None = Field(description="`current` / `total`, 0 to 1; null if the total is unknown.")


class JobError(Out):
    """Why a job did not succeed."""

    code: str = Field(description="Stable code of the error, for programs.")
    message: str = Field(description="What went wrong.")
    remedy: str = Field(description="How to fix it; may be empty.")
    retryable: bool = Field(description="Whether the failure is transient: another attempt may succeed.")
    details: dict[str, Any] = Field(description="Values for programs.")
    step: str | None = Field(description="The step of a workflow that failed.")


class JobStep(Out):
    """A step of a workflow."""

    id: str = Field(description="Its id.")
    name: str = Field(description="Its name, unique within the job; a path for steps of nested workflows.")
    kind: str = Field(description="Its kind.")
    queue: str = Field(description="Its queue.")
    state: StepState = Field(description="Its state: one of a job's, `waiting` or `skipped`.")
    after: list[str] = Field(description="Ids of the steps before it; their results are its input.")
    may_fail: bool = Field(description="Whether the job continues without its result if it fails.")
    reused_from: str | None = Field(description="The step of an earlier job whose result is reused.")
    attempt: int = Field(ge=0, description="Attempts so far.")
    worker: str | None = Field(description="The worker of the current or latest attempt.")
    waiting_reason: WaitingReason | None = Field(description="Why it does not run yet, in the words of a `Job`.")
    queue_position: int | None = Field(description="Number of jobs before it in its queue, as of a `Job`.")
    queued_at: AwareDatetime | None = Field(description="When it was last queued, except after losing its worker.")
    started_at: AwareDatetime | None = Field(description="When it first started.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    progress: Progress | None = Field(
        description="Its progress: complete once it has succeeded; if it ended otherwise, where it stopped."
    )
    result: dict[str, Any] | None = Field(description="Its result.")
    error: JobError | None = Field(description="Why it did not succeed.")


class JobSummary(Out):
    """A job in a list."""

    id: str = Field(description="Its id.")
    kind: str = Field(description="Its kind.")
    queue: str = Field(description="Its queue.")
    state: State = Field(description="Its state.")
    priority: int = Field(ge=0, le=9, description="0 to 9; 9 is the most urgent.")
    tags: list[str] = Field(description="Tags, for filters.")
    schedule: str | None = Field(description="Id of the schedule that submitted it.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    due_at: AwareDatetime | None = Field(description="When it starts, or when the next attempt starts.")
    expires_at: AwareDatetime | None = Field(description="When it expires if it has not started.")
    queued_at: AwareDatetime | None = Field(description="When it was last queued, except after losing its worker.")
    started_at: AwareDatetime | None = Field(description="When it first started.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    waiting_reason: WaitingReason | None = Field(description=_WHY_IT_WAITS)
    queue_position: int | None = Field(description=_HOW_MANY_BEFORE)
    attempt: int = Field(ge=0, description="Attempts so far.")
    retries: int = Field(ge=0, description="Retries so far.")
    worker: str | None = Field(description="The worker of the current or latest attempt.")
    progress: Progress | None = Field(description="Its progress.")
    error: JobError | None = Field(description="Why it did not succeed, or why the next attempt is needed.")
    cancel_requested_at: AwareDatetime | None = Field(description="When its cancellation was requested.")
    parent: str | None = Field(description="The job, or step of one, whose task submitted it.")
    retried_from: str | None = Field(description="The job that this one reruns.")
    replaced_by: str | None = Field(
        description="The job of its kind for which it was cancelled, as the kind is unique and says `replace`."
    )
    retried_as: str | None = Field(description="The latest rerun of this job.")
    steps_done: int = Field(ge=0, description="Steps that succeeded.")
    steps_total: int = Field(ge=0, description="Total number of steps; 0 if it is not a workflow.")
    links: Links = Field(description="URLs of what belongs to it.")


class Job(JobSummary):
    """A job."""

    params: dict[str, Any] = Field(description="The parameters that were given.")
    options: dict[str, Any] = Field(description="The submitted options.")
    attempts: list[Attempt] = Field(description="Every attempt, in order.")
    result: dict[str, Any] | None = Field(description="Its result; see the result schema of the kind.")
    artifacts: list[Artifact] = Field(description="Its files.")
    steps: list[JobStep] = Field(description="The steps of a workflow, in order.")


class DamagedJob(Out):
    """A job whose record in the ledger cannot be read."""

    id: str = Field(description="Its id; DELETE removes it.")
    detail: str = Field(description="What is wrong with the record.")


class JobPage(Out):
    """A page of jobs, newest first."""

    jobs: list[JobSummary] = Field(description="The jobs; possibly fewer than `page_size` even if more pages follow.")
    damaged: list[DamagedJob] = Field(
        description="Jobs of this page whose records cannot be read, whether or not they match the filter."
    )
    next_page_token: str | None = Field(description="The `page_token` of the next page; null on the last page.")


class CancelRequest(Out):
    """Result of a request to cancel a job."""

    id: str = Field(description="The job.")
    state: Literal[State.CANCELLED, "cancel_requested", "cancel_noted"] = Field(
        description="`cancelled`; `cancel_requested` while its worker stops it, and the job's `state` tells whether "
        "that was in time; `cancel_noted` if no worker has taken its message yet: when one does, it is cancelled."
    )
    has_started: bool = Field(description="Whether it had started, so that a part of its work may be done.")


class Refused(Out):
    """A job that a bulk call left unchanged."""

    id: str = Field(description="The job.")
    code: str = Field(description="Error code, as for a call for this job alone.", examples=["job_ended"])
    message: str = Field(description="Error message.")


class BulkCancelled(Out):
    """Result of a bulk cancel."""

    dry_run: bool = Field(description="Whether this was a dry run: nothing changed.")
    cancelled: list[str] = Field(description="Cancelled jobs.")
    requested: list[str] = Field(description="Running jobs that their workers stop now.")
    noted: list[str] = Field(
        description="Ids of which it is not known whether a message waits on the broker: a worker that takes one "
        "cancels the job."
    )
    refused: list[Refused] = Field(description="Unchanged jobs, with the reason.")
    next_page_token: str | None = Field(
        description="The `page_token` of the next call's filter; null if no jobs are left."
    )


class Rerun(Out):
    """A rerun job."""

    retried_from: str = Field(description="The original job.")
    id: str | None = Field(description="The new job; null in a dry run.")
    links: Links | None = Field(description="URLs of what belongs to the new job; null in a dry run.")


class BulkReruns(Out):
    """Result of a bulk rerun."""

    dry_run: bool = Field(description="Whether this was a dry run: nothing changed.")
    retried: list[Rerun] = Field(description="Jobs that were rerun, with their new jobs.")
    refused: list[Refused] = Field(description="Unchanged jobs, with the reason.")
    next_page_token: str | None = Field(
        description="The `page_token` of the next call's filter; null if no jobs are left."
    )
