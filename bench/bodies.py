"""The task of the kind of `bench.kinds`."""

from __future__ import annotations

from bench.kinds import AddNumbers, Sum
from worker.runtime.task import Run, runs


@runs(AddNumbers)
def add_numbers(job: AddNumbers, run: Run) -> Sum:
    """Add two numbers."""
    del run
    return Sum(total=job.first + job.second)
