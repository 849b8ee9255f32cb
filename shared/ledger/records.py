"""Types of the calls of the ledger: entries, records, events, claims and other replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import groupby
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from shared.errors import DamagedRecord
from shared.ledger.envelopes import envelope_of, numbered
from shared.ledger.states import STEP_STATES

T = TypeVar("T")
EVENTS_KEPT = 2_000  # of a job and its steps, at least
MOST_CHILDREN = 1_000  # of a job
ROWS_WAITING = 100_000  # rows of the result database for which ended jobs are kept past their retention


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _frozen(cls: type[T]) -> type[T]:
    """Make a dataclass that is frozen for mypy only: creating a really frozen object takes six times as long."""
    return dataclass(slots=True, kw_only=True)(cls)


@_frozen
class _Written:
    """The fields of a job or step that `accept` writes and a read returns.

    Each is a field of the hash in the ledger with the same name; its type determines its text form (see `_FORMS`).
    Times are milliseconds since 1970.
    """

    id: str
    kind: str
    queue: str
    priority: int  # 0..9; 9 is the most urgent
    params: str  # JSON object
    retention_ms: int  # for which the record is kept after the end of the job
    max_crashes: int  # after this number of lost workers it is quarantined
    max_retries: int  # after transient failures
    message: str | None = None  # the Celery message; None for a workflow itself and for steps that Celery publishes
    version: int | None = None  # of the contract, if that is higher than 1
    contract: str | None = None  # fingerprint of the contract that accepted the parameters
    options: str = "{}"  # JSON object, as submitted
    tags: tuple[str, ...] = ()
    due_at: int | None = None  # earliest start
    expires_at: int | None = None  # latest start
    schedule: str | None = None  # id of the schedule that submitted it
    outbox: bool = False  # the broker is not the Redis of the ledger: publish from the outbox
    concurrency_key: str | None = None  # at most `concurrency_limit` jobs of this key run at once
    concurrency_limit: int = 1
    rate_key: str | None = None  # jobs of this key start at least `rate_interval_ms` one after another
    rate_interval_ms: int | None = None
    unique_key: str | None = None  # at most one job with it that has not ended
    unique_replaces: bool = False  # it cancels the one that has its `unique_key`, instead of not being accepted
    retried_from: str | None = None  # the job that this one reruns
    parent: str | None = None  # the job or step whose task submitted this job
    child: str | None = None  # of a job that a task submitted: the name that it has there
    job_id: str | None = None  # of a step: its job
    step: str | None = None  # of a step: its name
    after: tuple[str, ...] | None = None  # of a step: ids of the steps whose results it needs
    before: tuple[str, ...] | None = None  # of a step: ids of the steps that need its result
    may_fail: bool = False  # of a step: its failure does not fail the job
    file_owner: str | None = None  # of an adopted job whose id cannot own files: who does


@_frozen
class Entry(_Written):
    """A job to accept, with its steps."""

    envelope: str | None = None  # of its message, where the caller knows it: see `envelopes.py`
    steps: tuple[Entry, ...] = ()
    counts_steps: bool = False  # of a workflow: its result is the numbers of its steps, even if only one is the last
    reused: Record | None = None  # of a step: the step of an earlier job whose result is reused

    def record(self) -> dict[str, Any]:
        """Return the record as an argument of the script: text fields, without absent ones."""
        record: dict[str, Any] = _entry_fields(self)
        if self.job_id is not None:
            record["waits_for"] = "0"
        if self.reused is not None:
            record |= _reused_fields(self.reused) | {"reused_from": self.reused.id}
        if self.steps:
            reused = sum(step.reused is not None for step in self.steps)
            record |= {
                "steps": json.dumps([step.id for step in self.steps]),
                "total": str(len(self.steps)),
                "done": str(reused),
                "ends": json.dumps([step.id for step in self.steps if not step.before]),
                "with_steps": step_records(self.steps),
            }
            if self.counts_steps:
                record["counts_steps"] = "1"
            if reused:
                record["reuses"] = "1"
        return record


def step_records(steps: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the records of steps that are written together; each waits for those of them that it is after."""
    to_do = {step.id for step in steps if step.reused is None}
    return [step.record() | {"waits_for": str(len(to_do.intersection(step.after or ())))} for step in steps]


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that are accepted all or none, with at most one idempotency key."""

    jobs: Sequence[Entry]
    idempotency_key: str | None = None
    fingerprint: str = ""  # digest of the request; the same key with another digest is a conflict
    idempotency_s: float = 86_400

    def arguments(self, until_ms: int | None = None) -> tuple[dict[str, Any], list[str]]:
        """Return the submission as arguments of the script, valid until `until_ms` by the clock of the server.

        Consecutive plain jobs that are alike share one set of fields; the texts are the values in which they differ.
        """
        arguments: dict[str, Any] = {"jobs": []}
        columns: list[str] = []
        for alike, jobs in groupby(self.jobs, _alike):
            group = list(jobs)
            if alike is None:
                arguments["jobs"] += [job.record() for job in group]
                continue
            fields, envelope = _alike_fields(group[0]), alike[-1]
            if envelope is not None:
                fields["envelope"] = envelope
            arguments["jobs"].append({"alike": fields, "count": len(group)})
            for job in group:
                message = job.message or ""
                columns += (job.id, job.params, message if envelope is None else numbered(message))
        if until_ms is not None:
            arguments["until"] = until_ms
        if self.idempotency_key is not None:
            arguments |= {
                "idempotency_key": self.idempotency_key,
                "fingerprint": self.fingerprint,
                "idempotency_ms": int(self.idempotency_s * 1000),
            }
        return arguments, columns


class Accepted(NamedTuple):
    """The reply to a submission. A conflict has no ids; `gone` has those of jobs that were deleted since.

    `taken`: nothing was written; the job in `ids`, in this `state`, has the unique key of the submitted `refused`.
    """

    outcome: Literal["accepted", "taken", "replayed", "gone", "conflict"]
    ids: tuple[str, ...]
    created_at_ms: int
    state: str = ""
    refused: str = ""


def parse_accepted(submission: Submission, reply: Sequence[Any]) -> Accepted:
    """Return the parsed reply of `accept` to `submission`."""
    outcome, *rest = reply
    if outcome == "taken":
        return Accepted(outcome, (rest[1],), int(rest[0]), *rest[2:])
    ids = rest[1:] if outcome in {"replayed", "gone"} else [job.id for job in submission.jobs]
    return Accepted(outcome, tuple(ids) if rest else (), int(rest[0]) if rest else 0)


@_frozen
class Record(_Written):
    """A job or step in the ledger. Times are milliseconds since 1970.

    Publishing sets published_at and publishes; a claim sets attempt .. claim_until and worker; progress, finish, retry
    and cancel set the others. `queued_at` is set when the job becomes queued, and kept if its worker was lost or
    released it.
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
    crashes: int = 0  # number of workers lost while running it
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
    held_by: str | None = None  # why its message is not in the broker: queue_paused, concurrency_limited, over_rate
    waiting_reason: str | None = None  # computed by the script at a read; see `schemas.WaitingReason`
    queue_position: int | None = None  # number of jobs before it in its queue
    replaced_by: str | None = None  # the job of the same unique key for which it was cancelled
    retried_as: str | None = None  # the latest rerun of this job
    reused_from: str | None = None  # of a step: the step of an earlier job whose result it has
    children: tuple[str, ...] = ()  # of a step before an `expand()`: ids of the jobs that it submitted
    children_failed: bool = False  # some of those did not succeed
    revision: str | None = None  # another one after each change that clients see; None before the first
    listed_as: str | None = None  # of an adopted job: its entry in lists, see `ids.id_listed`

    @property
    def accepted_version(self) -> int | None:
        """The version of the contract under which it was accepted; None if no gateway has accepted it."""
        return None if self.contract is None else self.version or 1

    @property
    def place(self) -> str:
        """The job's entry in lists, by which they are sorted."""
        return self.listed_as or self.id


