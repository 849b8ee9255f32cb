"""The contract of a workflow: a kind whose `plan()` says which steps run, and whose `expand()` may add some later."""

from __future__ import annotations

import inspect
import json
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Never, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.contract.checking.journey import problems_in
from shared.contract.definition import AnyContract, Contract, ResultT, RunT
from shared.contract.spec import Fault, refusal
from shared.ledger.ids import uuid7
from shared.workflows.feeding import feeding_problems
from shared.workflows.nodes import (
    MAX_STEPS,
    MOST_MESSAGE_BYTES,
    MOST_NESTED,
    Chain,
    Expansion,
    MapStep,
    Node,
    PlannedStep,
    PlanRefused,
    ends_in_parallel,
    lay_out,
    message_bytes,
    nested_chords,
    without_steps,
    wrong_item_limit,
)
from shared.workflows.openings import what_is_wrong, with_stand_ins

logger = logging.getLogger(__name__)

EXPANSION = "expand"  # the name of the step that calls `expand()`


class Results(Mapping[str, Any]):
    """The results that `expand()` gets: of each step by its name, and of the jobs that a step has submitted."""

    def __init__(self, steps: Mapping[str, Any], children: Mapping[str, Mapping[str, Any]]) -> None:
        self._steps = steps
        self._children = children

    def __getitem__(self, step: str) -> Any:
        return self._steps[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def children(self, step: str) -> Mapping[str, Any]:
        """Return the result of each job that the step submitted, by its name; None for one that did not succeed.

        Raises `KeyError` for a step that is not one of the job's.
        """
        if step not in self._steps:
            raise KeyError(step)
        return self._children.get(step, {})


class GroupResult(BaseModel):
    """Outcome of a group's steps. Each result is stored with its step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    succeeded_count: int = Field(ge=0, description="Steps that succeeded.")
    failed_count: int = Field(ge=0, description="Steps that failed and have `may_fail`.")


class WorkflowContract(Contract[ResultT]):
    """A contract that runs as several steps. Its result is that of the last step, or `GroupResult` after parallel ones.

    If it has an `expand()`, one more step calls that after those of `plan()`, in a worker, and adds what it returns.

    `plan()` is tried on the examples when the class is defined; if it uses what its module defines further down, when
    the catalogue is loaded.
    """

    @abstractmethod
    def plan(self) -> Node:
        """Return the steps of this job. Raises `PlanRefused` for problems beyond the schema."""

    def expand(self, results: Results) -> Node | None:  # noqa: ARG002 - for those who override it
        """Return the steps that follow those of `plan()`; None if there are none.

        `results` has the result of each step by its name: an object of the result type of its contract, a list of them
        for a map, and None for a step that failed and may. `results.children("x")` has those of the jobs that step x
        has submitted; they have ended, too. It may be called again after a lost worker; what counts is what the first
        attempt to end well returns. It raises `TaskFailure` to fail the job.
        """
        return None

    @classmethod
    def declare_task(cls, body: Callable[[Self, RunT], ResultT]) -> Never:
        """Refuse: what runs are the tasks of the steps."""
        hint = "Write tasks for the kinds of the steps in its plan(), or derive it from Contract."
        raise refusal(body, [(f"{cls.__name__} is a workflow, which has no task", hint)])

    @classmethod
    def _keyword_faults(cls) -> Iterator[Fault]:
        if cls.spec.unique is not None and cls.spec.unique.meanwhile == "replace":
            yield "it is a workflow, whose steps may outlive it when it is replaced", "Leave meanwhile out of unique."
        elif cls.spec.concurrency is not None:
            yield "it is a workflow, which itself takes no process", "Give concurrency to the kinds of its steps."
        if cls.spec.rate is not None:
            yield "it is a workflow, which itself does nothing", "Give rate to the kinds of its steps."

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
        node = _with_expansion(type(self), self.planned())
        steps = lay_out(node, uuid7)
        self._refuse("plan()", _step_faults(steps))
        return node, steps

    def expanded(self, results: Results, taken: Collection[str]) -> tuple[Node, Sequence[PlannedStep]] | None:
        """Return the steps of `expand()`, and the same in order with their ids; None if there are none.

        `taken` are the names of the steps of the job so far. Raises `PlanRefused`.
        """
        node = self.expand(results)
        if node is None:
            self._refuse("plan()", _ending_faults(self.planned(), self.spec.result))
            return None
        if empty := without_steps(node):
            self._refuse("expand()", [(empty, "Return steps, or None if there are none.")])
        steps = lay_out(node, uuid7)
        self._refuse("expand()", [*_step_faults(steps), *_size_faults(node, steps, taken)])
        self._refuse("expand()", _ending_faults(node, self.spec.result))
        return node, steps

    def _refuse(self, method: str, faults: Iterable[Fault]) -> None:
        if problems := [((), f"{method} of {self.spec.kind} gives {what}. {hint}") for what, hint in faults]:
            raise PlanRefused(problems)

    def _faults_when_run(self) -> Iterator[Fault]:
        hint = "Fix plan(), or the example."
        yield from _signature_faults(type(self))
        try:
            node = self.plan()
            if empty := without_steps(node):
                yield f"makes plan() give {empty}", "Return a step, chain, group or chord."
                return
            steps = lay_out(_with_expansion(type(self), node), uuid7)
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
            if not expands(type(self)):
                yield from (
                    (f"makes plan() end in {what}", hint) for what, hint in _ending_faults(node, self.spec.result)
                )


def _ending_faults(node: Node, result: type[BaseModel]) -> Iterator[Fault]:
    if ends_in_parallel(node) and not _is_outcome_of_a_group(result):
        yield (
            f"parallel steps, whose result is not {result.__name__}",
            "Derive it from WorkflowContract[GroupResult], or end with one step.",
        )


def _is_outcome_of_a_group(result: type[BaseModel]) -> bool:
    try:
        result.model_validate_json('{"succeeded_count": 1, "failed_count": 1}')
    except ValidationError:
        return False
    return True


def expands(contract: AnyContract) -> TypeGuard[type[WorkflowContract[Any]]]:
    """Return whether a contract is that of a workflow with an `expand()` of its own."""
    return issubclass(contract, WorkflowContract) and contract.expand is not WorkflowContract.expand


def is_only_planned(contract: AnyContract) -> bool:
    """Return whether a contract is that of a workflow that no worker runs: only the tasks of its steps are run."""
    return issubclass(contract, WorkflowContract) and not expands(contract)


def _with_expansion(contract: AnyContract, node: Node) -> Node:
    return Chain(node, Expansion(EXPANSION, contract, {})) if expands(contract) else node


def _signature_faults(contract: type[WorkflowContract[Any]]) -> Iterator[Fault]:
    hint = "Write def expand(self, results), which returns a step, chain, group, chord or None."
    if any(is_it(contract.expand) for is_it in (inspect.iscoroutinefunction, inspect.isgeneratorfunction)):
        yield "has an expand() that is async or a generator, which nothing would run", hint
        return
    try:
        inspect.signature(contract.expand).bind(None, {})
    except TypeError as wrong:
        yield f"has an expand() that does not take the results: {wrong}", hint


def _size_faults(node: Node, steps: Sequence[PlannedStep], taken: Collection[str]) -> Iterator[Fault]:
    for name in sorted({step.plan.name for step in steps}.intersection(taken)):
        yield f"another step the name {name!r}", "Give each step of a job another name."
    if len(taken) + len(steps) > MAX_STEPS:
        yield (
            f"{len(steps):,} steps to a job that has {len(taken):,}; a job may have at most {MAX_STEPS:,}",
            "Give each step more to do, or use maps.",
        )
    if nested_chords(node) > MOST_NESTED:
        yield f"more than {MOST_NESTED} groups of parallel steps in a row", "Put single steps between them."
    if message_bytes(node) > MOST_MESSAGE_BYTES:
        yield (
            "too many parallel steps before others, each of whose messages has all that follow",
            "Use fewer of either.",
        )


def _step_faults(steps: Sequence[PlannedStep]) -> Iterator[Fault]:
    for name, count in Counter(step.plan.name for step in steps).items():
        if count > 1:
            yield f"{count} steps the name {name!r}", "Give each another name."
    for step in steps:
        if issubclass(step.plan.contract, WorkflowContract) and not isinstance(step.plan, Expansion):
            yield f"a workflow as the step {step.plan.name!r}", "Put what its plan() returns in its place."
        if isinstance(step.plan, MapStep) and (hint := wrong_item_limit(step.plan)):
            limit_s = step.plan.item_time_limit_s
            yield f"the items of the step {step.plan.name!r} a time limit of {limit_s:g} s", hint
    for _, problem in feeding_problems(steps):
        what, _, hint = problem.partition(". ")
        yield f"a step that cannot run: {what}", hint


def _parameter_faults(steps: Sequence[PlannedStep]) -> Iterator[Fault]:
    for plan in (step.plan for step in steps if not isinstance(step.plan, Expansion)):
        for given in plan.item_params() if isinstance(plan, MapStep) else [plan.params]:
            try:
                plan.contract.model_validate_json(json.dumps(with_stand_ins(plan.contract, given)))
            except ValidationError as invalid:
                for where, what in what_is_wrong(plan.contract, given, invalid, fed=True):
                    path = ".".join(map(str, where))
                    yield f"gives the step {plan.name!r} a wrong {path!r}. {what.rstrip('.')}", "Fix plan()."
