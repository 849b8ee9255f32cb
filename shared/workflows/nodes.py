"""Workflows: kinds whose jobs have several steps, run on Celery's canvas.

The contract of a workflow has a `plan()`: a tree of steps. Every step gets its id before the first message is
published, so the ledger knows all steps and one id cancels the workflow. A claim returns the results of the previous
steps from the ledger. No result travels through the broker, so the canvas consists of immutable signatures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from shared.contract.definition import AnyContract, Contract, Limits

MAX_STEPS = 1_000
MAX_DEPTH = 8
MOST_NESTED = 150  # chords: a worker needs five of Python's thousand frames to read one within another
MOST_MESSAGE_BYTES = 16 << 20
_STEP_BYTES = 1_024  # of the part of a step in a message, without its parameters; measured: 750

Path = tuple[str | int, ...]
PlanProblem = tuple[Path, str]  # its path in the parameters of the workflow, and the message


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: its contract and its parameters (JSON values; without those fed from upstream)."""

    name: str
    contract: AnyContract
    params: dict[str, Any]
    may_fail: bool = False  # its failure does not fail the job; later steps get null as its result


@dataclass(frozen=True, slots=True)
class MapStep(StepPlan):
    """One step that runs its contract on each item in sequence: Celery's map, or starmap if it has `names`.

    An item is an object of parameters, or a list of values of the parameters `names`; all items share `params`. The
    time limit of the step is that of all items together; `item_time_limit_s` is the hard limit of each.
    """

    items: tuple[Any, ...] = ()
    names: tuple[str, ...] | None = None
    item_time_limit_s: float | None = None

    @property
    def item_limits(self) -> Limits | None:
        """The soft and the hard limit of each item; None if only those of the step hold."""
        return None if self.item_time_limit_s is None else self.contract.spec.limits.within(self.item_time_limit_s)

    def item_params(self) -> list[dict[str, Any]]:
        if self.names is None:
            return [{**self.params, **item} for item in self.items]
        return [{**self.params, **dict(zip(self.names, item, strict=True))} for item in self.items]


def wrong_item_limit(plan: MapStep) -> str:
    """Return what to do about the time limit of the items of `plan`; empty if it is right or not given."""
    limit_s, most_s = plan.item_time_limit_s, plan.contract.spec.limits.hard_s
    if limit_s is None or 0 < limit_s <= most_s:
        return ""
    return (
        f"Use more than 0 and at most {most_s:g} s: the limit of {plan.contract.spec.kind} bounds all items together."
    )


@dataclass(frozen=True, slots=True)
class Expansion(StepPlan):
    """The step after all others of a workflow with `expand()`, which it calls; its parameters are those of the job."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """A starmap in parallel parts of `size` items: Celery's chunks. Each part is a step."""

    whole: MapStep
    size: int

    def parts(self) -> list[MapStep]:
        items, size = self.whole.items, self.size
        return [
            replace(self.whole, name=f"{self.whole.name}_{at // size}", items=items[at : at + size])
            for at in range(0, len(items), size)
        ]


class Chain:
    """Nodes in sequence; each result feeds the next."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes


class Group:
    """Nodes in parallel."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes


class Chord:
    """Nodes in parallel, then a body that gets all their results in order."""

    def __init__(self, header: Sequence[Node] | Group, body: Node) -> None:
        self.header = header.nodes if isinstance(header, Group) else tuple(header)
        self.body = body


Node = StepPlan | Chunks | Chain | Group | Chord
chain, group, chord = Chain, Group, Chord  # as authors write them: under the names that Celery's canvas has


