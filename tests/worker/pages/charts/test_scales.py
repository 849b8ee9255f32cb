"""Axes cover their data, and have ticks where people divide numbers and times."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pages.charts.axes import whole
from worker.pages.charts.scales import MOST_VALUE_TICKS, Style, inner_ticks, moment, time_ticks, value_ticks

NUMBERS = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5)
STYLES = st.sampled_from(["auto", "integer", "decimal", "percent", "bytes", "duration"])
TIMES = st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), min_size=1, max_size=50)  # noqa: DTZ001 - as in datasets


def hours(count: int) -> list[datetime]:
    begin = datetime(2026, 11, 26, tzinfo=UTC).replace(tzinfo=None)
    return [begin + timedelta(hours=number) for number in range(count)]


@given(NUMBERS, STYLES, st.booleans())
def test_an_axis_never_ends_below_its_largest_value(numbers: list[float], style: Style, only_whole: bool) -> None:  # noqa: FBT001 - hypothesis
    """Two to six ticks in ascending order, of which the outer ones hold all values between them."""
    ticks = value_ticks(numbers, style=style, whole=only_whole)
    assert 2 <= len(ticks) <= MOST_VALUE_TICKS
    assert ticks == sorted(set(ticks))
    slack = 1e-9 * max(abs(tick) for tick in ticks)
    assert ticks[0] - slack <= min(numbers)
    assert max(numbers) <= ticks[-1] + slack


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_counts_have_whole_ticks(counts: list[int]) -> None:
    """There are no 0.8 jobs; counts begin at zero if they are drawn as bars."""
    numbers = [float(count) for count in counts]
    assert whole(numbers, "auto")
    ticks = value_ticks(numbers, style="auto", whole=True, zero=True)
    assert all(tick.is_integer() for tick in ticks)
    assert ticks[0] == 0


@pytest.mark.parametrize(
    ("numbers", "style", "expected"),
    [
        ([0, 1], "auto", [0, 1]),
        ([0, 3], "auto", [0, 1, 2, 3]),
        ([0.2, 1.1], "duration", [0, 0.25, 0.5, 0.75, 1, 1.25]),
        ([300, 4_000], "duration", [0, 900, 1_800, 2_700, 3_600, 4_500]),
        ([1_000, 3_000_000], "bytes", [0, 1_048_576, 2_097_152, 3_145_728]),
        ([100, 101.5], "auto", [100, 100.5, 101, 101.5]),
        ([-4, -4], "auto", [-4, -3, -2, -1, 0]),
        ([5e-324], "percent", [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_numbers_that_people_divide_by(numbers: list[float], style: Style, expected: list[float]) -> None:
    """Quarters of an hour and powers of two, too; equal and tiny values have an axis that begins at zero."""
    assert value_ticks(numbers, style=style, whole=whole(numbers, style)) == expected


def test_numbers_along_a_chart_have_ticks_within_it() -> None:
    """No tick is outside the data, as the axis ends at these."""
    assert inner_ticks(0.33, 417.2, style="auto", whole=False, most=8) == [100, 200, 300, 400]
    assert inner_ticks(3, 3, style="auto", whole=True, most=8) == [3]


@given(TIMES, st.integers(2, 10))
def test_time_has_a_few_ticks_within_the_data(times: list[datetime], most: int) -> None:
    """At most as many as wanted, in order, and none before the first time or after the last."""
    ticks = time_ticks(sorted(times), most)
    assert 1 <= len(ticks) <= most
    assert all(before.at < after.at for before, after in pairwise(ticks)) or len(set(times)) < len(times)
    assert moment(min(times)) <= ticks[0].at
    assert ticks[-1].at <= moment(max(times))


@pytest.mark.parametrize(
    ("times", "most", "labels"),
    [
        (hours(24), 4, ["00:00\n26 Nov 2026", "06:00", "12:00", "18:00"]),
        (hours(1), 8, ["26 Nov\n2026"]),
        ([date(2026, month, 1) for month in (1, 2, 3)], 8, ["Jan\n2026", "Feb", "Mar"]),
        (
            [date(2026, 1, 5) + timedelta(weeks=n) for n in range(9)],
            5,
            ["5 Jan\n2026", "19 Jan", "2 Feb", "16 Feb", "2 Mar"],
        ),
        ([date(2025, 12, 31), date(2026, 1, 1)], 8, ["31 Dec\n2025", "1 Jan\n2026"]),
        ([date(year, 1, 1) for year in range(1990, 2027)], 4, ["1990", "2000", "2010", "2020"]),
    ],
)
def test_a_label_says_what_changes(times: list[date], most: int, labels: list[str]) -> None:
    """Its second line says the day or year once, and when it changes; weeks begin on Mondays."""
    assert [tick.label for tick in time_ticks(times, most)] == labels
