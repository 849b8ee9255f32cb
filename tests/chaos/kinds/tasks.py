"""The tasks of the traced kinds."""

from __future__ import annotations

from tests.chaos.kinds.contracts import LeaveNewTrace, LeaveTrace
from tests.chaos.kinds.specs import Traced
from tests.chaos.kinds.tracing import leave_trace
from worker.runtime.task import Run, runs


@runs(LeaveTrace)
def leave(job: LeaveTrace, run: Run) -> Traced:
    """Leave a trace."""
    return leave_trace(job, run)


@runs(LeaveNewTrace)
def leave_new(job: LeaveNewTrace, run: Run) -> Traced:
    """Leave a trace."""
    return leave_trace(job, run)
