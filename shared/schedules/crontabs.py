"""Crontabs: five fields in Celery's notation, and their times in a time zone.

Celery's own `crontab` parses the fields; the times are computed here with `zoneinfo`, because Celery's arithmetic is
wrong when clocks change. The rules for a wall-clock time on such a day:

- A time that does not exist (clocks skip it) is moved later by the length of the jump: 02:30 runs at 03:30.
- A time that exists twice (clocks go back) runs once, the first time, unless the crontab means every hour
(`hour` is `*`): then it runs both times.

So a daily job runs once every day, and an hourly job once in every elapsed hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Annotated, NamedTuple, Self
from zoneinfo import ZoneInfo, available_timezones

from celery.schedules import ParseException, crontab
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from shared.contract.spelling import nearest

_SEARCHED_DAYS = 40 * 366  # a 29 February that is a Monday may be 40 years away, around 2100
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MS = 1_000
_DAY = timedelta(days=1)


class _FieldRange(NamedTuple):
    least: int
    most: int
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.least} to {self.most}{names}"


class _Fields(NamedTuple):
    minute: Sequence[int]
    hour: Sequence[int]
    day_of_month: Sequence[int]
    month_of_year: Sequence[int]
    day_of_week: Sequence[int]


_RANGES: Mapping[str, _FieldRange] = MappingProxyType(
    {
        "minute": _FieldRange(0, 59),
        "hour": _FieldRange(0, 23),
        "day_of_month": _FieldRange(1, 31),
        "month_of_year": _FieldRange(1, 12, tuple(_MONTHS)),
        "day_of_week": _FieldRange(0, 6, tuple(_WEEKDAYS)),
    }
)


_OF_THE_HOST = {"localtime", "Factory", "posixrules"}  # differs between machines or does not exist


def checked_time_zone(name: str) -> str:
    """Return `name` if it is a time zone. Raises `ValueError` with similar names."""
    if name in _OF_THE_HOST:
        return _refuse_time_zone(name)
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path; a folder of zones
        return _refuse_time_zone(name)
    return name


def _refuse_time_zone(name: str) -> str:
    zones = sorted(available_timezones() - _OF_THE_HOST)
    wanted = name.lower().replace(" ", "_")
    near = [zone for zone in zones if wanted and zone.lower().rpartition("/")[2] == wanted.rpartition("/")[2]]
    near += nearest(name, zones, most=3)
    hint = ", ".join(dict.fromkeys(near[:3])) or "UTC, Europe/Berlin, America/New_York"
    raise ValueError(f"There is no time zone {name!r}. Use an IANA name such as {hint}.")


TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(checked_time_zone)]
CrontabField = Annotated[str, Field(min_length=1, max_length=200)]


class Crontab(BaseModel):
    """Times by wall clock and calendar. A day matches if all three day fields match, as in Celery."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    minute: CrontabField = Field(description="0 to 59; `*`, `0,30`, `10-50`; with a step: `0-59/15`.", examples=["0"])
    hour: CrontabField = Field(default="*", description="0 to 23, likewise.", examples=["9"])
    day_of_month: CrontabField = Field(default="*", description="1 to 31, likewise.", examples=["*"])
    month_of_year: CrontabField = Field(default="*", description="1 to 12 or `jan` to `dec`.", examples=["*"])
    day_of_week: CrontabField = Field(default="*", description="0 (Sunday) to 6 or `sun` to `sat`.", examples=["sun"])

    @field_validator("*")
    @classmethod
    def _is_readable(cls, value: str, info: ValidationInfo) -> str:
        name = str(info.field_name)
        for part in value.split(","):
            _check_part(part, name, _RANGES[name])
        return value

    @model_validator(mode="after")
    def _comes_at_all(self) -> Self:
        try:
            fields = self._fields
        except (ValueError, ParseException) as unreadable:
            raise ValueError(str(unreadable)) from None
        if not any(_matches(fields, date(2000, 1, 1) + n * _DAY) for n in range(_SEARCHED_DAYS)):
            raise ValueError("No day matches day_of_month, month_of_year and day_of_week together; change one of them.")
        return self

    @cached_property
    def _fields(self) -> _Fields:
        read = crontab(**self.model_dump())
        return _Fields(*(sorted(getattr(read, name)) for name in _Fields._fields))

    def after(self, at_ms: int, time_zone: str) -> Iterator[int]:
        """Yield the moments after `at_ms` in ascending order, each once, in milliseconds since 1970.

        Where clocks jump over midnight, a day's last times come on the next day, among that day's own.
        """
        zone, late = ZoneInfo(time_zone), set[int]()
        for day, moments in self._days(at_ms, time_zone, 1):
            next_day_ms = int(datetime.combine(day + _DAY, time(), zone).timestamp()) * _MS
            known = late.union(moments)
            late = {moment for moment in known if moment >= next_day_ms}
            yield from (moment for moment in sorted(known - late) if moment > at_ms)

    def latest(self, at_ms: int, time_zone: str) -> int:
        """Return the last time at or before `at_ms`."""
        latest: int | None = None
        for _, moments in self._days(at_ms, time_zone, -1):
            passed = [moment for moment in moments if moment <= at_ms]
            if latest is not None:  # the day before may have moments on this one: see `after`
                return max(latest, *passed)
            latest = max(passed, default=None)
        if latest is None:
            raise AssertionError("a crontab has a time within the days that are searched")
        return latest

    def _days(self, at_ms: int, time_zone: str, direction: int) -> Iterator[tuple[date, tuple[int, ...]]]:
        """Yield one matching day after the other with its moments, from the day before (or after) `at_ms` on."""
        start = datetime.fromtimestamp(at_ms / _MS, ZoneInfo(time_zone)).date() - direction * _DAY
        for n in range(_SEARCHED_DAYS):
            day = start + direction * n * _DAY
            if _matches(self._fields, day):
                yield day, _moments(self, time_zone, day)


