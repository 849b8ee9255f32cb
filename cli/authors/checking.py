"""Check a package of kinds without a service: what gateway and workers would refuse, all at once."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from shared.contract.catalogue import contracts_in
from shared.contract.definition import AnyContract, check_rest
from shared.contract.installed import connection_kinds, said_of
from shared.contract.tasks import tasks
from shared.errors import DefinitionError
from shared.workflows.definition import WorkflowContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_NOT_FOR_USE = ("__main__", "conftest", "tests")


@dataclass
class Found:
    """The contracts of a package by kind, and what is wrong in it."""

    contracts: dict[str, AnyContract] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def body_of(self, kind: str) -> str:
        """Return the name of the function that runs a kind."""
        if issubclass(self.contracts[kind], WorkflowContract):
            return "workflow"
        return _name(tasks()[kind].body) if kind in tasks() else "no task"


def found_in(package: str) -> Found:
    """Import a package with all its modules, except its tests, and check what it defines."""
    found = Found()
    for module in _modules(package, found.faults):
        found.contracts |= {contract.spec.kind: contract for contract in contracts_in(module)}
    for kind, contract in sorted(found.contracts.items()):
        try:
            check_rest(contract)
        except DefinitionError as wrong:
            found.faults.append(str(wrong))
        if kind not in tasks() and not issubclass(contract, WorkflowContract):
            found.faults.append(
                f"{_name(contract)}: the kind {kind!r} has no task. Write a function with @{contract.__name__}.task."
            )
    found.faults += _connection_faults(package)
    if not found.contracts and not found.faults:
        found.faults.append(f"{package} defines no contract. Give the package that has the contracts and the tasks.")
    found.faults = list(dict.fromkeys(found.faults))  # a wrong contract is met by each module that imports it
    return found


def _connection_faults(package: str) -> Iterator[str]:
    """Yield what is wrong with the kinds of connections that an installed package declares."""
    for point in connection_kinds().values():
        if point.module.partition(".")[0] != package:
            continue
        where = said_of(point)
        try:
            declared = point.load()
        except Exception as failure:  # noqa: BLE001 - whatever an author's module raises is what is wrong with it
            yield f"{where} cannot be imported: {type(failure).__name__}: {failure}. Correct it in pyproject.toml."
            continue
        if not (isinstance(declared, type) and issubclass(declared, BaseModel)):
            yield f"{where} is not a Pydantic model. Name the class of the settings."


def _modules(name: str, faults: list[str]) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except DefinitionError as wrong:
        faults.append(str(wrong))
        return
    except Exception as failure:  # noqa: BLE001 - whatever an author's module raises is what is wrong with it
        faults.append(f"{name} cannot be imported: {type(failure).__name__}: {failure}. Run: python -m {name}")
        return
    yield module
    for below in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if below.name not in _NOT_FOR_USE and not below.name.startswith("test_"):
            yield from _modules(f"{name}.{below.name}", faults)


def _name(defined: Any) -> str:
    return f"{defined.__module__}.{defined.__qualname__}"
