"""The page of the daily report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from shared.jobs.charts import NumberFormat
from shared.ledger.states import FINAL_STATES, State
from worker.pages.content.document import Document, Heading, Section, Table, Text, Tile, Tiles
from worker.pages.content.shapes import Bars, Figure, Lines, Series
from worker.pages.content.texts import parse
from worker.pages.content.values import ABSENT, duration, printable
from worker.report.daily.day import FAILED, MOST_SLOWEST, TRIED, Day, ErrorTally, Percentiles, Tally

_MOST_KINDS = 100
_CHARTED_KINDS = 15
_MOST_ERRORS = 10
_WHOLE = NumberFormat(style="integer")
_SPAN = NumberFormat(style="duration")
_RATIO = NumberFormat(style="percent")
_OUTCOMES = {
    "Succeeded": [State.SUCCEEDED],
    "Failed": sorted(FAILED),
    "Stopped": sorted(FINAL_STATES - TRIED),
}
_UNFINISHED = "Not finished"
_METHOD = (
    "A job counts for the day on which it was submitted, with its state when this report was made; jobs deleted from "
    "the ledger before that are missing. **Wait**: from when a job was due until its first attempt started. "
    "**Run time**: all attempts of jobs that succeeded or failed, without the waits in between; for a workflow, from "
    "its first step to its end. **Failure rate**: failed and quarantined jobs among those that succeeded or failed. "
    "Percentiles interpolate linearly."
)


def bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the start of `day` in `zone` and of the next day; 23 to 25 hours lie between."""
    begin = datetime(day.year, day.month, day.day, tzinfo=zone)
    after = day + timedelta(days=1)
    return begin, datetime(after.year, after.month, after.day, tzinfo=zone)


def described(day: Day, before: Day, *, made_at: datetime) -> Document:
    """Return the report about `day`, compared with the day `before`; one that has not ended is told as far as it is."""
    zone = str(day.begin.tzinfo)
    now = made_at.astimezone(day.begin.tzinfo) if made_at < day.end else None
    span = f"The service until {now:%H:%M} of a day that has not ended" if now else "The service in one day"
    other = f"{before.begin:%A}, {before.begin.day} {before.begin:%B}" + (f" until {before.end:%H:%M}" if now else "")
    sections = [Section("", [_tiles(day, before)]), *(_contents(day, before, now) if day.all.job_count else [_empty()])]
    return Document(
        title=f"Jobs on {day.begin:%A}, {day.begin.day} {day.begin:%B %Y}",
        subtitle=f"{span} ({zone}), against {other}",
        sections=[*sections, Section("How this is counted", [Text(parse(_METHOD))])],
        made_at=made_at,
        facts=[("Covers", f"{_moment(day.begin)} to {_moment(now or day.end)}")],
    )


def _contents(day: Day, before: Day, now: datetime | None) -> list[Section]:
    errors = sorted(day.errors.values(), key=lambda error: (-error.count, error.code))
    failures: list[Any] = [_error_table(errors[:_MOST_ERRORS], len(errors), day)]
    failed = Section("Failures", failures if errors else [Text(parse("No job failed."))])
    if day.is_brief:
        return [Section("Jobs", [_by_hour(day, now), _job_table(day), _trend_table(day, before)]), failed]
    return [
        Section("Jobs", [_by_hour(day, now), _by_kind(day), _kind_table(day), _trend_table(day, before)]),
        failed,
        Section("Waiting", [_waits_by_hour(day, now), _queue_table(day)]),
        Section("Running", [_runs_by_kind(day), _run_table(day), _slowest_table(day)]),
    ]


def _empty() -> Section:
    return Section("Jobs", [Text(parse("No job was submitted on this day."))])


