"""Feeding: how results of steps become parameters of the next one, and the problems if they cannot."""

from __future__ import annotations

import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from annotated_types import MinLen

from shared.contract.artifacts import Artifact, OwnRole
from shared.contract.definition import AnyContract, FedFromUpstream
from shared.workflows.nodes import Expansion, MapStep, PlannedStep, StepPlan

MAPPED = "results"  # the only field of the result of a map
_SHOWN = 5  # maximum number of steps in a message


def takes_many(contract: AnyContract, parameter: str) -> bool:
    """Return whether a fed parameter takes a list."""
    return typing.get_origin(contract.model_fields[parameter].annotation) is list


def feed(
    contract: AnyContract, params: Mapping[str, Any], upstream: Sequence[Mapping[str, Any] | None]
) -> dict[str, Any]:
    """Return `params` with the missing fed parameters filled in from upstream.

    `upstream` are the JSON results of the previous steps in order, None for a failed step with `may_fail`.
    Raises `ValueError` if they have too few or too many artifacts of a role.
    """
    fed = dict(params)
    for name, marker in contract.fed_parameters().items():
        if name in fed:
            continue
        uris = [uri for result in upstream if result is not None for uri in _uris(result, str(marker.role))]
        if uris or contract.model_fields[name].is_required():
            fed[name] = (
                _all(uris, contract, name, marker)
                if takes_many(contract, name)
                else _only(uris, contract, name, marker)
            )
    return fed


def _uris(result: Mapping[str, Any], role: str) -> Iterator[str]:
    for value in result.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                if item.get("role") == role and "uri" in item:
                    yield str(item["uri"])
                elif result.keys() == {MAPPED}:  # the results of the items of a map
                    yield from _uris(item, role)


def _all(uris: list[str], contract: AnyContract, name: str, marker: FedFromUpstream) -> list[str]:
    least = max(
        (rule.min_length for rule in contract.model_fields[name].metadata if isinstance(rule, MinLen)), default=0
    )
    if len(uris) < least:
        gave = f"gave {len(uris)}" if uris else "gave none"
        raise ValueError(f"{contract.spec.kind} needs a {marker.role} for {name!r}; the previous steps {gave}.")
    return uris


def _only(uris: Sequence[str], contract: AnyContract, name: str, marker: FedFromUpstream) -> str:
    if len(uris) != 1:
        gave = "gave none" if not uris else f"gave {len(uris)}"
        raise ValueError(f"{contract.spec.kind} needs one {marker.role} for {name!r}; the previous steps {gave}.")
    return uris[0]


@cache  # every step of a workflow calls it
def gives(contract: AnyContract) -> Mapping[str, bool]:
    """Return the roles of the artifacts in a result of `contract`, each with whether there may be several.

    The types of its fields declare them: `Dataset` is a dataset, an `Artifact` without a declared role is a file, and
    a mark declares a role of a team's own.
    """
    found: dict[str, bool] = {}
    for field in contract.spec.result.model_fields.values():
        for role, many in _roles_in(field.annotation, field.metadata):
            found[role] = many or role in found
    return found


def _roles_in(annotation: Any, marks: Sequence[Any], *, many: bool = False) -> Iterator[tuple[str, bool]]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _roles_in(arguments[0], [*arguments[1:], *marks], many=many)
    elif origin in {typing.Union, types.UnionType, list}:
        for argument in arguments:
            yield from _roles_in(argument, marks, many=many or origin is list)
    elif isinstance(annotation, type) and issubclass(annotation, Artifact):
        own = next((mark for mark in marks if isinstance(mark, OwnRole)), None)
        yield str(own or _role_of(annotation)), many


def _role_of(kind: type[Artifact]) -> str:
    field = kind.model_fields["role"]
    if kind is Artifact:
        return "file"
    return str(typing.get_args(field.annotation)[0] if field.is_required() else field.default)


def feeding_problems(planned: Sequence[PlannedStep]) -> Iterator[tuple[str, str]]:
    """Yield the name and the problem of each step that the previous steps cannot feed."""
    by_id: Mapping[str, StepPlan] = {step.id: step.plan for step in planned}
    offers: dict[tuple[str, ...], Counter[str]] = {}  # by the ids of the previous steps, which parallel steps share
    for later in planned:
        if isinstance(later.plan, Expansion):
            continue
        contract = later.plan.contract
        for name, marker in contract.fed_parameters().items():
            if name in later.plan.params or not contract.model_fields[name].is_required():
                continue
            if isinstance(later.plan, MapStep) and all(name in params for params in later.plan.item_params()):
                continue
            if later.after not in offers:
                offers[later.after] = _offered(by_id[step_id] for step_id in later.after)
            count = offers[later.after][str(marker.role)]
            takes = f"{later.plan.name!r} ({contract.spec.kind}) takes a {marker.role} for {name!r}"
            if not count:
                yield later.plan.name, f"{takes}; {_in_words([by_id[step_id] for step_id in later.after[:_SHOWN]])}"
            elif count > 1 and not takes_many(contract, name):
                yield later.plan.name, f"{takes}, only one; the previous steps give several. Set {name!r}."


def _offered(before: Iterable[StepPlan]) -> Counter[str]:
    """Return the number of artifacts that the steps give per role; a step that may give several counts as two."""
    offered: Counter[str] = Counter()
    for plan in before:
        for role, many in gives(plan.contract).items():
            offered[role] += 2 if many or isinstance(plan, MapStep) else 1
    return offered


def _in_words(before: Sequence[StepPlan]) -> str:
    if not before:
        return "it has no previous step. Set the parameter."
    offers = {
        f"{plan.name!r} ({plan.contract.spec.kind}) gives {', '.join(sorted(gives(plan.contract))) or 'nothing'}"
        for plan in before
    }
    return f"before it, {'; '.join(sorted(offers))}. Set the parameter, or change the order."
