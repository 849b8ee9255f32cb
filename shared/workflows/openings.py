"""Open parameters, which previous steps feed. The other parameters are checked at submission."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.contract.definition import AnyContract
from shared.workflows.feeding import takes_many
from shared.workflows.nodes import Path, PlanProblem

#: The value of an open parameter while the others are checked.
_TO_BE_FED = "artifact://00000000-0000-0000-0000-000000000000/0/fed-from-upstream"


def left_open(contract: AnyContract, given: Mapping[str, Any]) -> list[str]:
    """Return the missing parameters that previous steps can feed."""
    return [name for name in contract.fed_parameters() if name not in given]


def with_stand_ins(contract: AnyContract, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters, and a stand-in for each required open parameter."""
    stand_ins = {
        name: [_TO_BE_FED] if takes_many(contract, name) else _TO_BE_FED
        for name in left_open(contract, given)
        if contract.model_fields[name].is_required()
    }
    return {**given, **stand_ins}


def without_stand_ins(contract: AnyContract, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without the stand-ins of parameters that previous steps can feed."""
    fed = contract.fed_parameters()
    return {name: value for name, value in params.items() if name not in fed or value not in (_TO_BE_FED, [_TO_BE_FED])}


def has_stand_ins(params: Mapping[str, Any]) -> bool:
    """Return whether the parameters contain a stand-in, at any depth."""
    return _TO_BE_FED in json.dumps(params)


def what_is_wrong(
    contract: AnyContract, params: Mapping[str, Any], invalid: ValidationError, *, fed: bool
) -> Iterator[PlanProblem]:
    """Yield the problems that Pydantic found in the parameters; `fed` is whether there is a previous step."""
    for error in invalid.errors(include_url=False, include_input=False):
        where, what = _located(params, error["loc"]), error["msg"].removeprefix("Value error, ")
        feedable = error["type"] == "missing" and error["loc"][0] in contract.fed_parameters()
        hint = " No previous step can feed it." if feedable and not fed else ""
        yield where, f"{contract.spec.kind}: {what}.{hint}"


def _located(params: Any, location: Sequence[str | int]) -> Path:
    """Return a Pydantic error's location as a path in `params`, without the tags of unions."""
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
