"""The catalogue: all contracts of a process, by kind."""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from shared.contract.definition import AnyContract, Contract, check_rest
from shared.contract.installed import KINDS, installed, named_in
from shared.errors import DefinitionError


class Catalogue(Mapping[str, AnyContract]):
    """The contracts of a process, by kind, in alphabetical order.

    A kind that a contract replaces is found, too, but not listed.
    """

    def __init__(self, contracts: Iterable[AnyContract]) -> None:
        self._by_kind = {contract.spec.kind: contract for contract in sorted(contracts, key=lambda c: c.spec.kind)}

        self._by_old_kind = {old: contract for contract in self.values() for old in contract.spec.replaces}

    def submitted(self) -> Catalogue:
        """Return the kinds that clients submit, without those that are only steps of workflows."""
        return Catalogue(contract for contract in self.values() if not contract.spec.internal)

    @classmethod
    def load(cls, modules: Iterable[str]) -> Catalogue:
        """Import `modules` (a package with all its modules) and return the contracts defined in them.

        Raises `DefinitionError` if a module does not exist or defines no contract, or if one is wrong.
        """
        found: dict[str, AnyContract] = {}
        for name in modules:
            for module in import_tree(name):
                found |= {contract.spec.kind: contract for contract in contracts_in(module)}
            if not any(is_in(contract, name) for contract in found.values()):
                raise DefinitionError(
                    f"CELERIAC_CONTRACTS: {name!r} defines no contract. Correct the name, or remove it."
                )
        for contract in found.values():
            check_rest(contract)
        return cls(found.values())

    def families(self, names: Iterable[str]) -> Catalogue:
        """Return the part of the catalogue that belongs to these families."""
        wanted = set(names)
        return Catalogue(contract for contract in self.values() if contract.spec.family in wanted)

    def processes(self) -> dict[str, int]:
        """Return how many processes a worker of a queue has, by queue, as far as contracts say so."""
        return {spec.queue: spec.processes for spec in (each.spec for each in self.values()) if spec.processes}

    def __getitem__(self, kind: str) -> AnyContract:
        return self._by_kind.get(kind) or self._by_old_kind[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_kind)

    def __len__(self) -> int:
        return len(self._by_kind)


@lru_cache
def catalogue() -> Catalogue:
    """Return the catalogue of this process.

    It has the kinds of the modules in `CELERIAC_CONTRACTS` (default `shared.jobs`) and those of installed packages.
    Raises `DefinitionError`.
    """
    named = named_in("CELERIAC_CONTRACTS", default="shared.jobs")
    found = Catalogue.load(dict.fromkeys((*named, *installed(KINDS).values())))
    for family, module in installed(KINDS).items():
        for contract in found.values():
            if is_in(contract, module) and contract.spec.family != family:
                raise DefinitionError(
                    f"The entry point {family!r} of {KINDS} has the kind {contract.spec.kind}, whose family is "
                    f"{contract.spec.family!r}. Name the entry point like the family."
                )
    return found


def contracts_in(module: types.ModuleType) -> Iterator[AnyContract]:
    """Yield the contracts that a module defines."""
    for value in vars(module).values():
        if _is_contract(value) and value.__module__ == module.__name__:
            yield value


def is_in(contract: AnyContract, name: str) -> bool:
    """Return whether a module, or one below it, defines the contract."""
    return f"{contract.__module__}.".startswith(f"{name}.")


def _is_contract(value: Any) -> typing.TypeGuard[AnyContract]:
    return isinstance(value, type) and issubclass(value, Contract) and "spec" in vars(value)


def import_tree(name: str, *, named_by: str = "CELERIAC_CONTRACTS") -> Iterator[types.ModuleType]:
    """Import a module, of a package all modules, and yield them. Raises `DefinitionError` if one does not exist."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise DefinitionError(
            f"{named_by}: {name!r} cannot be imported: {missing}. Install it or add it to PYTHONPATH."
        ) from missing
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        yield from import_tree(f"{name}.{found.name}", named_by=named_by)
