"""What goes into the ledger and comes out of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What `accept` writes of a job, or of a step of one, and what a reading gives back of that.

    A field here is a field of the ledger's hash under the same name; how it is written and read follows from its type
    (see `_FORMS`). Times are milliseconds since 1970.
    """

    id: str
    kind: str
    queue: str
    priority: int  # 0..9, 9 most urgent
    params: str  # JSON object
    retention_ms: int  # how long the record stays after the job's end
    max_crashes: int  # workers it may lose before it is quarantined
    max_retries: int  # after transient failures
    message: str | None = None  # the Celery message; None for a workflow's own entry and for steps after the first
    options: str = "{}"  # JSON object, as submitted
    tags: tuple[str, ...] = ()
    due_at: int | None = None  # do not start before
    expires_at: int | None = None  # do not start after
    schedule: str | None = None  # id of the schedule that it is a run of
    outbox: bool = False  # the broker is not the ledger's Redis: publish from the outbox
    concurrency_key: str | None = None  # at most `concurrency_limit` jobs with this key run at once
    concurrency_limit: int = 1
    retried_from: str | None = None  # the job that this one repeats
    job_id: str | None = None  # of a step: its job
    step: str | None = None  # of a step: its name
    after: tuple[str, ...] | None = None  # of a step: ids of the steps whose results it needs
    before: tuple[str, ...] | None = None  # of a step: ids of the steps that need its result
    may_fail: bool = False  # of a step: its failure does not fail the job


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(_Written):
    """A job to be accepted, with its steps."""

    steps: tuple[Entry, ...] = ()
    reused: Record | None = None  # of a step: the one of an earlier job whose result stands for its own

    def record(self) -> dict[str, Any]:
        """Return the record as the script takes it: text fields, absent ones left out."""
        record: dict[str, Any] = _entry_fields(self)
        if self.job_id is not None:
            record["waits_for"] = "0"
        if self.reused is not None:
            record |= _reused_fields(self.reused) | {"reused_from": self.reused.id}
        if self.steps:
            to_do = {step.id for step in self.steps if step.reused is None}
            record |= {
                "steps": json.dumps([step.id for step in self.steps]),
                "total": str(len(self.steps)),
                "done": str(len(self.steps) - len(to_do)),
                "ends": json.dumps([step.id for step in self.steps if not step.before]),
                "with_steps": [
                    step.record() | {"waits_for": str(len(to_do.intersection(step.after or ())))} for step in self.steps
                ],
            }
            if len(to_do) < len(self.steps):
                record["reuses"] = "1"
        return record


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that are accepted together or not at all, under at most one idempotency key."""

    jobs: Sequence[Entry]
    idempotency_key: str | None = None
    fingerprint: str = ""  # digest of the request; the same key with another one is a conflict
    idempotency_s: float = 86_400

    def arguments(self, until_ms: int | None = None) -> dict[str, Any]:
        """Return the submission as the script takes it. After `until_ms` by the server's clock it is not written."""
        arguments: dict[str, Any] = {"jobs": [job.record() for job in self.jobs]}
        if until_ms is not None:
            arguments["until"] = until_ms
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(_Written):
    """A job or step as the ledger has it. Times are milliseconds since 1970.

    Set by publish: published_at, publishes; by claim: attempt .. claim_until, worker; by progress, finish, retry,
    cancel: the rest. `queued_at` is set when the job becomes queued,
    and kept when that is because its worker was lost or gave it back.
    """

    state: str
    created_at: int
    queued_at: int | None = None
    published_at: int | None = None
    publishes: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    attempt: int = 0  # claims so far
    attempts: str = "[]"  # JSON: [{attempt, worker, started_at_ms, finished_at_ms?, outcome?}]
    retries: int = 0
    crashes: int = 0  # workers lost while they ran it
    worker: str | None = None
    owner: str | None = None
    claim_until: int | None = None
    progress: str | None = None  # JSON: {current, total, unit, message}
    result: str | None = None  # JSON
    error: str | None = None  # JSON: {code, message, remedy, retryable, details, step?}
    artifacts: str = "[]"  # JSON
    cancel_requested_at: int | None = None
    cancel_reason: str | None = None
    steps: tuple[Record, ...] = ()
    done: int = 0
    total: int = 0
    held_by: str | None = None  # why its message is not with the broker: queue_paused, concurrency_limited
    waiting_reason: str | None = None  # as the script says when it is read; see `schemas.WaitingReason`
    queue_position: int | None = None  # how many are before it in its queue
    retried_as: str | None = None  # the latest job that repeats this one
    reused_from: str | None = None  # of a step: the one of an earlier job whose result it has


class _Form(NamedTuple):
    """How a value is a text of the hash. What is None or False is not in it."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


_FORMS = {
    str: _Form(str, str),
    int: _Form(str, int),
    bool: _Form(lambda _: "1", lambda text: text == "1"),
    tuple: _Form(json.dumps, lambda text: tuple(json.loads(text))),
}


def _form(declared: Any) -> _Form:
    """Return the form of a field's type, such as `int | None`."""
    (one,) = (
        [kind for kind in get_args(declared) if kind is not NoneType] if isinstance(declared, UnionType) else [declared]
    )
    return _FORMS[get_origin(one) or one]


_FIELDS = {name: _form(declared) for name, declared in get_type_hints(Record).items() if name != "steps"}
_READS = {name: form.read for name, form in _FIELDS.items()}


def _writer(*names: str) -> Callable[[_Written], dict[str, str]]:
    """Return what gives these fields as the hash has them."""
    values, writes = attrgetter(*names), [_FIELDS[name].write for name in names]

    def written(source: _Written) -> dict[str, str]:
        found = zip(names, writes, values(source), strict=True)
        return {name: write(value) for name, write, value in found if value is not None and value is not False}

    return written


_entry_fields = _writer(*(field.name for field in fields(_Written)))
_reused_fields = _writer("state", "result", "artifacts", "attempt", "attempts", "worker", "started_at", "finished_at")


def parse_record(flat: Sequence[str], steps: Iterable[Sequence[str]] = ()) -> Record:
    """Return a record from the flat hash that the script gives; fields that are not for Python are passed over."""
    values: dict[str, Any] = {
        name: read(text) for name, text in zip(flat[::2], flat[1::2], strict=True) if (read := _READS.get(name))
    }
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
