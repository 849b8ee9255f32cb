"""From the elements that a client names to the steps of a workflow, checked against their contracts."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from shared.contract.catalogue import catalogue
from shared.contract.definition import KIND_PATTERN, AnyContract, Contract
from shared.contract.params import Params
from shared.contract.spelling import did_you_mean
from shared.ledger.ids import uuid7
from shared.workflows.feeding import feeding_problems, takes_many
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
    WorkflowContract,
    lay_out,
)

ELEMENT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
#: Stands in a parameter that is to be fed, while the others are checked.
_TO_BE_FED = "artifact://00000000-0000-0000-0000-000000000000/0/fed-from-upstream"

_MAX_SHARED_BYTES = 16 << 20  # of a map's shared parameters, once for each item

Kind = Annotated[str, Field(pattern=KIND_PATTERN, max_length=128, examples=["etl.extract_data"])]


class Element(Params):
    """A job within a workflow: a step, or a workflow of its own."""

    kind: Kind = Field(description="What kind of job it is; see `GET /job-kinds`.")
    params: dict[str, JsonValue] = Field(
        default={}, description="Its parameters, without those that the steps before it feed."
    )
    name: Annotated[str, Field(pattern=ELEMENT_NAME_PATTERN)] | None = Field(
        default=None, description="Its name within the workflow; default: the verb and noun of its kind."
    )
    may_fail: bool = Field(
        default=False, description="Whether the workflow goes on without its result if it fails. For single steps."
    )


@dataclass
class Elements:
    """Makes nodes of elements. Collects every problem rather than stopping at the first."""

    problems: list[PlanProblem] = field(default_factory=list)
    jobs: list[tuple[Path, Contract[Any]]] = field(default_factory=list)  # what was checked, and where it stands
    _at: Path = ()
    _names: tuple[str, ...] = ()
    _fed: bool = False  # whether something stands before what is being made
    _paths: dict[str, Path] = field(default_factory=dict)  # of steps, by their names
    _count: int = 0

    def check_feeding(self, steps: Sequence[PlannedStep]) -> None:
        """Note the steps that those before them cannot feed. `steps` are all those of the workflow."""
        self.problems += [(self._paths[name], what) for name, what in feeding_problems(steps)]

    def in_turn(self, where: str, elements: Sequence[Element]) -> list[Node]:
        """Return elements each of which follows the one before it."""
        nodes = []
        for index, (element, name) in enumerate(named(elements)):
            with self._inside(where, index, name=name, fed=self._fed or index > 0):
                nodes.append(self._node(element))
        return nodes

    def side_by_side(self, where: str, elements: Sequence[Element]) -> list[Node]:
        """Return elements that follow the same node."""
        nodes = []
        for index, (element, name) in enumerate(named(elements)):
            with self._inside(where, index, name=name, fed=self._fed):
                nodes.append(self._node(element))
        return nodes

    def after(self, where: str, element: Element) -> Node:
        """Return an element that certainly follows another."""
        with self._inside(where, name=element.name or where, fed=True):
            return self._node(element)

    def mapped(
        self, name: str, kind: str, params: dict[str, Any], items: tuple[Any, ...], names: tuple[str, ...] | None
    ) -> MapStep:
        """Return the step that runs `kind` on each of `items`. Items are checked one by one."""
        own = "/".join(self._names) or name
        self._paths[own] = self._at
        contract = self._single(kind)
        step = MapStep(own, contract or Contract, dict(params), items=items, names=names)
        if len(items) * len(json.dumps(params)) > _MAX_SHARED_BYTES:
            self._wrong("they are too large to be repeated for so many items. Put what is large into a file.", "params")
        elif contract is not None:
            for index, one in enumerate(step.item_params()):
                self._parameters(contract, one, (*self._at, "items", index), fed=False)
        return step

    def counted(self, chunks: Chunks) -> Chunks:
        """Return `chunks`, its parts counted as steps."""
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
            self._wrong(f"a workflow has at most {MAX_STEPS} steps. Make several jobs of it, or chunks.")

    def _node(self, element: Element) -> Node:
        if self._count > MAX_STEPS:
            return Group()  # that it is too large is said
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
            self._wrong("a workflow within a workflow cannot be one that may fail; its steps can.", "may_fail")
        if len(self._names) > MAX_DEPTH:
            self._wrong(f"workflows nest at most {MAX_DEPTH} deep.")
            return Group()
        job = self._checked_job(contract, self._with_stand_ins(contract, element.params), "params")
        if job is None:
            return Group()
        if isinstance(job, CanvasContract):
            with self._inside("params"):
                return job.nodes(self)
        try:
            node = job.plan()
        except PlanRefused as refused:
            self.problems += [((*self._at, "params", *path), what) for path, what in refused.problems]
            return Group()
        return self._renamed(node)

    def _renamed(self, node: Node) -> Node:
        """Return the steps of a kind's own plan under this element's name, with what is to be fed left open."""
        match node:
            case StepPlan():
                name = "/".join((*self._names, node.name))
                self._paths[name] = self._at
                self._count_one()
                params = {key: value for key, value in node.params.items() if not _is_open(node.contract, key, value)}
                if _TO_BE_FED in json.dumps(params):
                    self._wrong(f"{name!r} takes it where nothing can be fed. Give it.", "params")
                return replace(node, name=name, params=params)
            case Chunks():
                name = "/".join((*self._names, node.whole.name))
                return self.counted(replace(node, whole=replace(node.whole, name=name)))
            case Chord():
                return Chord([self._renamed(part) for part in node.header], self._renamed(node.body))
            case _:
                return type(node)(*(self._renamed(part) for part in node.nodes))

    def _element_params(self, contract: AnyContract, element: Element) -> dict[str, Any]:
        given = self._with_stand_ins(contract, element.params)
        job = self._checked_job(contract, given, "params")
        if job is None:
            return {}
        params = job.model_dump(mode="json")
        return {name: value for name, value in params.items() if not self._is_open(contract, name, element.params)}

    def _is_open(self, contract: AnyContract, name: str, given: Mapping[str, Any]) -> bool:
        return self._fed and name in contract.fed_parameters() and name not in given

    def _with_stand_ins(self, contract: AnyContract, given: Mapping[str, Any]) -> dict[str, Any]:
        stand_ins = {
            name: [_TO_BE_FED] if takes_many(contract, name) else _TO_BE_FED
            for name in contract.fed_parameters()
            if self._is_open(contract, name, given) and contract.model_fields[name].is_required()
        }
        return {**given, **stand_ins}

    def _checked_job(self, contract: AnyContract, params: dict[str, Any], *at: str) -> Any:
        return self._parameters(contract, params, (*self._at, *at), fed=self._fed)

    def _parameters(self, contract: AnyContract, params: dict[str, Any], at: Path, *, fed: bool) -> Any:
        try:
            job = contract.model_validate_json(json.dumps(params))
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False, include_input=False):
                where, what = _located(params, error["loc"]), error["msg"].removeprefix("Value error, ")
                feedable = error["type"] == "missing" and error["loc"][0] in contract.fed_parameters()
                hint = " No step before it can feed it." if feedable and not fed else ""
                self.problems.append(((*at, *where), f"{contract.spec.kind}: {what}.{hint}"))
            return None
        self.jobs.append((at, job))
        return job

    def _single(self, kind: str) -> AnyContract | None:
        contract = catalogue().get(kind)
        if contract is None:
            self._unknown(kind)
        elif issubclass(contract, WorkflowContract):
            self._wrong(f"{kind} is a workflow; a map runs single kinds. Put it into a group.", "kind")
            contract = None
        self._count_one()
        return contract

    def _unknown(self, kind: str) -> None:
        self._wrong(f"the kind {kind!r} is not known. {did_you_mean(kind, catalogue())}", "kind")


class CanvasContract(WorkflowContract[Any]):
    """Base of the workflows whose steps the client names."""

    @abstractmethod
    def nodes(self, elements: Elements) -> Node:
        """Return the steps; `elements` takes what is wrong with them."""

    def laid_out(self) -> tuple[Node, Sequence[PlannedStep], Elements]:
        """Return the steps with their ids, and what was found in making them: none, where that is a problem."""
        elements = Elements()
        node = self.nodes(elements)
        if elements.problems:  # then there may be more steps than can be laid out
            return node, (), elements
        steps = lay_out(node, uuid7)
        elements.check_feeding(steps)
        return node, steps, elements

    def plan(self) -> Node:
        """Return the steps. Raises `PlanRefused`."""
        node, _, elements = self.laid_out()
        if elements.problems:
            raise PlanRefused(elements.problems)
        return node


def _is_open(contract: AnyContract, name: str, value: Any) -> bool:
    return name in contract.fed_parameters() and value in (_TO_BE_FED, [_TO_BE_FED])


def named(elements: Sequence[Element]) -> Iterator[tuple[Element, str]]:
    """Yield elements with names that are unique among them."""
    taken: set[str] = set()
    highest: dict[str, int] = {}  # by what was wanted: no number up to it is free
    for element in elements:
        wanted = name = element.name or element.kind.partition(".")[2]
        number = highest.get(wanted, 1)
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        highest[wanted] = number
        taken.add(name)
        yield element, name


def _located(params: Any, location: Sequence[str | int]) -> Path:
    """Return a Pydantic error's location as a path in `params`: the tags of unions are no part of it."""
    path: list[str | int] = []
    node = params
    for index, part in enumerate(location):
        if isinstance(node, Mapping) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif index < len(location) - 1:
            continue
        path.append(part)
    return tuple(path)
