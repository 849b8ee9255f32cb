"""Kinds of installed packages: what a package declares in its pyproject.toml.

    [project.entry-points."celeriac.kinds"]
    acme = "acme.contracts"

    [project.entry-points."celeriac.tasks"]
    acme = "acme.tasks"

The name on the left is the family of the kinds, and a queue: workers with `WORKER_FAMILIES=acme` run them. A kind of
connection is declared with the class of its settings:

    [project.entry-points."celeriac.connections"]
    print_shop = "acme.connections:PrintShop"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata

from shared.contract.families import FAMILIES
from shared.errors import DefinitionError
from shared.texts import by_commas

KINDS, TASKS, CONNECTIONS = "celeriac.kinds", "celeriac.tasks", "celeriac.connections"


def named_in(variable: str, environment: Mapping[str, str] = os.environ, *, default: str = "") -> list[str]:
    """Return the names in a variable, which has them with commas between them."""
    return list(by_commas(environment.get(variable, default)))


@cache
def installed(group: str) -> Mapping[str, str]:
    """Return the modules that installed packages declare in `group`, by family. Raises `DefinitionError`."""
    found = _declared(group, "family", r"[a-z][a-z0-9]*", "lower-case letters and digits")
    for family in found.keys() & FAMILIES.keys():
        raise DefinitionError(
            f"{said_of(found[family])} has the name of a family of the service. Choose another family."
        )
    return {family: point.value for family, point in found.items()}


@cache
def connection_kinds() -> Mapping[str, metadata.EntryPoint]:
    """Return the kinds of connections that installed packages declare, not yet imported. Raises `DefinitionError`."""
    return _declared(CONNECTIONS, "kind", r"[a-z][a-z0-9_]{0,62}", "lower-case letters, digits and '_'")


def said_of(point: metadata.EntryPoint) -> str:
    """Return how messages name an entry point."""
    return f"the entry point {point.name!r} of {point.group} ({point.value})"


def _declared(group: str, what: str, pattern: str, letters: str) -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        if not re.fullmatch(pattern, point.name):
            raise DefinitionError(f"{said_of(point)} is not the name of a {what}. Use {letters}.")
        if found.setdefault(point.name, point).value != point.value:
            raise DefinitionError(
                f"{said_of(point)} is declared by two packages. Rename the {what} of one, or uninstall it."
            )
    return found
