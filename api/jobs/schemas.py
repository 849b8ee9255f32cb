"""What goes in and out as JSON. Output models have no defaults: every field is always there.

A job's own part of a submission is its contract; there is no second description of it here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from shared.contract.artifacts import Artifact
from shared.contract.catalogue import Catalogue
from shared.contract.definition import KIND_PATTERN, Limits, Retry
from shared.contract.options import SubmissionOptions
from shared.ledger.filters import JobCriteria
from shared.ledger.states import State, StepState

BATCH_MAX = 1_000


WaitingReason = Literal["scheduled", "queue_paused", "concurrency_limited", "no_consumer", "behind"]
_WHY_IT_WAITS = (
    "Why it does not run yet: it is to start, or to be tried again, at `due_at`; its queue is paused; as many jobs of "
    "its concurrency key run as may; no worker takes jobs from its queue; or it is `behind` `queue_position` others. "
    "Null if it does not wait. A workflow waits as its first waiting step does."
)
_HOW_MANY_BEFORE = "How many jobs of its queue, over all priorities, are before it if it is `behind`; 0: it is next."


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Submission(_In):
    """A job to be. The models of the kinds derive from this one and give `kind` and `params` their types."""

    kind: str = Field(description="What kind of job it is; see `GET /job-kinds`.")
    params: Any = Field(description="The parameters of the kind.")
    options: SubmissionOptions = Field(default_factory=SubmissionOptions, description="How it is to be run.")


def submission_shape(catalogue: Catalogue, *, base: type[BaseModel] = Submission, prefix: str = "Submit") -> Any:
    """Return the type of one submission: the union of all kinds, told apart by `kind`; each derives from `base`."""
    models = tuple(
        create_model(
            prefix + "".join(part.capitalize() for part in kind.replace(".", "_").split("_")),
            __base__=base,
            __doc__=contract.spec.summary,
            kind=(_exactly(kind), Field(description="The kind of job.")),
            params=(contract, Field(description=contract.spec.summary)),
        )
        for kind, contract in catalogue.items()
    )
    if len(models) == 1:
        return models[0]
    return Annotated[Union[models], Field(discriminator="kind")]  # noqa: UP007 - the members are known at run time


def _exactly(kind: str) -> Any:
    return Literal[kind]


def batch_shape(submission: Any) -> type[BaseModel]:
    """Return the type of a batch of submissions."""
    return create_model(
        "BatchSubmission",
        __base__=_In,
        __doc__="Jobs that are accepted together or not at all.",
        jobs=(
            list[submission],
            Field(min_length=1, max_length=BATCH_MAX, description="The jobs, in order."),
        ),
    )


class JobFilter(JobCriteria):
    """Which jobs a list shows. What is left out does not matter."""

    page_size: int = Field(default=50, ge=1, le=200, description="Jobs a page, at most.")
    page_token: str | None = Field(
        default=None, max_length=200, description="`next_page_token` of the page before, with the same filters."
    )


class Links(_Out):
    """Where to go on."""

    self: str = Field(description="The job.")
    events: str = Field(description="Its events, as they happen.")
    logs: str = Field(description="Its log lines.")
    artifacts: str = Field(description="Its files.")
    cancel: str = Field(description="POST here to cancel it.")
    retry: str = Field(description="POST here to run it again, as a new job, if it did not succeed.")


class JobAccepted(_Out):
    """A job that is written down and will run."""

    id: str = Field(description="Its id, a UUID that sorts by time.")
    kind: str = Field(description="Its kind.")
    state: Literal["scheduled", "queued"] = Field(description="`scheduled` if it is to start later.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    links: Links = Field(description="Where to go on.")


class BatchAccepted(_Out):
    """Jobs that are written down and will run."""

    jobs: list[JobAccepted] = Field(description="The jobs, in the order of the submission.")


class WouldAccept(_Out):
    """A submission that would have been accepted; nothing was."""

    kind: str = Field(description="Its kind.")
    queue: str = Field(description="The queue it would go to.")
    params: dict[str, Any] = Field(description="The parameters, with their defaults.")
    steps: list[str] = Field(description="Names of its steps, if it is a workflow.")


class WouldAcceptBatch(_Out):
    """A batch that would have been accepted; nothing was."""

    jobs: list[WouldAccept] = Field(description="The submissions, in order.")


class Attempt(_Out):
    """One claim of a job by a worker."""

    attempt: int = Field(ge=1, description="Its number, from 1.")
    worker: str = Field(description="The worker that made it.")
    started_at: AwareDatetime = Field(description="When it began.")
    finished_at: AwareDatetime | None = Field(description="When it ended.")
    outcome: str | None = Field(description="How it ended: a final state, `retrying`, `released` or `lost`.")


class Progress(_Out):
    """How far a job is."""

    current: float = Field(description="Units done.")
    total: float | None = Field(description="Units in all; null if not known.")
    unit: str = Field(description="What is counted.", examples=["rows", "bytes", "steps"])
    message: str = Field(description="What is being done.")
    ratio: float | None = Field(description="`current` / `total`, 0 to 1; null if the total is not known.")


class JobError(_Out):
    """Why a job did not succeed."""

    code: str = Field(description="Stable name of the failure, for programs.")
    message: str = Field(description="What went wrong.")
    remedy: str = Field(description="What to do about it; may be empty.")
    retryable: bool = Field(description="Whether it can pass by itself.")
    details: dict[str, Any] = Field(description="Figures for programs.")
    step: str | None = Field(description="The step of a workflow that failed.")


class JobStep(_Out):
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


class JobSummary(_Out):
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
    steps_total: int = Field(ge=0, description="Steps in all; 0 if it is no workflow.")
    links: Links = Field(description="Where to go on.")


class Job(JobSummary):
    """A job."""

    params: dict[str, Any] = Field(description="The parameters, with their defaults.")
    options: dict[str, Any] = Field(description="The options that were given.")
    attempts: list[Attempt] = Field(description="Every attempt, in order.")
    result: dict[str, Any] | None = Field(description="What it returned; see the kind's result schema.")
    artifacts: list[Artifact] = Field(description="The files it made.")
    steps: list[JobStep] = Field(description="The steps of a workflow, in order.")


class JobPage(_Out):
    """Some jobs, newest first."""

    jobs: list[JobSummary] = Field(description="The jobs. May be fewer than asked for although more follow.")
    next_page_token: str | None = Field(description="Give it as `page_token` for the next page; null at the end.")


class JobKindSummary(_Out):
    """A kind in the catalogue."""

    kind: str = Field(pattern=KIND_PATTERN, description="Its name.", examples=["etl.extract_data"])
    family: str = Field(description="Its family: whose workers run it.")
    summary: str = Field(description="What it does, in a line.")
    queue: str = Field(description="Its queue.")
    limits: Limits = Field(description="How long one attempt may take.")
    retry: Retry = Field(description="How failures that can pass are tried again.")
    is_workflow: bool = Field(description="Whether it runs as several steps.")


class JobKind(JobKindSummary):
    """A kind with its schemas."""

    description: str = Field(description="What it does, at length; may be empty.")
    max_crashes: int = Field(ge=1, description="Workers it may take down before it is quarantined.")
    params_schema: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    result_schema: dict[str, Any] = Field(description="JSON Schema of the result.")
    examples: list[dict[str, Any]] = Field(description="Valid parameters.")


class JobKindList(_Out):
    """The catalogue."""

    kinds: list[JobKindSummary] = Field(description="The kinds, in alphabetical order.")


class CancelRequest(_Out):
    """What became of a request to cancel."""

    id: str = Field(description="The job.")
    state: Literal["cancelled", "cancel_requested"] = Field(
        description="`cancelled`, or `cancel_requested` while the worker that runs it is told to stop."
    )