def _tiles(day: Day, before: Day) -> Tiles:
    now, then = day.all, before.all
    unfinished = _unfinished(now)
    tiles = [
        Tile("Jobs submitted", f"{now.job_count:,}", change=_relative(now.job_count, then.job_count)),
        Tile("Failure rate", _percent(now.failure_ratio), **_points(now.failure_ratio, then.failure_ratio),
             hint=f"{now.failed_count:,} failed" if now.job_count else ""),
        _time_tile("wait", now.waits, then.waits, brief=day.is_brief),
        _time_tile("run time", now.runs, then.runs, brief=day.is_brief),
        Tile("Retries", f"{now.retry_count:,}", change=_relative(now.retry_count, then.retry_count)),
        Tile("Not finished", f"{unfinished:,}", hint="when this report was made"),
    ]  # fmt: skip
    return Tiles(tiles)


def _time_tile(what: str, now: Percentiles, then: Percentiles, *, brief: bool) -> Tile:
    """Return the time that most jobs stayed below; of a few jobs, the longest."""
    label, one, other = f"{what.capitalize()}, 95th percentile", now.p95, then.p95
    if brief:
        label, one, other = f"Longest {what}", now.largest, then.largest
    hint = f"half within {_time(now.p50)}" if now.size > 1 else ""
    return Tile(label, _time(one), **_slower(one, other), hint=hint)


def _outcomes(tallies: Iterable[Tally]) -> list[Series]:
    """Return the number of jobs of each tally per final state; final states without jobs are omitted."""
    found = list(tallies)
    series = [
        Series(name, [float(sum(tally.states[state] for state in states)) for tally in found])
        for name, states in _OUTCOMES.items()
    ]
    series.append(Series(_UNFINISHED, [float(_unfinished(tally)) for tally in found]))
    return [one for one in series if one.name in {"Succeeded", "Failed"} or any(one.numbers)]


def _by_hour(day: Day, now: datetime | None) -> Figure:
    partial, note = _unended(day, now)
    bars = Bars(_hour_names(day), _outcomes(_hours(day)), stacked=True, in_time=True, partial=partial)
    return Figure(
        "Jobs by hour of submission", "bar", bars, day.all.job_count, y_label="jobs", format=_WHOLE, note=note,
        x_label=str(day.begin.tzinfo),
    )  # fmt: skip


