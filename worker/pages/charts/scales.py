"""Where an axis begins, ends and has its ticks. Pure: no drawing.

The ticks of values cover the data, so that a chart never ends below its largest value; counts have whole ticks; times
are divided at the places where people divide them.
"""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Style = Literal["auto", "integer", "decimal", "percent", "bytes", "duration"]

MOST_VALUE_TICKS = 6
_ZERO_BELOW = 0.6  # an axis starts at zero if the least value is below this share of the largest
_LEAST_SPAN = 1e-9  # share of the largest number; the labels of a smaller span would be equal
_LEAST_NUMBER = 1e-290  # smaller ones are drawn as zero
_DIGITS = 12  # significant digits of a tick, which hides that 3 * 0.1 is not 0.3

_DAY = timedelta(days=1)
_STEPS = tuple(
    timedelta(**{unit: count})
    for unit, counts in (
        ("milliseconds", (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        ("seconds", (1, 2, 5, 10, 15, 30)),
        ("minutes", (1, 2, 5, 10, 15, 30)),
        ("hours", (1, 2, 3, 6, 12)),
        ("days", (1, 2, 7, 14)),
    )
    for count in counts
)
_MONTHS = (1, 2, 3, 6, *(12 * years for years in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)))
_MONDAY = datetime(1, 1, 1)  # noqa: DTZ001 - datasets have no zone; the first day of the calendar is a Monday


class Tick(NamedTuple):
    """A time on an axis, with its label of one or two lines."""

    at: datetime
    label: str


def value_ticks(values: Sequence[float], *, style: Style, whole: bool, zero: bool | None = None) -> list[float]:
    """Return two to six equally spaced ticks that cover `values`.

    Steps are 1, 2, 2.5 or 5 times a power of ten, or what suits bytes and durations; `whole` allows whole numbers only.
    `zero` says whether zero is covered; None: unless that would flatten the data.
    """
    low, high = min(values), max(values)
    flat = high / 2 - low / 2 <= _LEAST_SPAN * max(abs(low), abs(high), _LEAST_NUMBER) / 2
    from_zero = zero or flat or (zero is None and (0 <= low < _ZERO_BELOW * high or 0 >= high > _ZERO_BELOW * low))
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < _LEAST_NUMBER:
        high = low + 1.0
    step = _step((high / 2 - low / 2) / (MOST_VALUE_TICKS - 1) * 2, style, whole=whole)
    while math.ceil(high / step) - math.floor(low / step) > MOST_VALUE_TICKS - 1:
        step = _step(step * 1.01, style, whole=whole)
    ticks = range(math.floor(low / step), math.ceil(high / step) + 1)
    return [float(f"{tick * step:.{_DIGITS}g}") for tick in ticks]


def inner_ticks(low: float, high: float, *, style: Style, whole: bool, most: int) -> list[float]:
    """Return at most `most` equally spaced ticks from `low` to `high`, none outside; both if they are equal."""
    span = high / 2 - low / 2
    if span <= _LEAST_SPAN * max(abs(low), abs(high), _LEAST_NUMBER):
        return [low]
    step = _step(span / most * 2, style, whole=whole)
    while math.floor(high / step) - math.ceil(low / step) >= most:
        step = _step(step * 1.01, style, whole=whole)
    inside = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{tick * step:.{_DIGITS}g}") for tick in inside]


def time_ticks(times: Sequence[date], most: int) -> list[Tick]:
    """Return at most `most` ticks for ascending `times`.

    They are at the times themselves if there is room for a label at each, otherwise where a clock or a calendar begins
    something new. The second line of a label, on the first tick and where it changes, says what the first leaves out.
    """
    moments = [moment(one) for one in times]
    if len(moments) <= most:
        least = min((after - before for before, after in pairwise(moments)), default=_DAY)
        if least * most >= moments[-1] - moments[0]:
            return _labelled(moments)
    return _labelled(_regular(moments[0], moments[-1], most)) or _labelled([moments[0]])


def moment(at: date) -> datetime:
    """Return a date as its midnight, and a time as it is."""
    return at if isinstance(at, datetime) else datetime.combine(at, time())


def _step(least: float, style: Style, *, whole: bool) -> float:
    """Return the smallest step that is not below `least`."""
    if style == "bytes":
        return math.ldexp(1.0, max(0, math.ceil(math.log2(least))))
    if style == "duration" and least > 1:
        nice = (2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
        found = next((step for step in nice if step >= least), None)
        return float(found) if found else 86_400.0 * _step(least / 86_400, "auto", whole=True)
    if whole:
        least = max(least, 1.0)
    size: float = 10.0 ** math.floor(math.log10(least))
    parts = (1, 2, 5, 10) if whole and size < 10 else (1, 2, 2.5, 5, 10)  # noqa: PLR2004 - 2.5 times 10 is whole
    return float(next(size * part for part in parts if size * part >= least * (1 - 1e-12)))


def _regular(first: datetime, last: datetime, most: int) -> list[datetime]:
    """Return the times from `first` to `last` at the smallest step that gives at most `most`."""
    for step in _STEPS:
        start = -((_MONDAY - first) // step)  # rounded up
        if (last - _MONDAY) // step - start < most:
            return [_MONDAY + step * number for number in range(start, (last - _MONDAY) // step + 1)]
    begin, end = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    begin += first != datetime(first.year, first.month, 1)  # noqa: DTZ001 - as above
    for months in _MONTHS:
        numbers = range(-(-begin // months) * months, end + 1, months)
        if len(numbers) <= most:
            return [datetime(number // 12, number % 12 + 1, 1) for number in numbers if number >= 12]  # noqa: DTZ001, PLR2004
    return []


def _labelled(moments: Sequence[datetime]) -> list[Tick]:
    upper_form, form = _forms(moments)
    ticks, before = [], ""
    for at in moments:
        upper = _written(at, upper_form)
        ticks.append(Tick(at, _written(at, form) + (f"\n{upper}" if upper != before else "")))
        before = upper
    return ticks


def _forms(moments: Sequence[datetime]) -> tuple[str, str]:
    """Return how `moments` are written: what they share with their neighbours, and what differs."""
    if any(at.time() != time() for at in moments):
        exact = "%H:%M:%S.%f" if any(at.microsecond for at in moments) else "%H:%M:%S"
        return "%d %b %Y", "%H:%M" if not any(at.second or at.microsecond for at in moments) else exact
    if len(moments) == 1 or any(at.day != 1 for at in moments):
        return "%Y", "%d %b"
    if any(at.month != 1 for at in moments):
        return "%Y", "%b"
    return "", "%Y"


def _written(at: datetime, form: str) -> str:
    text = at.strftime(form)
    return text.rstrip("0").rstrip(".") if form.endswith("%f") else text.removeprefix("0") if "%d" in form else text
