"""What goes into the ledger and comes out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Entry:
    """What `accept` writes of a job, or of a step of one. JSON fields are text."""

    id: str
    kind: str
    queue: str
    priority: int  # 0..9, 9 most urgent
    params: str  # JSON object
    retention_s: float  # how long the record stays after the job's end
    max_crashes: int  # workers it may lose before it is quarantined
    max_retries: int  # tries after failures that can pass
    message: str | None = None  # the Celery message; None for a workflow's own entry and for steps after the first
    options: str = "{}"  # JSON object, as submitted
    tags: tuple[str, ...] = ()
    due_at_ms: int | None = None  # do not start before
    expires_at_ms: int | None = None  # do not start after
    schedule: str | None = None  # id of the schedule that it is a run of
    outbox: bool = False  # the broker is not the ledger's Redis: publish from the outbox
    concurrency_key: str | None = None  # at most `concurrency_limit` jobs with this key run at once
    concurrency_limit: int = 1
    retried_from: str | None = None  # the job that this one repeats
    steps: tuple[Entry, ...] = ()
    job_id: str | None = None  # of a step: its job
    step: str | None = None  # of a step: its name
    after: tuple[str, ...] = ()  # of a step: ids of the steps whose results it needs
    before: tuple[str, ...] = ()  # of a step: ids of the steps that need its result
    may_fail: bool = False  # of a step: its failure does not fail the job
    reused: Record | None = None  # of a step: the one of an earlier job whose result stands for its own

    def record(self) -> dict[str, Any]:
        """Return the record as the script takes it: text fields, absent ones left out."""
        record: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "queue": self.queue,
            "priority": str(self.priority),
            "params": self.params,
            "options": self.options,
            "tags": json.dumps(self.tags),
            "max_crashes": str(self.max_crashes),
            "max_retries": str(self.max_retries),
            "retention_ms": str(int(self.retention_s * 1000)),
        }
        optional = {
            "message": self.message,
            "due_at": self.due_at_ms,
            "expires_at": self.expires_at_ms,
            "schedule": self.schedule,
            "retried_from": self.retried_from,
        }
        record |= {name: str(value) for name, value in optional.items() if value is not None}
        if self.outbox:
            record["outbox"] = "1"
        if self.concurrency_key is not None:
            record |= {"concurrency_key": self.concurrency_key, "concurrency_limit": str(self.concurrency_limit)}
        if self.job_id is not None:
            record |= {
                "job_id": self.job_id,
                "step": self.step or "",
                "after": json.dumps(self.after),
                "before": json.dumps(self.before),
                "waits_for": "0",
            }
        if self.may_fail:
            record["may_fail"] = "1"
        if self.reused is not None:
            record |= _reused(self.reused)
        if self.steps:
            record["steps"] = json.dumps([step.id for step in self.steps])
            record |= {"total": str(len(self.steps)), "done": str(sum(step.reused is not None for step in self.steps))}
            if record["done"] != "0":
                record["reuses"] = "1"
            record["ends"] = json.dumps([step.id for step in self.steps if not step.before])
            record["with_steps"] = self._step_records()
        return record

    def _step_records(self) -> list[dict[str, Any]]:
        to_do = {step.id for step in self.steps if step.reused is None}
        return [{**step.record(), "waits_for": str(len(to_do.intersection(step.after)))} for step in self.steps]


def _reused(step: Record) -> dict[str, Any]:
    times = {"started_at": step.started_at, "finished_at": step.finished_at}
    return {
        "reused_from": step.id,
        "state": step.state,
        "result": step.result,
        "artifacts": step.artifacts,
        "attempt": str(step.attempt),
        "attempts": step.attempts,
        "worker": step.worker or "",
        **{name: str(value) for name, value in times.items() if value is not None},
    }


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that are accepted together or not at all, under at most one idempotency key."""

    jobs: Sequence[Entry]
    idempotency_key: str | None = None
    fingerprint: str = ""  # digest of the request; the same key with another one is a conflict
    idempotency_s: float = 86_400

    def arguments(self) -> dict[str, Any]:
        """Return the submission as the script takes it."""
        arguments: dict[str, Any] = {"jobs": [job.record() for job in self.jobs]}
        if self.idempotency_key is not None:
            arguments |= {
                "idempotency_key": self.idempotency_key,
                "fingerprint": self.fingerprint,
                "idempotency_ms": int(self.idempotency_s * 1000),
            }
        return arguments


