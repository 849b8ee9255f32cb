"""Workflows: kinds whose job is several steps, run on Celery's own canvas.

A workflow's contract has a `plan()`: a tree of steps. Every step gets its id before anything is published,
so that the ledger knows them all and one id cancels the whole.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, Signature, chain, chord, group
from pydantic import BaseModel

from shared.contract import AnyContract, Contract, ResultT


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: which contract, with which parameters (JSON values; without the one that is fed from upstream)."""

    name: str
    contract: AnyContract
    params: dict[str, Any]


class Chain:
    """Nodes one after another; each result feeds the next."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes


class Chord:
    """Steps in parallel, then one step that gets all their results in order."""

    def __init__(self, header: Sequence[Node], body: Node) -> None:
        self.header = tuple(header)
        self.body = body


Node = StepPlan | Chain | Chord


class WorkflowContract(Contract[ResultT]):
    """A contract that runs as several steps. Its result is that of the last step."""

    @abstractmethod
    def plan(self) -> Node:
        """Return the steps of this job."""


def step(name: str, contract: Contract[Any]) -> StepPlan:
    """Return the step `name` that runs `contract`."""
    return StepPlan(name, type(contract), contract.model_dump(mode="json"))


def fed_step(name: str, contract: AnyContract, spec: BaseModel) -> StepPlan:
    """Return the step `name` of `contract`, its parameters `spec` but for the one that the step before gives."""
    return StepPlan(name, contract, spec.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with its id and the ids of the steps whose results it needs."""

    id: str
    plan: StepPlan
    after: tuple[str, ...] = field(default=())


def lay_out(node: Node, new_id: Callable[[], str]) -> list[PlannedStep]:
    """Return the steps of `node` in order, with fresh ids and what each one waits for."""
    planned: list[PlannedStep] = []

    def place(node: Node, after: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(node, StepPlan):
            planned.append(PlannedStep(new_id(), node, after))
            return (planned[-1].id,)
        if isinstance(node, Chord):
            ends = tuple(end for part in node.header for end in place(part, after))
            return place(node.body, ends)
        for part in node.nodes:
            after = place(part, after)
        return after

    place(node, ())
    return planned


def to_canvas(
    node: Node, steps: Iterator[PlannedStep], signature: Callable[[PlannedStep], Signature[Any]], app: Celery
) -> Any:
    """Return `node` as a Celery canvas; `steps` are those of `lay_out`, taken in the same order."""
    if isinstance(node, StepPlan):
        return signature(next(steps))
    if isinstance(node, Chord):
        header = [to_canvas(part, steps, signature, app) for part in node.header]
        return chord(group(header, app=app), to_canvas(node.body, steps, signature, app), app=app)
    return chain(*(to_canvas(part, steps, signature, app) for part in node.nodes), app=app)
