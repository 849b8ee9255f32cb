"""Send a contract's examples the way that every job takes: JSON, parameters, message, and parameters again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from shared.contract.spec import Fault
from shared.errors import DefinitionError

MAX_JSON_DEPTH = 32  # of the parameters of a job

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
    try:
        text = json.dumps(example, allow_nan=False)
    except (TypeError, ValueError) as wrong:
        raise ExampleFault(f"is not JSON: {wrong}", "Write it as a client would.") from None
    if (depth := _depth(example)) > MAX_JSON_DEPTH:
        raise ExampleFault(
            f"is nested {depth} levels deep, and the gateway takes {MAX_JSON_DEPTH}", "Make the parameters flatter."
        )
    given = _read(contract, text, "is not valid", "Fix the example or the field.")
    arrived = _read(
        contract,
        _written(given),
        "is accepted, but what is written into the message is refused by the worker",
        "Write values as they are read: look at the serializers and validators.",
    )
    for name in contract.model_fields:
        before, after = getattr(given, name), getattr(arrived, name)
        if before != after:
            raise ExampleFault(
                f"does not arrive as it was accepted: {name} is {before!r} in the gateway and {after!r} in the worker",
                "Both read the parameters. A validator that reads its own result must leave it as it is, a serializer "
                "must lose nothing, and a default must be the same each time.",
            )
    return arrived


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


def _written(job: BaseModel) -> str:
    try:
        return job.model_dump_json(exclude_unset=True)
    except (PydanticSerializationError, ValueError, TypeError) as failure:
        raise ExampleFault(
            f"cannot be written into a message: {failure}", "Fix the serializer, or use a type that JSON has."
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
