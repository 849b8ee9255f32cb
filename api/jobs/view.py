"""Convert records of the ledger to the models that clients see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import BaseModel

from api.jobs.schemas import (
    Attempt,
    Job,
    JobAccepted,
    JobError,
    JobStep,
    JobSummary,
    Links,
    Progress,
)
from shared.contract.artifacts import Artifact
from shared.ledger.records import Entry, Record
from shared.ledger.states import State
from shared.texts import as_text, finite


def job(record: Record) -> Job:
    """Return a job with all its fields."""
    artifacts = [item for source in (*record.steps, record) for item in json.loads(source.artifacts)]
    return Job(
        **_summary(record)
        | {
            "params": json.loads(record.params),
            "options": json.loads(record.options),
            "attempts": [_attempt(item) for item in json.loads(record.attempts)],
            "result": _json(record.result),
            "artifacts": [Artifact.model_validate(_reference(item)) for item in artifacts],
            "steps": [_step(step) for step in record.steps],
        }
    )


def summary(record: Record) -> JobSummary:
    """Return a job as shown in a list."""
    return JobSummary(**_summary(record))


def accepted(entry: Entry, job_id: str, created_at_ms: int) -> JobAccepted:
    """Return the response to a submission. For an idempotent replay, `job_id` is the id of the first submission."""
    waits = entry.due_at is not None and entry.due_at > created_at_ms
    return JobAccepted(
        id=job_id,
        kind=entry.kind,
        state=State.SCHEDULED if waits else State.QUEUED,
        created_at=at(created_at_ms),
        links=links(job_id),
    )


def links(job_id: str) -> Links:
    """Return the URLs of a job."""
    url = f"/jobs/{job_id}"
    return Links(
        self=url,
        events=f"{url}/events",
        logs=f"{url}/logs",
        artifacts=f"{url}/artifacts",
        cancel=f"{url}/cancel",
        retry=f"{url}/retry",
    )


def at(ms: int) -> datetime:
    """Return the time `ms` milliseconds after 1970, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def at_or_none(ms: int | None) -> datetime | None:
    """Return the time `ms` milliseconds after 1970, in UTC; None for None."""
    return None if ms is None else at(ms)


@cache
def _shared(model: type[BaseModel]) -> Sequence[tuple[str, bool]]:
    """Return the fields that `model` and the ledger's record share: their names, and whether they are times."""
    return [(field.name, field.name.endswith("_at")) for field in fields(Record) if field.name in model.model_fields]


def _by_name(model: type[BaseModel], record: Record) -> dict[str, Any]:
    """Return the values of the shared fields. Times, in milliseconds in the ledger, become datetimes."""
    values = ((name, is_time, getattr(record, name)) for name, is_time in _shared(model))
    return {name: at(value) if is_time and value is not None else value for name, is_time, value in values}


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
    return Progress(
        current=current,
        total=total,
        unit=as_text(reported["unit"]),
        message=as_text(reported["message"]),
        ratio=finite(max(0.0, min(current / total, 1.0))) if total else None,
    )


def _error(text: str | None) -> JobError | None:
    """Return the error of a job. Workers of other versions may have written anything that is JSON."""
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
