# ruff: noqa: S608 - this module builds SQL from aliases
"""Find periods that the data cover in part, so that a chart does not show their smaller values as a fall."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shared.jobs.charts import TimeUnit

_LENGTHS = {
    "year": "1 YEAR", "quarter": "3 MONTH", "month": "1 MONTH", "week": "7 DAY", "day": "1 DAY", "hour": "1 HOUR",
    "minute": "1 MINUTE",
}  # fmt: skip
_RESOLUTIONS = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_SLACK = 1 / 50  # share of a period: 3.4 hours of a week, half an hour of a day
_SLACK_ALONE = 1 / 7  # without two whole periods to compare with: a day of a week
_LEAST_COMPARED = 2
_INSTANT = timedelta(microseconds=1)


class Period(NamedTuple):
    """A period, and the part of it from its first row to the end of its last."""

    begin: datetime
    end: datetime
    first: datetime
    last: datetime

    @property
    def before(self) -> timedelta:
        """The time of the period before its first row."""
        return self.first - self.begin

    @property
    def after(self) -> timedelta:
        """The time of the period after its last row."""
        return self.end - self.last


@dataclass(frozen=True)
class Cover:
    """The first and the last period of some data, and whether a part of it is missing at that end of the data."""

    unit: str
    first: Period
    last: Period
    begins_late: bool
    ends_early: bool

    def among(self, begins: Sequence[Any]) -> frozenset[int]:
        """Return the numbers of the periods covered in part among those that begin at `begins`."""
        partial = {*([self.first.begin] if self.begins_late else []), *([self.last.begin] if self.ends_early else [])}
        return frozenset(number for number, begin in enumerate(begins) if begin in partial)

    @property
    def note(self) -> str:
        """What a reader should know; empty if both periods are whole."""
        begin, end = _day(self.first.first, self.unit), _day(self.last.last - _INSTANT, self.unit)
        if self.first == self.last and (self.begins_late or self.ends_early):
            return f"Drawn paler, as it is not whole: the {self.unit} has rows from {begin} until {end}."
        late = f"the first {self.unit} has rows only from {begin} on" if self.begins_late else ""
        early = f"the last {self.unit} has rows only until {end}" if self.ends_early else ""
        said = ", ".join(part for part in (late, early) if part)
        return f"Drawn paler, as the data do not cover them: {said}." if said else ""


def covered(rows: Callable[[str], list[tuple[Any, ...]]], key: str, at: str, unit: TimeUnit | None) -> Cover | None:
    """Return what the data cover of the first and the last period of `unit`; `key` and `at` are aliases in ``picked``.

    None without data, for a unit that recurs, such as `weekday`, and for times in the year 9999. A period counts as
    whole if its empty end is hardly longer than that of the periods in between: shops that are closed on Sundays end
    every week on a Saturday.
    """
    if unit not in _LENGTHS:
        return None
    found = _periods(rows, key, at, unit)
    if not found or found[-1].end.year == MAXYEAR:
        return None
    first, last, inner = found[0], found[-1], found[1:-1]
    slack = _SLACK if len(inner) >= _LEAST_COMPARED else _SLACK_ALONE
    return Cover(
        unit,
        first,
        last,
        begins_late=first.before > _longest(one.before for one in inner) + (first.end - first.begin) * slack,
        ends_early=last.after > _longest(one.after for one in inner) + (last.end - last.begin) * slack,
    )


def _periods(rows: Callable[[str], list[tuple[Any, ...]]], key: str, at: str, unit: str) -> list[Period]:
    """Return the periods in ascending order. A row of a date lasts a day; one at a full hour may last an hour."""
    whole = [f"bool_and({at} = date_trunc('{size}', {at}))" for size in _RESOLUTIONS]
    (are_whole,) = rows(f"SELECT {', '.join(whole)} FROM picked")
    lasting = next(
        (long for long, is_whole in zip(_RESOLUTIONS.values(), are_whole, strict=True) if is_whole), _INSTANT
    )
    end = f"{key} + INTERVAL {_LENGTHS[unit]}"
    known = f"{key} IS NOT NULL AND year({key}) < {MAXYEAR}"
    found = rows(f"SELECT {key}, {end}, min({at}), max({at}) FROM picked WHERE {known} GROUP BY 1, 2 ORDER BY 1")
    return [Period(begin, after, first, min(last + lasting, after)) for begin, after, first, last in found]


def _longest(gaps: Iterable[timedelta]) -> timedelta:
    return max(gaps, default=timedelta())


def _day(at: datetime, unit: str) -> str:
    day = f"{at.day} {at:%b %Y}"
    return f"{day}, {at:%H:%M}" if unit in {"day", "hour", "minute"} else day
