"""Concurrency keys that only a worker can tell: those of kinds whose contract cannot name them by its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shared.contract.definition import AnyContract
from shared.ledger.client import Ledger
from shared.ledger.records import Place

#: Returns the place of a job with these parameters, which are not checked; None if the body will refuse them.
Finder = Callable[[Ledger, Mapping[str, Any]], Place | None]

_finders: dict[str, Finder] = {}


def places(contract: AnyContract) -> Callable[[Finder], Finder]:
    """Declare that the decorated function tells at each claim what a job of this kind counts under, whoever sent it."""

    def declare(finder: Finder) -> Finder:
        _finders[contract.spec.kind] = finder
        return finder

    return declare


def has_place(contract: AnyContract) -> bool:
    """Return whether jobs of this kind count under a key that a worker tells."""
    return contract.spec.kind in _finders


def place_of(contract: AnyContract, ledger: Ledger, params: Mapping[str, Any]) -> Place | None:
    """Return what a job counts under; None if it is that with which it was accepted."""
    finder = _finders.get(contract.spec.kind)
    return None if finder is None else finder(ledger, params)
