"""What an operator gets: queues, workers and dead letters."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from api.http.models import Out
from shared.broker.reading import Reason


class Queue(Out):
    """A queue with its jobs and consumers. Steps of workflows count as jobs."""

    name: str = Field(description="Name of the queue.")
    is_paused: bool = Field(description="Whether it is paused and starts no jobs.")
    paused_at: AwareDatetime | None = Field(description="Time of the pause.")
    depth: int = Field(ge=0, description="Waiting jobs, of all priorities and for any reason.")
    held: int = Field(ge=0, description="Waiting jobs held by the pause. Others are held when a worker claims them.")
    concurrency_limited: int = Field(ge=0, description="Waiting jobs whose concurrency key is at its limit.")
    rate_limited: int = Field(ge=0, description="Waiting jobs whose turn has not come by the rate of their kind.")
    running: int = Field(ge=0, description="Running jobs.")
    consumers: int = Field(ge=0, description="Workers that consume it.")
    oldest_waiting: str | None = Field(description="Id of the job (or step) that has waited longest.")
    oldest_waiting_s: float | None = Field(description="Its wait in seconds; null if none waits.")
    waiting_reason: Literal["no_consumer", "queue_paused"] | None = Field(
        description="Why no job starts although jobs wait: it is paused, or no worker consumes it."
    )


class QueueList(Out):
    """All queues."""

    queues: list[Queue] = Field(description="The queues, in alphabetical order.")


class ActiveJob(Out):
    """A running job of a worker."""

    id: str = Field(description="Id of the job or step.")
    kind: str = Field(description="Kind of the job or step.")
    job_id: str = Field(description="Id of the job, or of the step's job.")
    step: str | None = Field(description="Name of the step, if it is one.")
    started_at: AwareDatetime = Field(description="Start of this attempt.")


class WorkerVersions(Out):
    """Versions of a worker's software."""

    celeriac: str = Field(description="Version of this service.")
    celery: str = Field(description="Of Celery.")
    python: str = Field(description="Of Python.")


class Worker(Out):
    """A worker process."""

    name: str = Field(description="Name of the worker, as in the attempts of jobs.")
    host: str = Field(description="Host name of its machine or container.")
    pid: int = Field(description="Process id on that host.")
    families: list[str] = Field(description="Families whose kinds it runs.")
    queues: list[str] = Field(description="Queues that it consumes; none while it shuts down.")
    kinds: list[str] | None = Field(
        description="Kinds that it can run, by name; null for a worker of an earlier version, which does not say."
    )
    concurrency: int = Field(ge=0, description="Maximum jobs that it runs at once.")
    versions: WorkerVersions = Field(description="Versions of its software.")
    state: Literal["online", "stopping", "lost"] = Field(
        description="`stopping` while it finishes its jobs; `lost` without a heartbeat for longer than a lease."
    )
    started_at: AwareDatetime = Field(description="Time at which it was ready.")
    last_seen_at: AwareDatetime = Field(description="Time of its last heartbeat, about one per second.")
    active: list[ActiveJob] = Field(description="Its running jobs.")


class WorkerList(Out):
    """All workers."""

    workers: list[Worker] = Field(description="The workers, by name. A lost one is shown for an hour.")


class DeadLetter(Out):
    """A message that no worker could read. It was taken off its queue."""

    id: str = Field(description="Id of the dead letter.")
    taken_off_at: AwareDatetime = Field(description="Time at which a worker removed it from its queue.")
    queue: str = Field(description="Queue that it came from.")
    reason: str = Field(
        description=f"Why it cannot be read: {', '.join(f'`{reason}`' for reason in Reason)} (by Celery).",
        examples=[Reason.BAD_BODY],
    )
    detail: str = Field(description="What is wrong with it, in words.")
    worker: str = Field(description="Worker that removed it.")
    size_bytes: int = Field(ge=0, description="Size of the message.")
    is_cut: bool = Field(description="Whether only its beginning was kept; it cannot be requeued then.")


class DeadLetterWithMessage(DeadLetter):
    """A dead letter with its message."""

    message: str = Field(description="The original message, possibly cut; bytes that are not UTF-8 are replaced.")


class DeadLetterPage(Out):
    """A page of dead letters, newest first."""

    dead_letters: list[DeadLetter] = Field(description="The dead letters.")
    next_page_token: str | None = Field(description="Send it as `page_token` for the next page; null at the end.")
