"""What an operator gets: queues and workers."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from api.http.models import Out


class Queue(Out):
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


class QueueList(Out):
    """All queues."""

    queues: list[Queue] = Field(description="The queues, in alphabetical order.")


class ActiveJob(Out):
    """What a worker runs."""

    id: str = Field(description="The job, or the step of one.")
    kind: str = Field(description="Its kind.")
    job_id: str = Field(description="The job that it is or belongs to.")
    step: str | None = Field(description="Name of the step, if it is one.")
    started_at: AwareDatetime = Field(description="When this attempt began.")


class WorkerVersions(Out):
    """What a worker is made of."""

    celeriac: str = Field(description="Of this service.")
    celery: str = Field(description="Of Celery.")
    python: str = Field(description="Of Python.")


class Worker(Out):
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


class WorkerList(Out):
    """All workers."""

    workers: list[Worker] = Field(description="The workers, by name. A lost one is shown for an hour.")
