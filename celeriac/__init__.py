"""The public names of Celeriac, for writing kinds and tasks in other packages.

    from celeriac import Contract, Limits, Run, TaskFailure, runs

The import is cheap: each name is loaded at its first use. Contracts need only `shared`, so a gateway that imports a
module of contracts loads no worker code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.contract.definition import Concurrency, Contract, FedFromUpstream, Limits, Retry
    from shared.errors import TaskFailure, TransientFailure
    from worker.runtime.run import Run
    from worker.runtime.task import runs

_FROM = {
    "Concurrency": "shared.contract.spec",
    "Contract": "shared.contract.definition",
    "FedFromUpstream": "shared.contract.definition",
    "Limits": "shared.contract.definition",
    "Retry": "shared.contract.definition",
    "Run": "worker.runtime.run",
    "TaskFailure": "shared.errors",
    "TransientFailure": "shared.errors",
    "runs": "worker.runtime.task",
}

__all__ = [
    "Concurrency",
    "Contract",
    "FedFromUpstream",
    "Limits",
    "Retry",
    "Run",
    "TaskFailure",
    "TransientFailure",
    "runs",
]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_FROM[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
