"""Contracts as JSON: what another version of a package has to go on accepting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.authors.checking import found_in
from shared.contract.params import schema_of
from shared.contract.versions import has_upgrade
from shared.errors import DefinitionError

if TYPE_CHECKING:
    from shared.contract.definition import AnyContract

Description = dict[str, dict[str, Any]]  # by kind


def described(source: str) -> Description:
    """Return the contracts of a package, or those that a JSON file describes. Raises `DefinitionError`."""
    if source.endswith(".json"):
        return _read(Path(source))
    found = found_in(source)
    if found.faults:
        raise DefinitionError("\n".join(found.faults))
    return {kind: _described(contract) for kind, contract in sorted(found.contracts.items())}


def _read(path: Path) -> Description:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as unreadable:
        raise DefinitionError(f"{path} cannot be read: {unreadable}. Write it with: celeriac contracts show") from None
    if not isinstance(described, dict) or not all(
        isinstance(kind, dict) and {"params_schema", "result_schema"} <= kind.keys() for kind in described.values()
    ):
        raise DefinitionError(f"{path} does not describe contracts. Write it with: celeriac contracts show")
    return described


def _described(contract: AnyContract) -> dict[str, Any]:
    return {
        "version": contract.spec.version,
        "upgrades": has_upgrade(contract),
        "idempotent_by": list(contract.spec.idempotent_by),
        "replaces": list(contract.spec.replaces),
        "params_schema": schema_of(contract),
        "result_schema": schema_of(contract.spec.result, "serialization"),
    }