def _check_part(part: str, field: str, allowed: _FieldRange) -> None:
    """Refuse fields that Celery's parser misreads: it reads `5x-7y` as a range, and `mon` as a minute."""
    value = r"[0-9]{1,2}|" + "|".join(allowed.names) if allowed.names else r"[0-9]{1,2}"
    matched = re.fullmatch(rf"(?:\*|({value})(?:-({value}))?)(/[0-9]{{1,2}})?", part)
    if not matched or (matched[3] and matched[1] and not matched[2]):
        raise ValueError(
            f"{field}: {part!r} is not valid. Use *, a number, a range like 1-5, a step like */15 or 0-30/10, "
            f"or several with commas; from {allowed}."
        )
    numbers = [int(number) for number in matched.group(1, 2) if number and number.isdigit()]
    if any(not allowed.least <= number <= allowed.most for number in numbers):
        raise ValueError(f"{field}: {part!r} is out of range; use values from {allowed}.")
    least, most = numbers if len(numbers) == 2 else (allowed.least, allowed.most)  # noqa: PLR2004 - a range's ends
    if matched[3] and not 1 <= int(matched[3][1:]) <= max(1, most - least):
        raise ValueError(
            f"{field}: the step of {part!r} is not from 1 to {most - least}, so only its first value would be used."
        )


def _matches(fields: _Fields, day: date) -> bool:
    return (
        day.month in fields.month_of_year
        and day.day in fields.day_of_month
        and day.isoweekday() % 7 in fields.day_of_week
    )


@lru_cache(maxsize=512)
def _moments(spec: Crontab, time_zone: str, day: date) -> tuple[int, ...]:
    """Return the times of a matching day, ascending, in milliseconds since 1970."""
    zone, fields = ZoneInfo(time_zone), spec._fields
    midnight = datetime.combine(day, time(), zone)
    clocks_change = midnight.utcoffset() != (midnight + _DAY).utcoffset()
    first_ms = int(midnight.timestamp()) * _MS
    if not clocks_change:  # saves the conversion of up to 1,440 times
        return tuple(first_ms + (h * 60 + m) * 60 * _MS for h in fields.hour for m in fields.minute)
    every_hour = len(fields.hour) == 24  # noqa: PLR2004 - hours of a day
    folds = (0, 1) if every_hour else (0,)
    moments = {
        int(datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC).timestamp()) * _MS
        for hour in fields.hour
        for minute in fields.minute
        for fold in folds
        if fold == 0 or _is_ambiguous(datetime.combine(day, time(hour, minute), zone))
    }
    return tuple(sorted(moments))


def _is_ambiguous(wall: datetime) -> bool:
    """Return whether a wall-clock time exists twice; one that does not exist has its later offset first."""
    first, second = wall.utcoffset(), wall.replace(fold=1).utcoffset()
    return first is not None and second is not None and first > second
