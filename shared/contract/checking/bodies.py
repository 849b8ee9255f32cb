"""Check the function that is to run a contract: what it takes and gives, as far as it says so."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from shared.contract.spec import Fault


def body_faults(contract: type[BaseModel], result: type[BaseModel], body: Any) -> Iterator[Fault]:
    """Yield why `body` cannot run `contract` with this result. Only plain functions come here."""
    wanted = f"def {body.__name__}(job: {contract.__name__}, run: Run) -> {result.__name__}"
    if inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body):
        yield "it is async, and nothing would await it", f"Write {wanted}, and asyncio.run() what is async in it."
        return
    if inspect.isgeneratorfunction(body):
        yield "it is a generator, whose lines would never run", f"Write {wanted}, without yield."
        return
    signature = inspect.signature(body)
    try:
        signature.bind(contract, None)
    except TypeError as wrong:
        yield f"it is called with a job and a run, and takes {signature}: {wrong}", f"Write {wanted}."
        return
    job_type, run_type, *_ = [*_hints_of(body, signature), None, None]
    if _is_class(job_type) and not issubclass(contract, job_type):
        yield f"its first parameter is of the type {job_type.__name__}", f"Write {wanted}."
    elif _is_class(run_type) and issubclass(run_type, BaseModel):
        yield f"its second parameter is of the type {run_type.__name__}", f"Write {wanted}."
    for returned in _returned(body, signature):
        if _is_class(returned) and not issubclass(returned, result):
            name = "None" if returned is type(None) else returned.__name__
            yield f"it returns {name}, and the result of {contract.__name__} is {result.__name__}", f"Write {wanted}."
            return


def _returned(body: Any, signature: inspect.Signature) -> Iterator[Any]:
    """Yield the types that a function says it returns; those of a union one by one."""
    if signature.return_annotation is signature.empty:
        return
    returned = _evaluated(signature.return_annotation, body)
    union = typing.get_origin(returned) in {typing.Union, types.UnionType}
    for each in typing.get_args(returned) if union else [returned]:
        yield type(None) if each is None else typing.get_origin(each) or each


def _is_class(hint: Any) -> typing.TypeGuard[type]:
    return isinstance(hint, type) and hint is not Any


def _hints_of(body: Any, signature: inspect.Signature) -> Iterator[Any]:
    for parameter in signature.parameters.values():
        yield _evaluated(parameter.annotation, body) if parameter.annotation is not parameter.empty else Any


def _evaluated(annotation: Any, body: Any) -> Any:
    """Return the type that an annotation names; Any if it is known to type checkers only."""
    names: Mapping[str, Any] = getattr(inspect.unwrap(body), "__globals__", {})
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=dict(names))["it"]
    except (NameError, AttributeError):
        return Any
