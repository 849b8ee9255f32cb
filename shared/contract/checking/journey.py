"""Send examples the way that all take: JSON, parameters, message, parameters; and of a result: JSON, result, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from shared.contract.spec import Fault
from shared.errors import DefinitionError

MAX_JSON_DEPTH = 32  # of the parameters of a job
_UNCHANGED = "A validator that reads its own result must leave it as it is, a serializer must lose nothing"

ContractT = TypeVar("ContractT", bound=BaseModel)


class ExampleFault(DefinitionError):
    """An example does not reach the worker unchanged. The text says what is wrong and what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.fault: Fault = (what, hint)


def arrive(contract: type[ContractT], example: Mapping[str, Any]) -> ContractT:
    """Return the parameters of `example` as a worker gets them.

    Raises `ExampleFault`, or the `NameError` of a validator: what its module defines further down is not there yet.
    """
    text = _json(example, "Write it as a client would.")
    if (depth := _depth(example)) > MAX_JSON_DEPTH:
        raise ExampleFault(
            f"is nested {depth} levels deep, and the gateway takes {MAX_JSON_DEPTH}", "Make the parameters flatter."
        )
    given, arrived = _both_ends(
        contract, text, "into a message", "is accepted, but what is written into the message is refused by the worker"
    )
    for name, before, after in _differences(given, arrived):
        raise ExampleFault(
            f"does not arrive as it was accepted: {name} is {before!r} in the gateway and {after!r} in the worker",
            f"Both read the parameters. {_UNCHANGED}, and a default must be the same each time.",
        )
    return arrived


def come_back(result: type[BaseModel], example: Any) -> None:
    """Check that a body may return `example`, and that whoever reads it gets the same.

    Raises `ExampleFault`, or the `NameError` of a validator.
    """
    text = _json(example, "Write it as clients get it.")
    given, read = _both_ends(result, text, "as JSON", "can be returned, but what is written of it cannot be read")
    for name, before, after in _differences(given, read):
        raise ExampleFault(
            f"does not come back as it was returned: {name} is {before!r} in the task and {after!r} for who reads it",
            f"A result is read again by steps and tests. {_UNCHANGED}.",
        )


def _both_ends(model: type[ContractT], text: str, where: str, refused: str) -> tuple[ContractT, ContractT]:
    """Return what is read of a text, and what is read of the text that is written of that."""
    given = _read(model, text, "is not valid", "Fix the example or the field.")
    hint = "Write values as they are read: look at the serializers and validators."
    return given, _read(model, _written(given, where), refused, hint)


def _differences(one: BaseModel, other: BaseModel) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields of two models of a class whose values differ, with these."""
    for name in type(one).model_fields:
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            yield name, before, after


def _json(example: Any, hint: str) -> str:
    try:
        return json.dumps(example, allow_nan=False)
    except (TypeError, ValueError) as wrong:
        raise ExampleFault(f"is not JSON: {wrong}", hint) from None


def _read(contract: type[ContractT], text: str, otherwise: str, hint: str) -> ContractT:
    try:
        return contract.model_validate_json(text)
    except ValidationError as invalid:
        raise ExampleFault(f"{otherwise}: {problems_in(invalid)}", hint) from None
    except NameError:
        raise
    except Exception as failure:
        raise ExampleFault(
            f"makes a validator raise {type(failure).__name__}: {failure}",
            "Raise ValueError for what a client gave wrong; anything else is an error of the service.",
        ) from failure


def _written(given: BaseModel, where: str) -> str:
    try:
        return given.model_dump_json(exclude_unset=True)
    except (PydanticSerializationError, ValueError, TypeError) as failure:
        raise ExampleFault(
            f"cannot be written {where}: {failure}", "Fix the serializer, or use a type that JSON has."
        ) from failure


def problems_in(invalid: ValidationError) -> str:
    """Return what Pydantic found wrong, on one line."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc']))}: {error['msg']}".removeprefix(": ")
        for error in invalid.errors(include_url=False, include_input=False, include_context=False)
    )


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)
