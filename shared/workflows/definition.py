"""The contract of a workflow: a kind whose `plan()` says which steps run."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Never, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.contract.checking.journey import problems_in
from shared.contract.definition import Contract, ResultT, RunT
from shared.contract.spec import Fault, refusal
from shared.ledger.ids import uuid7
from shared.workflows.feeding import feeding_problems
from shared.workflows.nodes import MapStep, Node, PlannedStep, PlanRefused, ends_in_parallel, lay_out, without_steps
from shared.workflows.openings import what_is_wrong, with_stand_ins

logger = logging.getLogger(__name__)


class GroupResult(BaseModel):
    """Outcome of a group's steps. Each result is stored with its step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    succeeded_count: int = Field(ge=0, description="Steps that succeeded.")
    failed_count: int = Field(ge=0, description="Steps that failed and have `may_fail`.")


class WorkflowContract(Contract[ResultT]):
    """A contract that runs as several steps. Its result is that of the last step, or `GroupResult` after parallel ones.

    `plan()` is tried on the examples when the class is defined; if it uses what its module defines further down, when
    the catalogue is loaded.
    """

    @abstractmethod
    def plan(self) -> Node:
        """Return the steps of this job. Raises `PlanRefused` for problems beyond the schema."""

    @classmethod
    def declare_task(cls, body: Callable[[Self, RunT], ResultT]) -> Never:
        """Refuse: what runs are the tasks of the steps."""
        hint = "Write tasks for the kinds of the steps in its plan(), or derive it from Contract."
        raise refusal(body, [(f"{cls.__name__} is a workflow, which has no task", hint)])

    def planned(self) -> Node:
        """Return the steps of `plan()`, none of them empty. Raises `PlanRefused`.

        A plan that fails is refused like wrong parameters: for those that it was given, there is no workflow.
        """
        try:
            node = self.plan()
            empty = without_steps(node)
        except PlanRefused:
            raise
        except Exception as failure:
            logger.exception("the plan of %s failed", self.spec.kind)
            what = f"plan() of {self.spec.kind} fails for these parameters"
            raise PlanRefused([((), f"{what}. Change them, or report it to its author.")]) from failure
        if empty:
            what = f"plan() of {self.spec.kind} gives {empty} for these parameters"
            raise PlanRefused([((), f"{what}. Change them, or report it to its author.")])
        return node

    def laid_out(self) -> tuple[Node, Sequence[PlannedStep]]:
        """Return the steps, and the same in order with their ids. Raises `PlanRefused`."""
        node = self.planned()
        return node, self._steps(node)

    def _steps(self, node: Node) -> Sequence[PlannedStep]:
        steps = lay_out(node, uuid7)
        if faults := list(_step_faults(steps)):
            raise PlanRefused([((), f"plan() of {self.spec.kind} gives {what}. {hint}") for what, hint in faults])
        return steps

    def _faults_when_run(self) -> Iterator[Fault]:
        hint = "Fix plan(), or the example."
        try:
            node = self.plan()
            if empty := without_steps(node):
                yield f"makes plan() give {empty}", "Return a step, Chain, Group or Chord."
                return
            steps = lay_out(node, uuid7)
        except NameError:
            raise
        except PlanRefused as refused:
            yield from ((f"is refused by plan(): {what.rstrip('.')}", hint) for _, what in refused.problems)
        except ValidationError as invalid:
            yield f"makes plan() give a step of {invalid.title} wrong parameters: {problems_in(invalid)}", hint
        except Exception as failure:  # noqa: BLE001 - whatever an author's code raises
            yield f"makes plan() raise {type(failure).__name__}: {str(failure) or 'no text'}", hint
        else:
            yield from ((f"makes plan() give {what}", hint) for what, hint in _step_faults(steps))
            yield from _parameter_faults(steps)
            if ends_in_parallel(node) and not _is_outcome_of_a_group(self.spec.result):
                yield (
                    f"makes plan() end in parallel steps, whose result is not {self.spec.result.__name__}",
                    "Derive it from WorkflowContract[GroupResult], or end with one step.",
                )


def _is_outcome_of_a_group(result: type[BaseModel]) -> bool:
    try:
        result.model_validate_json('{"succeeded_count": 1, "failed_count": 1}')
    except ValidationError:
        return False
    return True


def _step_faults(steps: Sequence[PlannedStep]) -> Iterator[Fault]:
    for name, count in Counter(step.plan.name for step in steps).items():
        if count > 1:
            yield f"{count} steps the name {name!r}", "Give each another name."
    for step in steps:
        if issubclass(step.plan.contract, WorkflowContract):
            yield f"a workflow as the step {step.plan.name!r}", "Put what its plan() returns in its place."
    for _, problem in feeding_problems(steps):
        what, _, hint = problem.partition(". ")
        yield f"a step that cannot run: {what}", hint


def _parameter_faults(steps: Sequence[PlannedStep]) -> Iterator[Fault]:
    for plan in (step.plan for step in steps):
        for given in plan.item_params() if isinstance(plan, MapStep) else [plan.params]:
            try:
                plan.contract.model_validate_json(json.dumps(with_stand_ins(plan.contract, given)))
            except ValidationError as invalid:
                for where, what in what_is_wrong(plan.contract, given, invalid, fed=True):
                    path = ".".join(map(str, where))
                    yield f"gives the step {plan.name!r} a wrong {path!r}. {what.rstrip('.')}", "Fix plan()."