class _Form(NamedTuple):
    """How a value is stored as text in the hash. None and False are not stored."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


_FORMS = {
    str: _Form(str, str),
    int: _Form(str, int),
    bool: _Form(lambda _: "1", lambda text: text == "1"),
    tuple: _Form(json.dumps, lambda text: tuple(json.loads(text))),
}


def _form(declared: Any) -> _Form:
    """Return the form of the type of a field, such as `int | None`."""
    (one,) = (
        [kind for kind in get_args(declared) if kind is not NoneType] if isinstance(declared, UnionType) else [declared]
    )
    return _FORMS[get_origin(one) or one]


_FIELDS = {name: _form(declared) for name, declared in get_type_hints(Record).items() if name != "steps"}
_READS = {name: form.read for name, form in _FIELDS.items()}
_TIMES = tuple(name for name in _FIELDS if name.endswith("_at"))
_LATEST_MS = 253_402_300_799_000  # the year 9999
_REQUIRED = tuple(field.name for field in fields(Record) if field.default is MISSING)


def _writer(*names: str) -> Callable[[_Written], dict[str, str]]:
    """Return a function that converts these fields to texts of the hash."""
    values, writes = attrgetter(*names), [_FIELDS[name].write for name in names]

    def written(source: _Written) -> dict[str, str]:
        found = zip(names, writes, values(source), strict=True)
        return {name: write(value) for name, write, value in found if value is not None and value is not False}

    return written


_entry_fields = _writer(*(field.name for field in fields(_Written)))
_SHARED = (
    "kind",
    "contract",
    "version",
    "queue",
    "priority",
    "retention_ms",
    "max_crashes",
    "max_retries",
    "options",
    "tags",
)
_alike_fields = _writer(*_SHARED)
_shared = attrgetter(*_SHARED)
_PLAIN = {field.name: field.default for field in fields(Entry)}
_OWN = ("id", "params", "message", "envelope")
_WISHES = tuple(name for name in _PLAIN if name not in {*_SHARED, *_OWN})
_wishes = attrgetter(*_WISHES)
_NO_WISHES = tuple(_PLAIN[name] for name in _WISHES)


def _alike(job: Entry) -> tuple[Any, ...] | None:
    """Return the values that a plain job can share with the jobs next to it, its envelope last; None for other jobs.

    A plain job has no steps, no start time, no files in its parameters, and no other special option.
    """
    if job.message is None or "artifact://" in job.params or _wishes(job) != _NO_WISHES:
        return None
    envelope = job.envelope
    if envelope is None:
        envelope = envelope_of(job.message, job_id=job.id, kind=job.kind, queue=job.queue, params=job.params)
    return (*_shared(job), envelope)


_reused_fields = _writer(
    "state", "result", "artifacts", "attempt", "attempts", "worker", "started_at", "finished_at", "children"
)


def parse_record(flat: Sequence[str], steps: Iterable[Sequence[str]] = ()) -> Record:
    """Return a record from a flat hash of the script; fields that only the script uses are skipped.

    Raises `DamagedRecord`.
    """
    texts = dict(zip(flat[::2], flat[1::2], strict=True))
    job_id = texts.get("id", "")
    if "damage" in texts:
        raise DamagedRecord(job_id, texts["damage"])
    try:
        values: dict[str, Any] = {name: read(text) for name, text in texts.items() if (read := _READS.get(name))}
        _check(values)
        return Record(**values, steps=tuple(parse_record(step) for step in steps if step))
    except (TypeError, ValueError) as failure:
        raise DamagedRecord(job_id, failure) from failure


def _check(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` if these values are not those of a record."""
    if missing := [name for name in _REQUIRED if name not in values]:
        raise ValueError(f"It has no {', '.join(missing)}.")
    if values["state"] not in STEP_STATES:
        raise ValueError(f"{values['state']!r} is not a state.")
    if wrong := [name for name in _TIMES if not 0 <= values.get(name, 0) <= _LATEST_MS]:
        raise ValueError(f"{wrong[0]} is not a time.")


