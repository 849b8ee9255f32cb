"""Build the steps of a workflow from the elements of its parameters, and check them against their contracts."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from shared.contract.catalogue import catalogue
from shared.contract.definition import AnyContract, Contract
from shared.contract.spec import Fault
from shared.contract.spelling import did_you_mean
from shared.ledger.ids import uuid7
from shared.workflows.definition import WorkflowContract, expands
from shared.workflows.elements import Element, named
from shared.workflows.feeding import feeding_problems
from shared.workflows.nodes import (
    MAX_DEPTH,
    MAX_STEPS,
    Chord,
    Chunks,
    Group,
    MapStep,
    Node,
    Path,
    PlannedStep,
    PlanProblem,
    PlanRefused,
    StepPlan,
    lay_out,
    wrong_item_limit,
)
from shared.workflows.openings import has_stand_ins, left_open, what_is_wrong, with_stand_ins, without_stand_ins

_MAX_SHARED_BYTES = 16 << 20  # of the shared parameters of a map, counted once per item


@dataclass
class Elements:
    """Builds nodes from elements, and collects all problems."""

    problems: list[PlanProblem] = field(default_factory=list)
    jobs: list[tuple[Path, Contract[Any]]] = field(default_factory=list)  # the checked jobs, with their paths
    _at: Path = ()
    _names: tuple[str, ...] = ()
    _fed: bool = False  # whether the current element has one before it
    _paths: dict[str, Path] = field(default_factory=dict)  # of the steps, by name
    _count: int = 0

    def check_feeding(self, steps: Sequence[PlannedStep]) -> None:
        """Record the steps whose input the steps before them do not have. `steps` are all steps of the workflow."""
        self.problems += [(self._paths[name], what) for name, what in feeding_problems(steps)]

    def in_turn(self, where: str, elements: Sequence[Element]) -> list[Node]:
        """Return the nodes of elements that run in sequence."""
        nodes = []
        for index, (element, name) in enumerate(named(elements)):
            with self._inside(where, index, name=name, fed=self._fed or index > 0):
                nodes.append(self._node(element))
        return nodes

    def side_by_side(self, where: str, elements: Sequence[Element]) -> list[Node]:
        """Return the nodes of elements that run in parallel."""
        nodes = []
        for index, (element, name) in enumerate(named(elements)):
            with self._inside(where, index, name=name, fed=self._fed):
                nodes.append(self._node(element))
        return nodes

    def after(self, where: str, element: Element) -> Node:
        """Return the node of an element that runs after another."""
        with self._inside(where, name=element.name or where, fed=True):
            return self._node(element)

    def mapped(
        self,
        name: str,
        kind: str,
        params: dict[str, Any],
        items: tuple[Any, ...],
        *,
        names: tuple[str, ...] | None,
        item_time_limit_s: float | None,
    ) -> MapStep:
        """Return the step that runs `kind` on each of `items`. Items are checked one by one."""
        own = "/".join(self._names) or name
        self._paths[own] = self._at
        contract = self._single(kind)
        step = MapStep(
            own, contract or Contract, dict(params), items=items, names=names, item_time_limit_s=item_time_limit_s
        )
        if contract is not None and (what := wrong_item_limit(step)):
            self._wrong(what, "item_time_limit_s")
        if len(items) * len(json.dumps(params)) > _MAX_SHARED_BYTES:
            self._wrong("they are too large for this many items. Put large values into a file.", "params")
        elif contract is not None:
            for index, one in enumerate(step.item_params()):
                self._parameters(contract, one, (*self._at, "items", index), fed=False)
        return step

    def counted(self, chunks: Chunks) -> Chunks:
        """Return `chunks`, after counting its parts as steps."""
        for part in chunks.parts():
            self._paths[part.name] = self._at
            self._count_one()
        return chunks

    @contextmanager
    def _inside(self, *at: str | int, name: str | None = None, fed: bool | None = None) -> Iterator[None]:
        before = self._at, self._names, self._fed
        self._at = (*self._at, *at)
        self._names = (*self._names, name) if name else self._names
        self._fed = self._fed if fed is None else fed
        try:
            yield
        finally:
            self._at, self._names, self._fed = before

    def _wrong(self, message: str, *at: str | int) -> None:
        self.problems.append(((*self._at, *at), message))

    def _count_one(self) -> None:
        self._count += 1
        if self._count == MAX_STEPS + 1:
            self._wrong(f"a workflow may have at most {MAX_STEPS} steps. Split it into several jobs, or use chunks.")

    def _node(self, element: Element) -> Node:
        if self._count > MAX_STEPS:
            return Group()  # the problem is recorded already
        contract = catalogue().get(element.kind)
        if contract is None:
            self._unknown(element.kind)
            return Group()
        if issubclass(contract, WorkflowContract):
            return self._nested(contract, element)
        name = "/".join(self._names)
        self._paths[name] = self._at
        self._count_one()
        return StepPlan(name, contract, self._element_params(contract, element), element.may_fail)

    def _nested(self, contract: type[WorkflowContract[Any]], element: Element) -> Node:
        if element.may_fail:
            self._wrong("a nested workflow does not support it. Set it on the steps.", "may_fail")
        if expands(contract):
            self._wrong(f"{contract.spec.kind} adds steps while it runs. Submit it as a job of its own.", "kind")
            return Group()
        if len(self._names) > MAX_DEPTH:
            self._wrong(f"workflows may be nested at most {MAX_DEPTH} deep. Flatten them.")
            return Group()
        job = self._checked_job(contract, element)
        if job is None:
            return Group()
        if isinstance(job, CanvasContract):
            with self._inside("params"):
                return job.nodes(self)
        try:
            node = job.planned()
        except PlanRefused as refused:
            self.problems += [((*self._at, "params", *path), what) for path, what in refused.problems]
            return Group()
        return self._renamed(node)

    def _renamed(self, node: Node) -> Node:
        """Return the steps of the plan of a kind, named below this element, without the parameters to feed."""
        match node:
            case StepPlan():
                name = "/".join((*self._names, node.name))
                self._paths[name] = self._at
                self._count_one()
                params = without_stand_ins(node.contract, node.params)
                if has_stand_ins(params):
                    self._wrong(f"{name!r} uses it in a place that previous steps cannot feed. Set it.", "params")
                return replace(node, name=name, params=params)
            case Chunks():
                name = "/".join((*self._names, node.whole.name))
                return self.counted(replace(node, whole=replace(node.whole, name=name)))
            case Chord():
                return Chord([self._renamed(part) for part in node.header], self._renamed(node.body))
            case _:
                return type(node)(*(self._renamed(part) for part in node.nodes))

    def _element_params(self, contract: AnyContract, element: Element) -> dict[str, Any]:
        job = self._checked_job(contract, element)
        if job is None:
            return {}
        left = left_open(contract, element.params) if self._fed else ()
        given = job.model_dump(mode="json", exclude_unset=True)
        return {name: value for name, value in given.items() if name not in left}

    def _checked_job(self, contract: AnyContract, element: Element) -> Any:
        params = with_stand_ins(contract, element.params) if self._fed else element.params
        return self._parameters(contract, params, (*self._at, "params"), fed=self._fed)

    def _parameters(self, contract: AnyContract, params: dict[str, Any], at: Path, *, fed: bool) -> Any:
        try:
            job = contract.model_validate_json(json.dumps(params))
        except ValidationError as invalid:
            self.problems += [
                ((*at, *where), what) for where, what in what_is_wrong(contract, params, invalid, fed=fed)
            ]
            return None
        self.jobs.append((at, job))
        return job

    def _single(self, kind: str) -> AnyContract | None:
        contract = catalogue().get(kind)
        if contract is None:
            self._unknown(kind)
        elif issubclass(contract, WorkflowContract):
            self._wrong(f"{kind} is a workflow, but a map runs single kinds. Use a group.", "kind")
            contract = None
        self._count_one()
        return contract

    def _unknown(self, kind: str) -> None:
        self._wrong(f"the kind {kind!r} is unknown. {did_you_mean(kind, catalogue())}", "kind")


class CanvasContract(WorkflowContract[Any]):
    """Base of the workflows whose steps are elements of the parameters."""

    @abstractmethod
    def nodes(self, elements: Elements) -> Node:
        """Return the steps; `elements` collects their problems."""

    def with_elements(self) -> tuple[Node, Sequence[PlannedStep], Elements]:
        """Return node, steps with their ids, and elements; if the elements have problems, there are no steps."""
        elements = Elements()
        node = self.nodes(elements)
        if elements.problems:  # there may be too many steps to lay out
            return node, (), elements
        steps = lay_out(node, uuid7)
        elements.check_feeding(steps)
        return node, steps, elements

    def plan(self) -> Node:
        """Return the steps. Raises `PlanRefused`."""
        node, _, elements = self.with_elements()
        if elements.problems:
            raise PlanRefused(elements.problems)
        return node

    def _faults_when_run(self) -> Iterator[Fault]:
        yield from ()  # its examples name kinds of a catalogue that is being loaded; each submission is checked