class PlanRefused(Exception):
    """The parameters of a workflow are invalid: each problem is a path in the parameters and a message."""

    def __init__(self, problems: Sequence[PlanProblem]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


def step(name: str, contract: Contract[Any], *, may_fail: bool = False) -> StepPlan:
    """Return the step `name` that runs `contract`."""
    return StepPlan(name, type(contract), contract.model_dump(mode="json", exclude_unset=True), may_fail)


def fed_step(name: str, contract: AnyContract, spec: BaseModel, *, may_fail: bool = False) -> StepPlan:
    """Return the step `name` of `contract` with the parameters `spec`; the previous steps feed the others."""
    return StepPlan(name, contract, spec.model_dump(mode="json", exclude_unset=True), may_fail)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with its id and the ids of the steps that it waits for."""

    id: str
    plan: StepPlan
    after: tuple[str, ...] = field(default=())


def lay_out(node: Node, new_id: Callable[[], str]) -> list[PlannedStep]:
    """Return the steps of `node` in order, each with a new id and the ids of the steps before it."""
    planned: list[PlannedStep] = []

    def place(node: Node, after: tuple[str, ...]) -> tuple[str, ...]:
        match node:
            case StepPlan():
                planned.append(PlannedStep(new_id(), node, after))
                return (planned[-1].id,)
            case Chain():
                for part in node.nodes:
                    after = place(part, after)
                return after
            case Chord():
                return place(node.body, ends_of(node.header, after))
            case _:
                return ends_of(_parallel(node), after)

    def ends_of(nodes: Sequence[Node], after: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(end for part in nodes for end in place(part, after))

    place(node, ())
    return planned


def ends_in_parallel(node: Node) -> bool:
    """Return whether the last steps of `node` are those of a group or of chunks, however many there are."""
    match node:
        case StepPlan():
            return False
        case Chain(nodes=(*_, before, Expansion())):
            return ends_in_parallel(before)  # unless the expansion adds steps
        case Chain():
            return ends_in_parallel(node.nodes[-1])
        case Chord():
            return ends_in_parallel(node.body)
        case _:
            return True


def without_steps(node: object) -> str:
    """Return in words what in a plan has no steps; empty if every part has some."""
    match node:
        case StepPlan():
            return ""
        case Chunks():
            return "" if node.whole.items else "chunks without items"
        case Chain() | Group():
            parts = node.nodes
        case Chord():
            parts = (*node.header, node.body) if node.header else ()
        case _:
            return f"{node if node is None else type(node).__name__} in place of steps"
    return next(
        filter(None, map(without_steps, parts)), "" if parts else f"a {type(node).__name__.lower()} without steps"
    )


def without(node: Node, done: Collection[str]) -> Node | None:
    """Return `node` without the steps named in `done`; None if no step is left."""
    match node:
        case StepPlan():
            return None if node.name in done else node
        case Chain():
            return _joined(Chain, [without(part, done) for part in node.nodes])
        case Chord():
            header = [part for part in (without(part, done) for part in node.header) if part is not None]
            body = without(node.body, done)
            if body is None or not header:
                return body or _joined(Group, [*header])
            return Chord(header, body)
        case _:
            return _joined(Group, [without(part, done) for part in _parallel(node)])


def _joined(shape: Callable[..., Node], nodes: Sequence[Node | None]) -> Node | None:
    left = [node for node in nodes if node is not None]
    return shape(*left) if len(left) > 1 else next(iter(left), None)


def _parallel(node: Group | Chunks) -> Sequence[Node]:
    return node.parts() if isinstance(node, Chunks) else node.nodes


def links(chained: Chain) -> Iterator[Node]:
    """Yield the nodes of a chain, those of a chain among them in its place."""
    for node in chained.nodes:
        yield from links(node) if isinstance(node, Chain) else (node,)


def nested_chords(node: Node) -> int:
    """Return how many chords contain one another in the messages of `node`.

    In a chain, parallel steps that others follow become a chord whose body is the next step, or the next such chord.
    """
    match node:
        case StepPlan():
            return 0
        case Chain():
            most = following = 0
            for at, part in enumerate(reversed(list(links(node)))):
                is_header = at > 0 and isinstance(part, Group | Chunks)
                following = max(nested_chords(part), 1 + following if is_header else 0)
                most = max(most, following)
            return most
        case Chord():
            return 1 + max(map(nested_chords, (*node.header, node.body)))
        case _:
            return max(map(nested_chords, _parallel(node)), default=0)


def message_bytes(node: Node) -> int:
    """Return the approximate maximum of bytes of messages of `node` at one time.

    The message of a step contains all later steps. A workflow is large if many parallel steps precede many later
    ones: the size grows with their product.
    """
    return _weigh(node, 0)[1]


def _weigh(node: Node, carried: int) -> tuple[int, int]:
    """Return the bytes of the steps of `node`, and of its messages if each also contains `carried` bytes."""
    match node:
        case StepPlan():
            own = _step_bytes(node)
            return own, own + carried
        case Chain():
            own = most = 0
            for part in reversed(node.nodes):
                part_own, messages = _weigh(part, carried + own)
                own, most = own + part_own, max(most, messages)
            return own, most
        case Chord():
            body_own, body_messages = _weigh(node.body, carried)
            header_own, header_messages = _weigh_all(node.header, carried + body_own)
            return header_own + body_own, max(header_messages, body_messages)
        case _:
            return _weigh_all(_parallel(node), carried)


def _weigh_all(nodes: Sequence[Node], carried: int) -> tuple[int, int]:
    weights = [_weigh(part, carried) for part in nodes]
    return sum(own for own, _ in weights), sum(messages for _, messages in weights)


def _step_bytes(plan: StepPlan) -> int:
    given = [plan.params, plan.items] if isinstance(plan, MapStep) else plan.params
    return _STEP_BYTES + len(json.dumps(given)) * 4 // 3  # sent as base64
