"""The statistics of a day are those that plain Python computes."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from worker.report.daily.day import FIELDS, MOST_SLOWEST, Day, percentiles, run_of, tallied, wait_of
from worker.report.daily.page import bounds

BERLIN = ZoneInfo("Europe/Berlin")
DAY = date(2026, 11, 21)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def job(**changes: Any) -> list[str | None]:
    """Return a job as the ledger gives it."""
    job: dict[str, Any] = dict.fromkeys(FIELDS)
    job |= {"id": "j", "kind": "etl.load_data", "queue": "etl", "state": "succeeded", "attempt": 1, "options": "{}"}
    job |= {"created_at": ms("2026-11-21T10:00:00+01:00"), "retries": 0, **changes}
    return [None if job[name] is None else str(job[name]) for name in FIELDS]


def as_dict(values: list[str | None]) -> dict[str, str | None]:
    return dict(zip(FIELDS, values, strict=True))


def day_of(*jobs: list[str | None]) -> Day:
    return tallied(*bounds(DAY, BERLIN), jobs)


@pytest.mark.parametrize("count", [1, 2, 3, 100, 997])
def test_percentiles_are_those_of_the_statistics_module(count: int) -> None:
    """Linear interpolation between order statistics, as `statistics.quantiles` with method inclusive."""
    times = [random.Random(count + number).expovariate(0.2) for number in range(count)]  # noqa: S311 - data
    found = percentiles(times)
    cuts = statistics.quantiles(times, n=100, method="inclusive") if count > 1 else times * 99
    assert found[1:] == pytest.approx((cuts[49], cuts[94], cuts[98], max(times)))
    assert found.size == count


def test_no_times_have_no_percentiles() -> None:
    """Nothing is not zero."""
    assert percentiles([]) == (0, None, None, None, None)


def test_counts_and_ratios() -> None:
    """Each job counts once: by state, kind, queue and hour; the failure rate is among those that were tried."""
    chosen = random.Random(3)  # noqa: S311 - data
    states = chosen.choices(["succeeded", "failed", "quarantined", "cancelled", "queued"], [70, 10, 5, 5, 10], k=400)
    kinds = chosen.choices(["etl.load_data", "ml.train_model"], k=400)
    begin, _ = bounds(DAY, BERLIN)
    at = sorted(int(begin.timestamp() * 1000) + chosen.randrange(86_400_000) for _ in range(400))
    day = day_of(*(job(state=s, kind=k, created_at=c) for s, k, c in zip(states, kinds, at, strict=True)))
    assert day.all.states == Counter(states)
    assert {name: tally.states for name, tally in day.kinds.items()} == {
        kind: Counter(s for s, k in zip(states, kinds, strict=True) if k == kind) for kind in set(kinds)
    }
    hours = Counter(datetime.fromtimestamp(one / 1000, BERLIN).hour for one in at)
    assert {hour: tally.job_count for hour, tally in day.hours.items()} == hours
    failed = states.count("failed") + states.count("quarantined")
    assert day.all.failure_ratio == pytest.approx(failed / (failed + states.count("succeeded")))
    assert day.queues["etl"].job_count == 400


def test_the_wait_begins_when_the_job_is_due() -> None:
    """From being queued; after a retry from submission, or the time that was asked for; none before the start."""
    start = ms("2026-11-21T10:00:00+01:00")
    assert wait_of(as_dict(job(queued_at=start + 5_000, started_at=start + 7_500))) == 2.5
    again = {"queued_at": start + 90_000, "started_at": start + 4_000, "attempt": 2}
    assert wait_of(as_dict(job(**again))) == 4.0
    assert wait_of(as_dict(job(**again, options=json.dumps({"delay_s": 3})))) == 1.0
    asked = json.dumps({"run_at": "2026-11-21T09:00:01.500Z"})
    assert wait_of(as_dict(job(**again, options=asked))) == 2.5
    assert wait_of(as_dict(job(queued_at=start))) is None


def test_the_run_time_is_that_of_all_attempts() -> None:
    """Waits between attempts do not count; a workflow has no attempts and runs from start to end."""
    start = ms("2026-11-21T10:00:00+01:00")
    spans = {"started_at": start, "finished_at": start + 60_000}
    attempts = [
        {"attempt": 1, "started_at_ms": start, "finished_at_ms": start + 1_000},
        {"attempt": 2, "started_at_ms": start + 58_500, "finished_at_ms": start + 60_000},
    ]
    assert run_of(as_dict(job(**spans))) == 60.0
    assert run_of(as_dict(job(**spans, attempt=2, attempts=json.dumps(attempts)))) == 2.5
    assert run_of(as_dict(job(**spans, attempt=None, state="failed"))) == 60.0
    assert run_of(as_dict(job(**spans, state="cancelled"))) is None
    assert run_of(as_dict(job(started_at=start, state="running"))) is None


def test_the_slowest_are_kept_and_no_more() -> None:
    """Ten of any number, the longest."""
    start = ms("2026-11-21T10:00:00+01:00")
    runs = random.Random(8).sample(range(1, 100_000), 300)  # noqa: S311 - data
    jobs = (job(id=f"j{n}", started_at=start, finished_at=start + run) for n, run in enumerate(runs))
    day = day_of(*jobs)
    assert sorted(slow.run_s for slow in day.slowest) == [run / 1000 for run in sorted(runs)[-MOST_SLOWEST:]]


def test_errors_are_counted_by_code_and_their_messages_redacted() -> None:
    """The last message stays, without credentials; kinds are counted; odd documents are not a defect."""

    def error(message: str) -> str:
        return json.dumps({"code": "refused", "message": message})

    day = day_of(
        job(state="failed", error=error("one")),
        job(state="failed", error=error("postgresql://me:secret@db refused"), kind="ml.train_model", id="last"),
        job(state="quarantined", error=None),
        job(state="cancelled", error=error("no failure")),
    )
    refused = day.errors["refused"]
    assert (refused.count, refused.kinds, refused.job_id) == (2, {"etl.load_data": 1, "ml.train_model": 1}, "last")
    assert "secret" not in refused.message
    assert day.errors["unknown"].count == 1


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-21", 24)])
def test_days_on_which_clocks_change(day: str, hours: int) -> None:
    """A day is from midnight to midnight of its zone: 23 or 25 hours where clocks change; the last one is its own."""
    begin, end = bounds(date.fromisoformat(day), BERLIN)
    counted = tallied(begin, end, [job(created_at=int(end.timestamp() * 1000) - 1)])
    assert counted.hour_count == hours
    assert list(counted.hours) == [hours - 1]
    assert (begin.hour, end.hour) == (0, 0)
