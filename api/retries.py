"""Repeating a job as a new one: which jobs may be repeated, and as what."""

from __future__ import annotations

import json
from typing import Any

from api.errors import Problem
from api.schemas import Submission
from api.schemas_operations import RetryRequest
from api.submissions import SUBMISSION
from shared.records import Record
from shared.states import State

REPEATABLE = (State.FAILED, State.CANCELLED, State.EXPIRED, State.QUARANTINED)
_NOT_KEPT = {"run_at", "delay_s"}  # a repeated job starts now, unless told otherwise


def refuse_unrepeatable(record: Record) -> None:
    """Raise `Problem` (409) for a job that has not ended, or that did succeed."""
    if record.state == State.SUCCEEDED:
        raise Problem(409, "job_succeeded", "The job has succeeded. Submit a new one if you want it again.")
    if record.state not in REPEATABLE:
        raise Problem(409, "job_live", f"The job is {record.state}. Cancel it first, or wait until it has ended.")


def repetition(record: Record, wanted: RetryRequest) -> Submission:
    """Return the submission that repeats `record`, checked like any other. Raises `Problem` (422)."""
    kept: dict[str, Any] = {name: value for name, value in json.loads(record.options).items() if name not in _NOT_KEPT}
    given = wanted.options.model_dump(mode="json", exclude_unset=True) if wanted.options else {}
    return SUBMISSION.check(
        json.dumps(
            {
                "kind": record.kind,
                "params": json.loads(record.params) if wanted.params is None else wanted.params,
                "options": kept | given,
            }
        ).encode()
    )