class Accepted(NamedTuple):
    """The answer to a submission. A conflict has no ids."""

    outcome: Literal["accepted", "replayed", "conflict"]
    ids: tuple[str, ...]
    created_at_ms: int


def parse_accepted(submission: Submission, reply: Sequence[Any]) -> Accepted:
    """Return what an `accept` of the script answers to `submission`."""
    outcome, *rest = reply
    ids = rest[1:] if outcome == "replayed" else [job.id for job in submission.jobs]
    return Accepted(outcome, tuple(ids) if rest else (), int(rest[0]) if rest else 0)


@dataclass(frozen=True, slots=True)
class Record:
    """A job or step as the ledger has it. Times are milliseconds since 1970; JSON fields are text.

    Set by accept: id .. expires_at; by publish: published_at, publishes; by claim: attempt .. claim_until, worker;
    by progress, finish, retry, cancel: the rest. `queued_at` is set whenever the job becomes queued.
    """

    id: str
    kind: str
    queue: str
    state: str
    created_at: int
    priority: int
    params: str
    options: str = "{}"
    tags: str = "[]"
    retention_ms: int = 0
    max_crashes: int = 0
    max_retries: int = 0
    message: str | None = None
    due_at: int | None = None
    expires_at: int | None = None
    queued_at: int | None = None
    published_at: int | None = None
    publishes: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    attempt: int = 0  # claims so far
    attempts: str = "[]"  # [{attempt, worker, started_at_ms, finished_at_ms?, outcome?}]
    retries: int = 0
    crashes: int = 0  # workers lost while they ran it
    worker: str | None = None
    owner: str | None = None
    claim_until: int | None = None
    progress: str | None = None  # {current, total, unit, message}
    result: str | None = None
    error: str | None = None  # {code, message, remedy, retryable, details, step?}
    artifacts: str = "[]"
    cancel_requested_at: int | None = None
    cancel_reason: str | None = None
    steps: tuple[Record, ...] = ()
    done: int = 0
    total: int = 0
    schedule: str | None = None
    concurrency_key: str | None = None
    held_by: str | None = None  # why its message is not with the broker: queue_paused, rate_limited
    waiting_reason: str | None = None  # as the script says when it is read; see `schemas.WaitingReason`
    queue_position: int | None = None  # how many are before it in its queue
    retried_from: str | None = None
    retried_as: str | None = None  # the latest job that repeats this one
    job_id: str | None = None
    step: str | None = None
    after: str = "[]"
    may_fail: int = 0
    reused_from: str | None = None  # of a step: the one of an earlier job whose result it has


_INTEGERS = frozenset(f.name for f in fields(Record) if str(f.type).startswith("int"))
_KNOWN = frozenset(f.name for f in fields(Record)) - {"steps"}


def parse_record(flat: Sequence[str], steps: Iterable[Sequence[str]] = ()) -> Record:
    """Return a record from the flat hash that the script gives."""
    values: dict[str, Any] = {}
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if name in _KNOWN:
            values[name] = int(value) if name in _INTEGERS else value
    return Record(**values, steps=tuple(parse_record(step) for step in steps if step))


class Event(NamedTuple):
    """One entry of a job's stream. `data` is JSON text; `step` names the step it comes from, if any."""

    id: str
    event: str
    at_ms: int
    data: str
    step: str | None


class Gone(NamedTuple):
    """The job existed; its retention is over."""


class Unknown(NamedTuple):
    """The job never existed."""


class Claim(NamedTuple):
    """The right to run a job once. `token` fences: a later claim has a higher one."""

    token: str
    attempt: int
    retries: int
    max_retries: int
    upstream: str = "[]"  # JSON array: the results of the steps before it, null for one that failed and may


class Refusal(NamedTuple):
    """Why a claim was not given: `busy`, `early`, `held`, `unknown`, or the state in which the job has ended."""

    why: str
    result: str  # the stored JSON result where `why` is `succeeded`


class Action(NamedTuple):
    """What the keeper did to a job.

    One of published (it is due, or held no more), expired, republished, quarantined, cancelled, unpublished, forgotten,
    callback (its end is to be told).
    """

    what: str
    id: str


def parse_read(reply: Sequence[Any]) -> Record | Gone | Unknown:
    """Return what a `read` of the script found."""
    what, *found = reply
    if what == "found":
        return parse_record(found[0], found[1:])
    return Gone() if what == "gone" else Unknown()


def parse_event(event_id: str, values: Mapping[str, str]) -> Event:
    """Return one entry of a job's stream."""
    return Event(event_id, values["event"], int(values["at"]), values["data"], values.get("step"))
