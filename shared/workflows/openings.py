"""Parameters that are left open, for the steps before to feed: the others are checked all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.contract.definition import AnyContract
from shared.workflows.feeding import takes_many
from shared.workflows.nodes import Path, PlanProblem

#: Stands in a parameter that is to be fed, while the others are checked.
_TO_BE_FED = "artifact://00000000-0000-0000-0000-000000000000/0/fed-from-upstream"


def left_open(contract: AnyContract, given: Mapping[str, Any]) -> list[str]:
    """Return the parameters that the steps before can feed, and that are not given."""
    return [name for name in contract.fed_parameters() if name not in given]


def with_stand_ins(contract: AnyContract, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given, and something for each required parameter that is left open."""
    stand_ins = {
        name: [_TO_BE_FED] if takes_many(contract, name) else _TO_BE_FED
        for name in left_open(contract, given)
        if contract.model_fields[name].is_required()
    }
    return {**given, **stand_ins}


def without_stand_ins(contract: AnyContract, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that something stands in for, where the steps before can feed them."""
    fed = contract.fed_parameters()
    return {name: value for name, value in params.items() if name not in fed or value not in (_TO_BE_FED, [_TO_BE_FED])}


def has_stand_ins(params: Mapping[str, Any]) -> bool:
    """Return whether something in the parameters, however deep, is a stand-in."""
    return _TO_BE_FED in json.dumps(params)


def what_is_wrong(
    contract: AnyContract, params: Mapping[str, Any], invalid: ValidationError, *, fed: bool
) -> Iterator[PlanProblem]:
    """Yield what Pydantic found in parameters of a contract; `fed` is whether a step stands before it."""
    for error in invalid.errors(include_url=False, include_input=False):
        where, what = _located(params, error["loc"]), error["msg"].removeprefix("Value error, ")
        feedable = error["type"] == "missing" and error["loc"][0] in contract.fed_parameters()
        hint = " No step before it can feed it." if feedable and not fed else ""
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
