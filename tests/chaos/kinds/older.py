"""The contracts of the version before: one optional field less, one kind less."""

from __future__ import annotations

from shared.contract.definition import Contract
from tests.chaos.kinds.specs import LIMITS, MAX_CRASHES, RETRY, Traced, TraceSpec


class LeaveTrace(
    TraceSpec,
    Contract[Traced],
    kind="chaos.leave_trace",
    queue="etl",
    limits=LIMITS,
    retry=RETRY,
    max_crashes=MAX_CRASHES,
    examples=[{"journal": "journal.txt", "label": "first"}],
):
    """Write a line when the run begins, while it lives, and when it ends."""
