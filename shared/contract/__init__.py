"""What defines a kind of job: the contract, its options, and the files it names.

The names that contracts are written with can be imported from here; `celeriac` has them too. They are loaded when they
are asked for: who needs the options only, such as the command line, does not wait for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry

__all__ = ["Contract", "FedFromUpstream", "Limits", "Retry"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("shared.contract.definition"), name)
