"""Repeating a job as a new one: which jobs may be repeated, and as what."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from api.http.models import In
from api.http.problems import FieldError, Problem
from api.jobs.submissions import SUBMISSION, Submission
from shared.contract.options import RunOptions, SubmissionOptions
from shared.ledger.records import Record
from shared.ledger.states import State, StepState

REPEATABLE = tuple(state for state in State if state.is_final and state is not State.SUCCEEDED)
_KEPT = RunOptions.model_fields.keys()  # not when it runs: a repeated job starts now, unless told otherwise


class RetryRequest(In):
    """How to repeat a job. What is left out is as it was."""

    params: dict[str, Any] | None = Field(
        default=None, description="Parameters in place of the job's own; see its kind."
    )
    options: SubmissionOptions | None = Field(
        default=None,
        description="Options in place of the job's own, each by itself. Its `run_at` and `delay_s` are not kept.",
    )
    only_failed: bool = Field(
        default=False,
        description="Of a workflow, run only the steps again that did not succeed; the others' results are used again.",
    )


def refuse_unrepeatable(record: Record) -> None:
    """Raise `Problem` (409) for a job that has not ended, or a step of which has not, or that did succeed."""
    if record.state == State.SUCCEEDED:
        raise Problem(409, "job_succeeded", "The job has succeeded. Submit a new one if you want it again.")
    if record.state not in REPEATABLE:
        raise Problem(409, "job_live", f"The job is {record.state}. Cancel it first, or wait until it has ended.")
    if stopping := [step.step for step in record.steps if step.state == StepState.RUNNING]:
        what = f"Its step {stopping[0]!r} is still being stopped, and would run twice at a time. Try again in a moment."
        raise Problem(409, "job_live", what, headers={"Retry-After": "5"})


def refuse_partial(record: Record, wanted: RetryRequest) -> None:
    """Raise `Problem` (422) where only a part is to run again of what has no parts, or of another workflow."""
    what = None
    if wanted.only_failed and not record.total:
        what = "The job is not a workflow: it has no steps that could be used again. Leave it out."
    elif wanted.only_failed and wanted.params is not None:
        what = "With other parameters the results of its steps would not fit. Give one or the other."
    if what:
        error = FieldError(pointer="/only_failed", message=what)
        raise Problem(422, "invalid_request", f"{error.pointer}: {what}", errors=[error])


def repetition(record: Record, wanted: RetryRequest) -> Submission:
    """Return the submission that repeats `record`, checked like any other. Raises `Problem` (422)."""
    kept: dict[str, Any] = {name: value for name, value in json.loads(record.options).items() if name in _KEPT}
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
