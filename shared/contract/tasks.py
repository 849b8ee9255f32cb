"""The tasks: which function runs which contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from shared.contract.checking.bodies import body_faults
from shared.contract.spec import Spec, refuse
from shared.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Task:
    """A contract and the function that runs it."""

    contract: Any
    body: Callable[[Any, Any], BaseModel]


_tasks: dict[str, Task] = {}


def declare(contract: Any, spec: Spec, body: Any) -> None:
    """Declare that the function `body` runs `contract`. Raises `DefinitionError` if it cannot, or if another does."""
    if not inspect.isroutine(body):
        raise DefinitionError(
            f"{body!r} cannot be the task of {spec.kind}: it is not a function. "
            f"Write a function of a job ({contract.__name__}) and a run that returns {spec.result.__name__}."
        )
    refuse(body, body_faults(contract, spec.result, body))
    known = _tasks.get(spec.kind)
    if known is not None and _name(known.body) != _name(body):
        raise DefinitionError(
            f"{spec.kind} already has the task {_name(known.body)}. "
            "A contract has one task; give the other function another contract."
        )
    _tasks[spec.kind] = Task(contract, body)


def tasks() -> Mapping[str, Task]:
    """Return the declared tasks by kind."""
    return dict(_tasks)


def _name(body: Any) -> str:
    return f"{body.__module__}.{body.__qualname__}"
