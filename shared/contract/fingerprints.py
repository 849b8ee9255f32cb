"""The fingerprint of a contract: by it, a worker knows whether a job was accepted by the version that it runs."""

from __future__ import annotations

import hashlib
import inspect
import re
from functools import cache

from shared.contract.definition import AnyContract, Contract

_DIGITS = 8  # it is stored in each record; two versions of one kind that share them are unlikely enough
_ADDRESSES = re.compile(r"0x[0-9a-f]+|(?<=:)\d{7,}")  # of objects in memory: each process has others


@cache
def fingerprint(contract: AnyContract) -> str:
    """Return a digest of what two versions of a contract differ in: what validates, and its source.

    The former is also that of the models it is made of; the latter has what its validators do.
    """
    digest = hashlib.sha256(_ADDRESSES.sub("", repr(contract.__pydantic_core_schema__)).encode())
    for base in contract.__mro__:
        if issubclass(base, Contract) and "spec" in vars(base):
            digest.update(_source(base))
    return digest.hexdigest()[:_DIGITS]


def _source(contract: AnyContract) -> bytes:
    """Return the source of the module that defines it; nothing where there is none, as in an interactive session."""
    module = inspect.getmodule(contract)
    try:
        return inspect.getsource(module).encode() if module is not None else b""
    except OSError:
        return b""
