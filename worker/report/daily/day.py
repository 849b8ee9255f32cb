"""The statistics of the jobs of one day. Pure: it takes the ledger's fields of each job, one by one.

A job counts for the day on which it was submitted, with its current state. Percentiles interpolate linearly
between order statistics (Hyndman and Fan, 1996, type 7; NumPy's default).
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from shared.ledger.states import State
from shared.texts import redact

FIELDS = (
    "id", "kind", "queue", "state", "created_at", "queued_at", "started_at", "finished_at", "attempt", "attempts",
    "retries", "options", "error",
)  # fmt: skip
FAILED = frozenset({State.FAILED, State.QUARANTINED})
TRIED = FAILED | {State.SUCCEEDED}
MOST_SLOWEST = 10
FEW = 20  # up to this number of jobs, a day is told job by job
_MOST_CODES = 1_000  # of errors; further codes are counted together
_MOST_MESSAGE = 300
HOUR_MS = 3_600_000


class Percentiles(NamedTuple):
    """Median, 95th and 99th percentile and maximum of some times in seconds, and their number."""

    size: int
    p50: float | None
    p95: float | None
    p99: float | None
    largest: float | None


class Slow(NamedTuple):
    """One of the jobs that ran longest."""

    run_s: float
    id: str
    kind: str
    state: str
    wait_s: float | None


class Ran(NamedTuple):
    """One of the jobs of a day with few."""

    created_at: datetime
    id: str
    kind: str
    state: str
    wait_s: float | None
    run_s: float | None


@dataclass
class ErrorTally:
    """Failures with one code: their number, their kinds, and the last message."""

    code: str
    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    message: str = ""
    job_id: str = ""


@dataclass
class Tally:
    """Counts of the jobs of one kind, one queue, one hour, or all."""

    states: Counter[str] = field(default_factory=Counter)
    retry_count: int = 0
    waits_s: array[float] = field(default_factory=lambda: array("d"))
    runs_s: array[float] = field(default_factory=lambda: array("d"))

    @property
    def job_count(self) -> int:
        """Number of submitted jobs."""
        return self.states.total()

    @property
    def failed_count(self) -> int:
        """Number of failed or quarantined jobs."""
        return sum(self.states[state] for state in FAILED)

    @property
    def failure_ratio(self) -> float | None:
        """Ratio of failed jobs to those that succeeded or failed; None without any."""
        tried = sum(self.states[state] for state in TRIED)
        return self.failed_count / tried if tried else None

    @property
    def waits(self) -> Percentiles:
        """Times that jobs waited for a worker, in seconds."""
        return percentiles(self.waits_s)

    @property
    def runs(self) -> Percentiles:
        """Run times of jobs that succeeded or failed, in seconds."""
        return percentiles(self.runs_s)


@dataclass
class Day:
    """The content of a day's report. `hours` are real hours since midnight: 23 to 25 of them."""

    begin: datetime
    end: datetime
    all: Tally = field(default_factory=Tally)
    kinds: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    queues: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    hours: dict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    errors: dict[str, ErrorTally] = field(default_factory=dict)
    slowest: list[Slow] = field(default_factory=list)
    first: list[Ran] = field(default_factory=list)  # all jobs, if they are `FEW`

    @property
    def is_brief(self) -> bool:
        """Whether the jobs are few enough to show each."""
        return self.all.job_count <= FEW

    @property
    def hour_count(self) -> int:
        """Number of hours between begin and end."""
        return max(1, round((self.end.timestamp() - self.begin.timestamp()) / 3600))

    def add(self, values: Sequence[str | None]) -> None:
        """Count one job, given its `FIELDS`."""
        job = dict(zip(FIELDS, values, strict=True))
        state, created_at = job["state"] or "", _whole(job["created_at"]) or 0
        wait_s, run_s = wait_of(job), run_of(job)
        hour = int((created_at - self.begin.timestamp() * 1000) // HOUR_MS)
        hour = min(max(hour, 0), self.hour_count - 1)
        for tally in (self.all, self.kinds[job["kind"] or ""], self.queues[job["queue"] or ""], self.hours[hour]):
            tally.states[state] += 1
            tally.retry_count += _whole(job["retries"]) or 0
            if wait_s is not None:
                tally.waits_s.append(wait_s)
            if run_s is not None:
                tally.runs_s.append(run_s)
        if len(self.first) < FEW:
            moment = datetime.fromtimestamp(created_at / 1000, self.begin.tzinfo)
            self.first.append(Ran(moment, job["id"] or "", job["kind"] or "", state, wait_s, run_s))
        if run_s is not None:
            slow = Slow(run_s, job["id"] or "", job["kind"] or "", state, wait_s)
            keep = heapq.heappush if len(self.slowest) < MOST_SLOWEST else heapq.heappushpop
            keep(self.slowest, slow)
        if state in FAILED:
            self._count_error(job)

    def _count_error(self, job: dict[str, str | None]) -> None:
        document = _json(job["error"])
        code = str(document.get("code") or "unknown")
        if code not in self.errors and len(self.errors) >= _MOST_CODES:
            code = "(further codes)"
        error = self.errors.setdefault(code, ErrorTally(code))
        error.count += 1
        error.kinds[job["kind"] or ""] += 1
        error.message = redact(str(document.get("message") or ""))[:_MOST_MESSAGE]
        error.job_id = job["id"] or ""


def tallied(begin: datetime, end: datetime, jobs: Iterable[Sequence[str | None]]) -> Day:
    """Return the statistics of `jobs`, each given by its `FIELDS`, in the order of their ids."""
    day = Day(begin, end)
    for values in jobs:
        day.add(values)
    return day


def percentiles(times: Sequence[float]) -> Percentiles:
    """Return the percentiles of `times` in seconds; None for an empty list."""
    if not times:
        return Percentiles(0, None, None, None, None)
    found = np.percentile(np.asarray(times, dtype=np.float64), [50, 95, 99, 100])
    return Percentiles(len(times), *(float(value) for value in found))


def wait_of(job: dict[str, str | None]) -> float | None:
    """Return how long a job waited for a worker before its first attempt, in seconds; None if it has not started.

    The wait starts when the job becomes due: when it was queued or, if it was queued again later, when it was
    submitted or when its `run_at` or `delay_s` was reached.
    """
    started_at, queued_at = _whole(job["started_at"]), _whole(job["queued_at"])
    if started_at is None:
        return None
    since = queued_at if queued_at is not None and queued_at <= started_at else _due_at(job)
    return max(0, started_at - since) / 1000


def run_of(job: dict[str, str | None]) -> float | None:
    """Return the run time of a job that succeeded or failed, in seconds: all attempts without the waits in between.

    For a workflow it is the time from the start of its first step to its end.
    """
    started_at, finished_at = _whole(job["started_at"]), _whole(job["finished_at"])
    if job["state"] not in TRIED or started_at is None or finished_at is None:
        return None
    if (_whole(job["attempt"]) or 0) <= 1:
        return max(0, finished_at - started_at) / 1000
    attempts = _json(job["attempts"])
    spans = [
        int(one["finished_at_ms"]) - int(one["started_at_ms"])
        for one in (attempts if isinstance(attempts, list) else [])
        if "finished_at_ms" in one and "started_at_ms" in one
    ]
    return max(0, sum(spans)) / 1000 if spans else None


def _due_at(job: dict[str, str | None]) -> int:
    created_at, options = _whole(job["created_at"]) or 0, _json(job["options"])
    if isinstance(delay_s := options.get("delay_s"), int | float):
        return created_at + int(delay_s * 1000)
    if isinstance(run_at := options.get("run_at"), str):
        return max(created_at, int(datetime.fromisoformat(run_at).timestamp() * 1000))
    return created_at


def _whole(text: str | None) -> int | None:
    return int(text) if text else None


def _json(text: str | None) -> Any:
    return json.loads(text) if text else {}
