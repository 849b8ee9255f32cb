"""Versions of a contract: how they are told apart, and how what an earlier one has accepted gets the form of this one.

The fingerprint tells a worker whether a job was accepted by the very contract that it runs, the version which is newer.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from shared.contract.definition import AnyContract, Contract

_DIGITS = 8  # it is stored in each record; two versions of one kind that share them are unlikely enough
_ADDRESSES = re.compile(r"0x[0-9a-f]+|(?<=:)\d{7,}")  # of objects in memory: each process has others


class NotUpgraded(Exception):
    """Parameters do not fit this version of their contract; the text says why, `remedy` what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def has_upgrade(contract: AnyContract) -> bool:
    """Return whether its author says what becomes of parameters of earlier versions."""
    bases = (base for base in contract.__mro__ if base is not Contract)
    return "upgrade" not in contract.model_fields and any("upgrade" in vars(base) for base in bases)


def upgraded(contract: AnyContract, params: Mapping[str, Any], version: int | None) -> dict[str, Any]:
    """Return the parameters of a job that was accepted under `version`, in the form of this contract's version.

    None stands for a message of another Celery client, whose version nobody knows: its parameters stay as they are.
    Raises `NotUpgraded` if this version is older, or if the author's `upgrade` fails.
    """
    kind, own, given = contract.spec.kind, contract.spec.version, dict(params)
    if version is None or version == own:
        return given
    if version > own:
        raise NotUpgraded(
            f"{kind} was accepted under version {version} of its contract, and this is version {own}.",
            f"Deploy version {version} of the contract on the workers of its queue, then rerun the job.",
        )
    if not has_upgrade(contract):
        return given
    remedy = f"Fix upgrade() of {kind}, deploy it on the workers, then rerun the job."
    try:
        found = contract.upgrade(version, given)
    except Exception as failure:  # whatever an author's code raises
        what = f"upgrade() of {kind} from version {version} to {own} raises {type(failure).__name__}: {failure}"
        raise NotUpgraded(what, remedy) from failure
    if not isinstance(found, dict):
        what = f"upgrade() of {kind} from version {version} to {own} returns {type(found).__name__}, not a dict."
        raise NotUpgraded(what, remedy)
    return found


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