def _unended(day: Day, now: datetime | None) -> tuple[frozenset[int], str]:
    """Return the hour in which `now` is, which is not whole, and what a reader should know; nothing for a past day."""
    if now is None:
        return frozenset(), ""
    hour = int((now.timestamp() - day.begin.timestamp()) // 3600)
    return frozenset({hour}), f"Made at {now:%H:%M}: this hour is not whole, and drawn paler; later ones are to come."


def _by_kind(day: Day) -> Figure:
    most = _kinds(day)[:_CHARTED_KINDS]
    note = f"{_CHARTED_KINDS} of {len(day.kinds)} kinds: those with most jobs." if len(most) < len(day.kinds) else ""
    bars = Bars([name for name, _ in most], _outcomes(tally for _, tally in most), stacked=True)
    count = sum(tally.job_count for _, tally in most)
    return Figure("Jobs by kind", "bar", bars, count, note=note, y_label="jobs", x_label="kind", format=_WHOLE)


def _waits_by_hour(day: Day, now: datetime | None) -> Figure:
    partial, note = _unended(day, now)
    waits = [tally.waits for tally in _hours(day)]
    series = [Series("Half within", [one.p50 for one in waits]), Series("95 % within", [one.p95 for one in waits])]
    hours: list[Any] = [
        (day.begin.astimezone(UTC) + timedelta(hours=hour)).astimezone(day.begin.tzinfo).replace(tzinfo=None)
        for hour in range(day.hour_count)
    ]
    lines = Lines(hours, series, partial)
    if len(set(hours)) < len(
        hours
    ):  # an hour occurs twice (clock change): use its number, so that time does not run backwards
        lines = Lines([float(hour) for hour in range(day.hour_count)], series, partial)
    return Figure(
        "Wait for a worker by hour of submission", "line", lines, day.all.waits.size, x_label=str(day.begin.tzinfo),
        y_label="wait", format=_SPAN, note=note,
    )  # fmt: skip


def _runs_by_kind(day: Day) -> Figure:
    most = [(name, tally.runs) for name, tally in _kinds(day) if tally.runs_s][:_CHARTED_KINDS]
    series = [Series("Half within", [one.p50 for _, one in most]), Series("95 % within", [one.p95 for _, one in most])]
    return Figure(
        "Run time by kind", "bar", Bars([name for name, _ in most], series), day.all.runs.size,
        x_label="kind", y_label="run time", format=_SPAN,
    )  # fmt: skip


def _kind_table(day: Day) -> Table:
    labels = ["Kind", "Jobs", "Succeeded", "Failed", "Stopped", _UNFINISHED, "Failure rate"]
    formats = [NumberFormat(), *[_WHOLE] * 5, _RATIO]
    rows = [(printable(name, 80), *_counts(tally), tally.failure_ratio) for name, tally in _kinds(day)]
    totals = ("All", *_counts(day.all), day.all.failure_ratio)
    headings = [Heading(label, form) for label, form in zip(labels, formats, strict=True)]
    return _table("Kinds", headings, rows, totals=totals, limit=_MOST_KINDS)


def _run_table(day: Day) -> Table:
    rows = [(printable(name, 80), *tally.runs) for name, tally in _kinds(day) if tally.runs_s]
    spans = [Heading(name, _SPAN) for name in ("Run time p50", "p95", "p99", "Longest")]
    headings = [Heading("Kind"), Heading("Jobs", _WHOLE), *spans]
    return _table("Run times", headings, rows, totals=("All", *day.all.runs), limit=_MOST_KINDS)


def _queue_table(day: Day) -> Table:
    rows = [
        (printable(name, 80), tally.job_count, *tally.waits[1:])
        for name, tally in sorted(day.queues.items(), key=lambda item: (-item[1].job_count, item[0]))
    ]
    spans = [Heading(name, _SPAN) for name in ("Wait p50", "p95", "p99", "Longest")]
    headings = [Heading("Queue"), Heading("Jobs", _WHOLE), *spans]
    return _table("Queues", headings, rows, totals=("All", day.all.job_count, *day.all.waits[1:]), limit=_MOST_KINDS)


def _error_table(errors: Sequence[ErrorTally], count: int, day: Day) -> Table:
    rows = [
        (
            error.code,
            error.count,
            error.count / day.all.failed_count,
            ", ".join(printable(kind, 80) for kind, _ in error.kinds.most_common(2)),
            f"{printable(error.message)} (job {error.job_id})",
        )
        for error in errors
    ]
    headings = [
        Heading("Code"), Heading("Failures", _WHOLE), Heading("Share", _RATIO), Heading("Most from"),
        Heading("Last message"),
    ]  # fmt: skip
    note = f"The most frequent {_MOST_ERRORS} of {count} codes." if count > len(errors) else ""
    return _table("Most frequent errors", headings, rows, note=note)


def _job_table(day: Day) -> Table:
    rows = [
        (f"{one.created_at:%H:%M:%S}", printable(one.kind, 80), one.state, one.wait_s, one.run_s, one.id)
        for one in day.first
    ]
    spans = [Heading("Wait", _SPAN), Heading("Run time", _SPAN)]
    return _table("The jobs", [Heading("At"), Heading("Kind"), Heading("State"), *spans, Heading("Job")], rows)


def _slowest_table(day: Day) -> Table:
    rows = [
        (printable(slow.kind, 80), slow.state, slow.run_s, slow.wait_s, slow.id)
        for slow in sorted(day.slowest, key=lambda slow: (-slow.run_s, slow.id))
    ]
    spans = [Heading("Run time", _SPAN), Heading("Wait", _SPAN)]
    headings = [Heading("Kind"), Heading("State"), *spans, Heading("Job")]
    return _table(f"The {MOST_SLOWEST} longest runs", headings, rows)


def _trend_table(day: Day, before: Day) -> Table:
    now, then = day.all, before.all
    states = [state for state, _ in (now.states + then.states).most_common()]
    rows: list[tuple[str, str, str, str]] = [
        ("Jobs submitted", f"{now.job_count:,}", f"{then.job_count:,}", _relative(now.job_count, then.job_count)),
        *((state.capitalize(), f"{now.states[state]:,}", f"{then.states[state]:,}",
           _relative(now.states[state], then.states[state])) for state in states),
        ("Failure rate", _percent(now.failure_ratio), _percent(then.failure_ratio),
         _points(now.failure_ratio, then.failure_ratio)["change"]),
    ]  # fmt: skip
    for label, these, those in (("Wait", now.waits, then.waits), ("Run time", now.runs, then.runs)):
        rows += _times(label, these, those, brief=day.is_brief and before.is_brief)
    headings = [Heading("Figure"), Heading(f"{day.begin:%a} {day.begin.day} {day.begin:%b}", align_end=True)]
    headings += [Heading(f"{before.begin:%a} {before.begin.day} {before.begin:%b}", align_end=True)]
    return _table("Compared with the day before", [*headings, Heading("Change", align_end=True)], rows)


def _times(label: str, now: Percentiles, then: Percentiles, *, brief: bool) -> list[tuple[str, str, str, str]]:
    chosen = [("median", now.p50, then.p50), ("p95", now.p95, then.p95), ("p99", now.p99, then.p99)]
    if brief:
        chosen = [("median", now.p50, then.p50), ("longest", now.largest, then.largest)]
    return [
        (f"{label}, {name}", _time(one), _time(other), _slower(one, other)["change"]) for name, one, other in chosen
    ]


def _table(
    title: str,
    headings: list[Heading],
    rows: Sequence[tuple[Any, ...]],
    *,
    totals: tuple[Any, ...] | None = None,
    note: str = "",
    limit: int = 1_000,
) -> Table:
    return Table(title, headings, lambda most: iter(rows[: min(most, limit)]), len(rows), limit, totals, note)


def _kinds(day: Day) -> list[tuple[str, Tally]]:
    return sorted(day.kinds.items(), key=lambda item: (-item[1].job_count, item[0]))


def _hours(day: Day) -> list[Tally]:
    return [day.hours.get(hour, Tally()) for hour in range(day.hour_count)]


def _hour_names(day: Day) -> list[str]:
    begin = day.begin.astimezone(UTC)
    return [f"{(begin + timedelta(hours=hour)).astimezone(day.begin.tzinfo):%H:%M}" for hour in range(day.hour_count)]


def _counts(tally: Tally) -> tuple[int, ...]:
    ended = (sum(tally.states[state] for state in states) for states in _OUTCOMES.values())
    return (tally.job_count, *ended, _unfinished(tally))


def _unfinished(tally: Tally) -> int:
    ended = {state for states in _OUTCOMES.values() for state in states}
    return sum(count for state, count in tally.states.items() if state not in ended)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}"


