"""The keys under which the jobs of a kind count together: how many run, how often one starts, whether there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from shared.contract.definition import AnyContract


def counted_by(contract: AnyContract) -> set[str]:
    """Return the parameters by whose values `counts_under` tells jobs apart."""
    policies = (contract.spec.concurrency, contract.spec.rate)
    return {name for policy in policies if policy is not None for name in policy.by}


def counts_under(contract: AnyContract, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the entry of a job or step that limit how many run and how often one starts.

    No client can name such a key: it begins with a dot. A parameter that a step is still to be fed counts as null.
    """
    concurrency, rate = contract.spec.concurrency, contract.spec.rate
    found: dict[str, Any] = {}
    if concurrency is not None:
        found |= {
            "concurrency_key": key_of(contract, concurrency.by, params),
            "concurrency_limit": concurrency.limit,
        }
    if rate is not None:
        found |= {"rate_key": key_of(contract, rate.by, params), "rate_interval_ms": rate.interval_ms}
    return found


def key_of(contract: AnyContract, by: Sequence[str], params: Mapping[str, Any]) -> str:
    """Return the key of the jobs of a kind that have these values of the parameters `by`."""
    key = f".{contract.spec.kind}"
    if not by:
        return key
    values = [params.get(name, _default(contract, name)) for name in by]
    return f"{key}:{hashlib.sha256(to_json(values)).hexdigest()[:32]}"


def _default(contract: AnyContract, name: str) -> Any:
    field = contract.model_fields[name]
    return None if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))
