"""The jobs that a body submits: children of its job."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from shared.broker.messages import Composer
from shared.broker.settings import broker_settings
from shared.contract.definition import Contract
from shared.contract.options import SubmissionOptions
from shared.errors import TaskFailure
from shared.ledger.ids import uuid7_of
from shared.ledger.records import MOST_CHILDREN, Entry
from shared.workflows.planning import Planner, prepare


@cache
def planner() -> Planner:
    """Return the planner of this process."""
    settings = broker_settings()
    return Planner(settings, Composer(settings))


def child_of(parent_id: str, created_at_ms: int, job: Contract[Any], name: str, options: Mapping[str, Any]) -> Entry:
    """Return the entry of the child `name`. Its id follows from parent and name, so it is the same in each attempt."""
    prepared = prepare(job, SubmissionOptions.model_validate(dict(options)))
    child_id = uuid7_of(created_at_ms, f"{parent_id} {name}")
    return planner().entry(prepared, job_id=child_id, parent=parent_id, child=name)


def too_many_children() -> TaskFailure:
    """Return the failure of a body that submits more than a job may."""
    return TaskFailure(
        "too_many_children",
        f"The job has submitted {MOST_CHILDREN:,} jobs; it may submit no more.",
        remedy="Fix the task: give each child more to do, or let children submit the rest.",
    )
