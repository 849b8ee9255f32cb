"""The step of a workflow that calls its `expand()`, and adds the steps that this returns."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Never

from pydantic import BaseModel, Field

from shared.contract.catalogue import catalogue
from shared.contract.definition import AnyContract
from shared.errors import ClaimLost, TaskFailure
from shared.ledger.client import Ledger
from shared.ledger.records import Entry, Record
from shared.ledger.states import State
from shared.workflows.definition import Results, expands, is_only_planned
from shared.workflows.feeding import MAPPED
from shared.workflows.nodes import PlanRefused, ends_in_parallel
from worker.runtime.children import planner
from worker.runtime.perform import checked
from worker.runtime.run import CancelRequested, Run
from worker.runtime.task import Definition


class Expanded(BaseModel):
    """The result of the step."""

    step_count: int = Field(ge=0, description="Steps that were added.")


class _Refusing(Definition):
    """Refuse a message of another Celery client: the steps of a workflow are planned by the gateway."""

    def perform(self, run: Run, *_: Any) -> str:
        """Raise `TaskFailure`, whatever the parameters are."""
        _refuse(None, run)


class _Expanding(_Refusing):
    """Call `expand()` of the job of a step; its parameters are those of the job, which are not written down twice."""

    def perform(self, run: Run, *delivered: Any) -> str:
        """Add the steps; return their number as JSON text."""
        step = _read(run.ledger, run.job_id)
        if step.job_id is None:
            return super().perform(run, *delivered)
        whole = _read(run.ledger, step.job_id)
        return _expand(checked(self.contract, json.loads(whole.params)), run, step, whole).model_dump_json()


def _refuse(_: Any, run: Run) -> Never:
    raise TaskFailure(
        "workflow_without_steps",
        f"{run.kind} is a workflow, and this message is not one of its steps.",
        remedy="Submit it to the gateway, which plans its steps: POST /jobs, celeriac.client or `celeriac submit`.",
    )


def expansions(families: Collection[str]) -> list[Definition]:
    """Return the tasks of the workflows of these families that add steps while they run."""
    return [_Expanding(contract, _refuse) for contract in catalogue().families(families).values() if expands(contract)]


def refusals() -> list[Definition]:
    """Return a task for each workflow that has none, of any family: its message may be sent to any queue."""
    return [_Refusing(contract, _refuse) for contract in catalogue().values() if is_only_planned(contract)]


def _expand(job: Any, run: Run, step: Record, whole: Record) -> Expanded:
    before = whole.steps[: [one.id for one in whole.steps].index(step.id)]  # an earlier attempt may have added others
    try:
        found = job.expanded(_results(run.ledger, before), {one.step for one in (*before, step)})
    except PlanRefused as refused:
        raise TaskFailure("invalid_expansion", str(refused), remedy="Fix expand(), or the steps before it.") from None
    steps: Sequence[Entry] = ()
    counts_steps = False
    if found is not None:
        node, planned = found
        steps = planner().expansion(node, planned, step, whole, _reused(run.ledger, whole))
        counts_steps = ends_in_parallel(node)
    if not run.ledger.expand(run.job_id, token=run.token, steps=steps, counts_steps=counts_steps):
        raise CancelRequested(f"{whole.id} is cancelled")
    return Expanded(step_count=len(steps))


def _reused(ledger: Ledger, whole: Record) -> Sequence[Record]:
    """Return the steps of the job whose steps this one uses again."""
    earlier: Any = whole
    while earlier.retried_from and any(step.reused_from for step in earlier.steps):
        earlier = ledger.read(earlier.retried_from)
        if not isinstance(earlier, Record):
            break
        if len(earlier.steps) > len(whole.steps):  # it came as far as its expansion
            return earlier.steps
    return ()


def _results(ledger: Ledger, steps: Sequence[Record]) -> Results:
    submitted = {str(step.step): _of_children(ledger, step) for step in steps if step.children}
    return Results({str(step.step): _result_of(step) for step in steps}, submitted)


def _of_children(ledger: Ledger, step: Record) -> dict[str, Any]:
    """Return the results of the children that have not been deleted since."""
    found = (ledger.read(child_id) for child_id in step.children)
    return {str(child.child): _result_of(child) for child in found if isinstance(child, Record)}


def _result_of(ended: Record) -> Any:
    return None if ended.state != State.SUCCEEDED or ended.result is None else _result(ended.kind, ended.result)


def _result(kind: str, text: str) -> BaseModel | list[BaseModel]:
    contract: AnyContract = catalogue()[kind]
    result, given = contract.spec.result, json.loads(text)
    if given.keys() == {MAPPED} and MAPPED not in result.model_fields:
        return [result.model_validate_json(json.dumps(one)) for one in given[MAPPED]]
    return result.model_validate_json(text)


def _read(ledger: Ledger, job_id: str) -> Record:
    found = ledger.read(job_id)
    if not isinstance(found, Record):
        raise ClaimLost(f"{job_id} is deleted")
    return found
