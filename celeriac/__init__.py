"""The public names of Celeriac, for writing kinds and tasks in other packages.

    from celeriac import Contract, Limits, Run, TaskFailure, runs

The import is cheap: each name is loaded at its first use. Contracts need only `shared`, so a gateway that imports a
module of contracts loads no worker code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.contract.artifacts import Artifact, ArtifactUri, Dataset, role
    from shared.contract.definition import Concurrency, Contract, FedFromUpstream, Limits, Rate, Retry, Unique
    from shared.contract.names import ConnectionName, connection
    from shared.errors import TaskFailure, TransientFailure
    from shared.workflows.definition import GroupResult, Results, WorkflowContract
    from shared.workflows.nodes import Node, PlanRefused, chain, chord, fed_step, group, step
    from worker.runtime.run import Run
    from worker.runtime.task import runs

_FROM = {
    "Artifact": "shared.contract.artifacts",
    "ArtifactUri": "shared.contract.artifacts",
    "Concurrency": "shared.contract.spec",
    "ConnectionName": "shared.contract.names",
    "Contract": "shared.contract.definition",
    "Dataset": "shared.contract.artifacts",
    "FedFromUpstream": "shared.contract.definition",
    "GroupResult": "shared.workflows.definition",
    "Limits": "shared.contract.definition",
    "Node": "shared.workflows.nodes",
    "PlanRefused": "shared.workflows.nodes",
    "Rate": "shared.contract.spec",
    "Results": "shared.workflows.definition",
    "Retry": "shared.contract.definition",
    "Run": "worker.runtime.run",
    "TaskFailure": "shared.errors",
    "TransientFailure": "shared.errors",
    "Unique": "shared.contract.spec",
    "WorkflowContract": "shared.workflows.definition",
    "chain": "shared.workflows.nodes",
    "chord": "shared.workflows.nodes",
    "connection": "shared.contract.names",
    "fed_step": "shared.workflows.nodes",
    "group": "shared.workflows.nodes",
    "role": "shared.contract.artifacts",
    "runs": "worker.runtime.task",
    "step": "shared.workflows.nodes",
}

__all__ = [
    "Artifact",
    "ArtifactUri",
    "Concurrency",
    "ConnectionName",
    "Contract",
    "Dataset",
    "FedFromUpstream",
    "GroupResult",
    "Limits",
    "Node",
    "PlanRefused",
    "Rate",
    "Results",
    "Retry",
    "Run",
    "TaskFailure",
    "TransientFailure",
    "Unique",
    "WorkflowContract",
    "chain",
    "chord",
    "connection",
    "fed_step",
    "group",
    "role",
    "runs",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_FROM[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