def _time(seconds: float | None) -> str:
    return ABSENT if seconds is None else duration(seconds)


def _percent(ratio: float | None) -> str:
    return ABSENT if ratio is None else f"{ratio * 100:.1f}\N{NARROW NO-BREAK SPACE}%"


def _relative(now: float, then: float) -> str:
    """Return the change from `then` to `now` in words; empty if `then` is zero."""
    if now == then:
        return "unchanged"
    if then == 0:
        return f"+{now:,.0f}"
    change = (now - then) / then * 100
    return f"{change:+,.{0 if abs(change) >= 10 else 1}f}\N{NARROW NO-BREAK SPACE}%"  # noqa: PLR2004 - three signs


def _points(now: float | None, then: float | None) -> dict[str, Any]:
    if now is None or then is None:
        return {"change": ""}
    if round(now * 1000) == round(then * 1000):
        return {"change": "unchanged"}
    mood: Literal["good", "bad"] = "bad" if now > then else "good"
    return {"change": f"{(now - then) * 100:+.1f} points", "mood": mood}


def _slower(now: float | None, then: float | None) -> dict[str, Any]:
    if now is None or then is None:
        return {"change": ""}
    noticed = abs(now - then) > 0.1 * max(then, 0.01)  # a tenth, and more than a millisecond
    return {"change": _relative(now, then), "mood": ("bad" if now > then else "good") if noticed else ""}
