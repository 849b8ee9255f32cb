"""Rerun a job as a new one: which jobs can be rerun, and with what."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from api.http.models import In
from api.http.problems import Problem, wrong_field
from api.jobs.submissions import SUBMISSION, Submission
from shared.contract.catalogue import catalogue
from shared.contract.options import RunOptions, SubmissionOptions
from shared.contract.versions import NotUpgraded, upgraded
from shared.ledger.records import Record
from shared.ledger.states import State

REPEATABLE = tuple(state for state in State if state.is_final and state is not State.SUCCEEDED)
_KEPT = RunOptions.model_fields.keys()  # without `run_at` and `delay_s`: a rerun starts now by default


class RerunRequest(In):
    """Changes for the rerun of a job. Omitted fields keep the values of the job."""

    params: dict[str, Any] | None = Field(
        default=None, description="Parameters that replace those of the job; see its kind."
    )
    options: SubmissionOptions | None = Field(
        default=None,
        description="Options that replace those of the job, one by one. Its `run_at` and `delay_s` are not kept.",
    )
    only_failed: bool = Field(
        default=False,
        description="For a workflow: rerun only the steps that did not succeed, and reuse the results of the others.",
    )


def refuse_unrepeatable(record: Record) -> None:
    """Raise `Problem` (409) if the job succeeded, or if it or one of its steps has not ended."""
    if record.state == State.SUCCEEDED:
        raise Problem(409, "job_succeeded", "The job has succeeded. To run it again, submit a new job.")
    if record.state not in REPEATABLE:
        raise Problem(409, "job_live", f"The job is {record.state}. Cancel it first, or wait until it has ended.")
    if stopping := [step.step for step in record.steps if step.state == State.RUNNING]:
        what = (
            f"The step {stopping[0]!r} is still stopping; a rerun would run it twice at once. Rerun in a few seconds."
        )
        raise Problem(409, "job_live", what, headers={"Retry-After": "5"})


def refuse_partial(record: Record, wanted: RerunRequest) -> None:
    """Raise `Problem` (422) if `only_failed` is set for a job that is not a workflow, or together with `params`."""
    what = None
    if wanted.only_failed and not record.total:
        what = "The job is not a workflow, so it has no steps to reuse. Omit only_failed."
    elif wanted.only_failed and wanted.params is not None:
        what = "The results of the steps do not fit other parameters. Set only_failed or params, not both."
    if what:
        raise wrong_field("/only_failed", what)


def repetition(record: Record, wanted: RerunRequest) -> Submission:
    """Return the submission that reruns `record`, validated like any other. Raises `Problem` (422)."""
    kept: dict[str, Any] = {name: value for name, value in json.loads(record.options).items() if name in _KEPT}
    given = wanted.options.model_dump(mode="json", exclude_unset=True) if wanted.options else {}
    params = _in_this_form(record) if wanted.params is None else wanted.params
    return SUBMISSION.check(
        json.dumps(
            {
                "kind": record.kind,
                "params": params,
                "options": kept | given,
            }
        ).encode()
    )


def _in_this_form(record: Record) -> dict[str, Any]:
    """Return the parameters of a job in the form of the gateway's version of its contract. Raises `Problem` (422)."""
    params: dict[str, Any] = json.loads(record.params)
    contract = catalogue().get(record.kind)
    if contract is None:  # the check says so
        return params
    try:
        return upgraded(contract, params, record.accepted_version)
    except NotUpgraded as refused:
        raise Problem(422, "other_version", f"{refused} {refused.remedy}") from refused
