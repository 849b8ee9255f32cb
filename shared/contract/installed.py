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

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata

from shared.contract.families import FAMILIES
from shared.errors import DefinitionError

KINDS, TASKS, CONNECTIONS = "celeriac.kinds", "celeriac.tasks", "celeriac.connections"


@cache
def installed(group: str) -> Mapping[str, str]:
    """Return the modules that installed packages declare in `group`, by family. Raises `DefinitionError`."""
    found: dict[str, str] = {}
    for point in metadata.entry_points(group=group):
        where = f"the entry point {point.name!r} of {group} ({point.value})"
        if not re.fullmatch(r"[a-z][a-z0-9]*", point.name):
            raise DefinitionError(f"{where} is not the name of a family. Use lower-case letters and digits.")
        if point.name in FAMILIES:
            raise DefinitionError(f"{where} has the name of a family of the service. Choose another family.")
        if found.setdefault(point.name, point.value) != point.value:
            raise DefinitionError(f"{where} is declared by two packages. Rename the family of one, or uninstall it.")
    return found


@cache
def connection_kinds() -> Mapping[str, metadata.EntryPoint]:
    """Return the kinds of connections that installed packages declare, not yet imported. Raises `DefinitionError`."""
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=CONNECTIONS):
        where = f"the entry point {point.name!r} of {CONNECTIONS} ({point.value})"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", point.name):
            raise DefinitionError(f"{where} is not the name of a kind. Use lower-case letters, digits and '_'.")
        if found.setdefault(point.name, point).value != point.value:
            raise DefinitionError(f"{where} is declared by two packages. Rename the kind of one, or uninstall it.")
    return found
