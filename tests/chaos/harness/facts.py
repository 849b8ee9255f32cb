"""What really ran, read from the lines that the bodies wrote (see `tests.chaos.kinds.tracing`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

from tests.chaos.kinds.tracing import TICK_S

SIDE_BY_SIDE_S = 0.5  # a run that thaws needs a moment until it is stopped


@dataclass
class Run:
    """One run of a body. Times are those of the machine's monotonic clock, in seconds."""

    label: str
    worker_pid: int
    seen_at: list[float] = field(default_factory=list)  # its ticks, in order
    end: str = ""  # `ended`, `failed`, or nothing where it was cut off

    def lived_beside(self, other: Run) -> list[float]:
        """Return the ticks of this run while the other one ran."""
        began, last = other.seen_at[0], other.seen_at[-1]
        return [at for at in self.seen_at if began <= at <= last]


class Recovery(NamedTuple):
    """A run that was cut off, and the next of its job, by the machine's monotonic clock."""

    job_id: str
    cut_off_at: float
    began_at: float
    worker_pid: int  # of the next run


Waits = Callable[[int, float, float], float]  # how long a process waited for a CPU, between two moments


@dataclass
class Facts:
    """All runs by the id of their job, in the order in which they began, and when successes were written down."""

    runs: dict[str, list[Run]]
    settled_at: dict[str, float]

    @classmethod
    def read(cls, journal: Path) -> Facts:
        """Read the journal. A line that is just being written is left out."""
        runs: dict[str, dict[tuple[str, str], Run]] = defaultdict(dict)
        settled_at: dict[str, float] = {}
        text = journal.read_text() if journal.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            at, what, job_id, attempt, pid, worker_pid, label = line.split(" ")
            if what == "settled":
                settled_at.setdefault(job_id, float(at))
                continue
            run = runs[job_id].setdefault((attempt, pid), Run(label, int(worker_pid)))
            run.seen_at.append(float(at))
            run.end = "" if what in {"began", "alive"} else what
        return cls({job_id: [*made.values()] for job_id, made in runs.items()}, settled_at)

    def by_label(self) -> dict[str, list[Run]]:
        """Return the runs by what the scenario calls them."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.all_runs():
            found[run.label].append(run)
        return found

    def all_runs(self) -> list[Run]:
        """Return the runs of all jobs."""
        return [run for runs in self.runs.values() for run in runs]

    def labels(self, *ends: str) -> set[str]:
        """Return what was run to one of these ends at least once."""
        return {run.label for run in self.all_runs() if run.end in ends}

    def job_ids(self) -> dict[str, set[str]]:
        """Return the ids of the jobs that ran under each label."""
        found: dict[str, set[str]] = defaultdict(set)
        for job_id, runs in self.runs.items():
            for run in runs:
                found[run.label].add(job_id)
        return found

    def run_after_success(self) -> list[str]:
        """Return the jobs that began again although their success was written down."""
        return [
            job_id
            for job_id, at in self.settled_at.items()
            if any(run.seen_at[0] > at for run in self.runs.get(job_id, []))
        ]

    def side_by_side(self, waited_s: Waits = lambda *_: 0.0) -> list[str]:
        """Return the jobs of which two runs lived at the same time.

        A run that thaws has a moment of its worker's time until that stops it.
        """

        def is_beside(one: Run, other: Run) -> bool:
            ticks = one.lived_beside(other)
            both_s = TICK_S * len(ticks)
            return both_s > SIDE_BY_SIDE_S and both_s - waited_s(one.worker_pid, ticks[0], ticks[-1]) > SIDE_BY_SIDE_S

        return [
            job_id
            for job_id, runs in self.runs.items()
            if any(is_beside(one, other) for one, other in combinations(runs, 2))
        ]

    def recoveries(self) -> list[Recovery]:
        """Return each run that was cut off, from its last tick to the next run."""
        found = []
        for job_id, runs in self.runs.items():
            for one, following in pairwise(runs):
                if not one.end:
                    began_at = following.seen_at[0]
                    cut_off_at = max(at for at in one.seen_at if at <= began_at)
                    found.append(Recovery(job_id, cut_off_at, began_at, following.worker_pid))
        return found

    def first_begun_after(self, at: float) -> Run | None:
        """Return the first run that began after `at`."""
        later = [run for run in self.all_runs() if run.seen_at[0] >= at]
        return min(later, key=lambda run: run.seen_at[0], default=None)
