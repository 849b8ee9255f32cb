"""Convert records of the ledger to what clients see."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from api.http.models import at, at_or_none
from api.http.paths import segment
from api.jobs.schemas import (
    Attempt,
    DamagedJob,
    Job,
    JobAccepted,
    JobError,
    JobStep,
    JobSummary,
    Links,
    Progress,
)
from shared.contract.artifacts import Artifact
from shared.contract.catalogue import catalogue
from shared.errors import DamagedRecord
from shared.ledger.records import Accepted, Damaged, Entry, Record
from shared.ledger.states import State
from shared.texts import as_text, finite

_ID = "<id>"  # the place of an id in a text


@contextmanager
def _reading(record: Record) -> Iterator[None]:
    """Raise `DamagedRecord` where a text of a record cannot be parsed."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as failure:
        raise DamagedRecord(record.id, repr(failure)) from failure


def job(record: Record) -> bytes:
    """Return a job with all its fields: the JSON of `Job`, written directly because building the model costs more.

    Raises `DamagedRecord`.
    """
    with _reading(record):
        return _job(record)


def _job(record: Record) -> bytes:
    artifacts = [item for source in (*record.steps, record) for item in json.loads(source.artifacts)]
    values = _summary(record) | {
        "params": json.loads(record.params),
        "options": json.loads(record.options),
        "attempts": [_attempt(item) for item in json.loads(record.attempts)],
        "result": _json(record.result),
        "artifacts": [Artifact.model_validate(_reference(item)) for item in artifacts],
        "steps": [_step(step) for step in record.steps],
    }
    return to_json({name: values[name] for name in Job.model_fields})


def listed(record: Record | Damaged) -> JobSummary | DamagedJob:
    """Return a job as shown in a list."""
    if isinstance(record, Damaged):
        return DamagedJob(id=record.id, detail=record.why)
    try:
        with _reading(record):
            return JobSummary(**_summary(record))
    except DamagedRecord as damaged:
        return DamagedJob(id=record.id, detail=str(damaged))


def accepted(entry: Entry, job_id: str, created_at_ms: int, state: str = "") -> str:
    """Return the response to a submission, the JSON of `JobAccepted`.

    For an idempotent replay, `job_id` is the id of the first submission; for a taken unique key, that of the job that
    has it, and `state` is its state.
    """
    waits = entry.due_at is not None and entry.due_at > created_at_ms
    state = state or (State.SCHEDULED if waits else State.QUEUED)
    return _accepted_text(entry.kind, state, created_at_ms).replace(_ID, job_id)


def batch_accepted(entries: Iterable[Entry], reply: Accepted) -> str:
    """Return the response to a batch, the JSON of `BatchAccepted`."""
    jobs = zip(entries, reply.ids, strict=True)
    return f'{{"jobs":[{",".join(accepted(entry, job_id, reply.created_at_ms) for entry, job_id in jobs)}]}}'


def outcome_headers(reply: Accepted) -> dict[str, str]:
    """Return the headers that say that a submission has made no job, and why."""
    told = {"replayed": "Idempotency-Replayed", "taken": "Job-Existed"}.get(reply.outcome)
    return {told: "true"} if told else {}


@lru_cache(maxsize=64)  # all jobs of a batch, and of one round trip, are accepted at the same time
def _accepted_text(kind: str, state: str, created_at_ms: int) -> str:
    """Return the JSON of `JobAccepted` with `_ID` in the place of the id."""
    created_at = to_json(at(created_at_ms)).decode().strip('"')
    return _accepted_form() % {"id": _ID, "kind": kind, "state": state, "created_at": created_at}


@cache
def _accepted_form() -> str:
    """Return the JSON of `JobAccepted` with a placeholder for each value; no value needs escaping."""
    places: dict[str, Any] = {name: f"%({name})s" for name in JobAccepted.model_fields}
    places["links"] = _links_below("/jobs/%(id)s")
    return JobAccepted.model_construct(**places).model_dump_json(warnings=False)


def links(job_id: str) -> Links:
    """Return the URLs of a job."""
    return _links_below(f"/jobs/{segment(job_id)}")


def _links_below(url: str) -> Links:
    return Links(
        self=url,
        events=f"{url}/events",
        logs=f"{url}/logs",
        artifacts=f"{url}/artifacts",
        cancel=f"{url}/cancel",
        rerun=f"{url}/rerun",
    )


@cache
def _shared(model: type[BaseModel]) -> tuple[Sequence[str], Callable[[Record], Sequence[Any]], Sequence[str]]:
    """Return the fields that `model` and the ledger's record share, a function for their values, and the times."""
    names = [field.name for field in fields(Record) if field.name in model.model_fields]
    return names, attrgetter(*names), [name for name in names if name.endswith("_at")]


def _by_name(model: type[BaseModel], record: Record) -> dict[str, Any]:
    """Return the values of the shared fields. Times, in milliseconds in the ledger, become datetimes."""
    names, values_of, times = _shared(model)
    values = dict(zip(names, values_of(record), strict=True))
    for name in times:
        values[name] = at_or_none(values[name])
    return values


def _summary(record: Record) -> dict[str, Any]:
    return _by_name(JobSummary, record) | {
        "progress": _progress(record),
        "error": _error(record.error),
        "steps_done": record.done,
        "steps_total": record.total,
        "links": links(record.id),
    }


def _step(record: Record) -> JobStep:
    return JobStep(
        **_by_name(JobStep, record)
        | {
            "name": record.step,
            "progress": _progress(record),
            "result": _json(record.result),
            "error": _error(record.error),
        }
    )


def _attempt(item: dict[str, Any]) -> Attempt:
    return Attempt(
        attempt=item["attempt"],
        worker=item["worker"],
        started_at=at(item["started_at_ms"]),
        finished_at=at_or_none(item.get("finished_at_ms")),
        outcome=item.get("outcome"),
    )


def _progress(record: Record) -> Progress | None:
    if record.total:  # a workflow counts its steps
        return Progress(
            current=record.done, total=record.total, unit="steps", message="", ratio=record.done / record.total
        )
    if record.progress is None:
        return None
    reported = json.loads(record.progress)
    current, total = finite(reported["current"]) or 0, finite(reported.get("total"))
    if record.state == State.SUCCEEDED and total is not None:  # whatever its body said last
        current = max(current, total)
    return Progress(
        current=current,
        total=total,
        unit=as_text(reported["unit"]),
        message=as_text(reported["message"]),
        ratio=finite(max(0.0, min(current / total, 1.0))) if total else None,
    )


def _error(text: str | None) -> JobError | None:
    """Return the error of a job. A worker of another version may have written any JSON."""
    if text is None:
        return None
    error = json.loads(text)
    details = error["details"] or {}  # Lua writes an empty object as an empty array
    return JobError(
        code=as_text(error["code"]),
        message=as_text(error["message"]),
        remedy=as_text(error["remedy"]),
        retryable=bool(error["retryable"]),
        details=details if isinstance(details, dict) else {"details": details},
        step=error.get("step"),
    )


def _reference(item: dict[str, Any]) -> dict[str, Any]:
    """Return the fields common to all artifacts. A dataset has more; they are in the result of its job."""
    return {name: item[name] for name in Artifact.model_fields}


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def warning(kinds: Iterable[str]) -> str:
    """Return the header `Warning` for the deprecated ones among `kinds`; empty if there are none."""
    deprecated = {kind: catalogue()[kind].spec.deprecated.replace('"', "'") for kind in sorted(kinds)}
    return ", ".join(f'299 celeriac "{kind} is deprecated. {text}"' for kind, text in deprecated.items() if text)