class Damaged(NamedTuple):
    """A job in a list whose record cannot be read, and why."""

    id: str
    why: str


def parse_listed(flat: Sequence[str]) -> Record | Damaged:
    """Return a record in a list."""
    try:
        return parse_record(flat)
    except DamagedRecord as damaged:
        return Damaged(damaged.job_id, str(damaged))


class Gone(NamedTuple):
    """The job existed; its retention has ended."""

    is_deleted: bool = False  # by a client, and its rows in the result database are not deleted yet


class Unknown(NamedTuple):
    """The job never existed."""


class Place(NamedTuple):
    """What a job counts under: at most `limit` jobs with this concurrency key run at once."""

    key: str
    limit: int


class Claim(NamedTuple):
    """The right to run a job once. `token` is a fencing token: later claims have higher ones."""

    token: str
    attempt: int
    retries: int
    max_retries: int
    upstream: str = "[]"  # JSON array: the results of the previous steps, null for a failed one with `may_fail`
    version: int | None = None  # of the contract under which it was accepted, see `Record.accepted_version`


class Refusal(NamedTuple):
    """Why a claim was refused: `busy`, `early`, `held`, `unknown`, or the final state of the job."""

    why: str
    result: str  # the stored JSON result if `why` is `succeeded`


def parse_read(reply: Sequence[Any]) -> Record | Gone | Unknown:
    """Return the parsed reply of `read`."""
    what, *found = reply
    if what == "found":
        return parse_record(found[0], found[1:])
    return Unknown() if what == "unknown" else Gone(is_deleted=what == "deleted")
