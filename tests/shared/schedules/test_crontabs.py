"""Slots of crontabs: exact in every time zone, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.schedules.crontabs import Crontab, checked_time_zone

NIGHTLY = Crontab(minute="30", hour="2")
HOURLY = Crontab(minute="15")


def ms(text: str) -> int:
    """Return milliseconds since 1970 of an ISO 8601 time."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def slots(crontab: Crontab, zone: str, after: str, count: int) -> list[str]:
    """Return the next slots as their wall clock shows them."""
    return [
        datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).isoformat(timespec="minutes")
        for at_ms in islice(crontab.after(ms(after), zone), count)
    ]


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        ("Europe/Berlin", "2026-03-28T00:00+01:00", ["28T02:30+01:00", "29T03:30+02:00", "30T02:30+02:00"]),
        ("Europe/Berlin", "2026-10-24T00:00+02:00", ["24T02:30+02:00", "25T02:30+02:00", "26T02:30+01:00"]),
        ("America/New_York", "2026-03-07T00:00-05:00", ["07T02:30-05:00", "08T03:30-04:00", "09T02:30-04:00"]),
        ("America/New_York", "2026-10-31T12:00-04:00", ["01T02:30-05:00", "02T02:30-05:00", "03T02:30-05:00"]),
        ("UTC", "2026-03-28T00:00+00:00", ["28T02:30+00:00", "29T02:30+00:00", "30T02:30+00:00"]),
    ],
)
def test_a_daily_slot_comes_once_a_day_whatever_clocks_do(zone: str, after: str, expected: list[str]) -> None:
    """A time that does not exist comes as much later as clocks jump; one that exists twice comes the first time."""
    assert [slot[8:] for slot in slots(NIGHTLY, zone, after, 3)] == expected


def test_new_york_repeats_half_past_one() -> None:
    """Clocks go back from 02:00 EDT to 01:00 EST: 01:30 comes once, in EDT."""
    found = slots(Crontab(minute="30", hour="1"), "America/New_York", "2026-11-01T00:00-04:00", 2)
    assert found == ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]


def test_every_hour_means_every_hour_that_passes() -> None:
    """With `*` for the hour a time that exists twice comes both times, and none is left out or doubled."""
    assert slots(HOURLY, "Europe/Berlin", "2026-10-25T01:00+02:00", 4) == [
        "2026-10-25T01:15+02:00",
        "2026-10-25T02:15+02:00",
        "2026-10-25T02:15+01:00",
        "2026-10-25T03:15+01:00",
    ]
    assert slots(HOURLY, "Europe/Berlin", "2026-03-29T01:00+01:00", 3) == [
        "2026-03-29T01:15+01:00",
        "2026-03-29T03:15+02:00",
        "2026-03-29T04:15+02:00",
    ]


def test_lord_howe_changes_by_half_an_hour() -> None:
    """02:00 to 02:30 does not exist in October; 01:30 to 02:00 exists twice in April."""
    nightly = Crontab(minute="10", hour="2")
    assert slots(nightly, "Australia/Lord_Howe", "2026-10-04T00:00+10:30", 2) == [
        "2026-10-04T02:40+11:00",
        "2026-10-05T02:10+11:00",
    ]
    quarter_to = Crontab(minute="45", hour="1")
    assert slots(quarter_to, "Australia/Lord_Howe", "2026-04-05T00:00+11:00", 2) == [
        "2026-04-05T01:45+11:00",
        "2026-04-06T01:45+10:30",
    ]


def test_a_midnight_that_does_not_exist() -> None:
    """In Beirut clocks go from 00:00 to 01:00: midnight's slot comes at 01:00, once."""
    midnight = Crontab(minute="0", hour="0")
    assert slots(midnight, "Asia/Beirut", "2026-03-28T12:00+02:00", 2) == [
        "2026-03-29T01:00+03:00",
        "2026-03-30T00:00+03:00",
    ]


def test_times_that_clocks_move_over_midnight_come_in_order_and_once() -> None:
    """In Nuuk clocks go from 23:00 on Saturday to 00:00: what is to come then comes on Sunday, with Sunday's own."""
    assert slots(Crontab(minute="*/30"), "America/Nuuk", "2027-03-27T22:00-02:00", 5) == [
        "2027-03-27T22:30-02:00",
        "2027-03-28T00:00-01:00",
        "2027-03-28T00:30-01:00",
        "2027-03-28T01:00-01:00",
        "2027-03-28T01:30-01:00",
    ]
    assert slots(Crontab(minute="30", hour="23"), "America/Nuuk", "2027-03-27T00:00-02:00", 2) == [
        "2027-03-28T00:30-01:00",
        "2027-03-28T23:30-01:00",
    ]


@settings(max_examples=25)
@given(
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "America/Nuuk", "America/St_Johns", "Asia/Kathmandu", "UTC"]
    ),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001 - made aware
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=3),
)
def test_hourly_slots_are_the_minutes_whose_wall_clock_matches(zone: str, start: datetime, minutes: set[int]) -> None:
    """Counted minute by minute through two days: where clocks change by full hours nothing is special."""
    crontab = Crontab(minute=",".join(map(str, sorted(minutes))))
    first = start.replace(second=0, microsecond=0)
    walked = [first + timedelta(minutes=n) for n in range(1, 48 * 60)]
    expected = [at for at in walked if at.astimezone(ZoneInfo(zone)).minute in minutes]
    end_ms = walked[-1].timestamp() * 1000
    found = takewhile(lambda at_ms: at_ms <= end_ms, crontab.after(int(first.timestamp() * 1000), zone))
    assert [datetime.fromtimestamp(at_ms / 1000, UTC) for at_ms in found] == expected


@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Nuuk"]),
    at_s=st.integers(1_700_000_000, 1_900_000_000),
    crontab=st.sampled_from(
        [
            NIGHTLY,
            HOURLY,
            Crontab(minute="30,45", hour="23,0"),
            Crontab(minute="*/7", hour="0-3"),
            Crontab(minute="0", hour="2", day_of_week="sun"),
        ]
    ),
)
def test_latest_and_after_are_neighbours(zone: str, at_s: int, crontab: Crontab) -> None:
    """No slot lies between the latest one and the next one; a slot itself is its own latest."""
    at_ms = at_s * 1000
    latest, after = crontab.latest(at_ms, zone), next(crontab.after(at_ms, zone))
    assert latest <= at_ms < after
    assert next(crontab.after(latest, zone)) == after
    assert crontab.latest(after, zone) == after
    assert crontab.latest(after - 1, zone) == latest


def test_weekdays_days_and_months_must_all_match() -> None:
    """As in Celery: the 13th counts only if it is a Friday; a leap day may be years away."""
    friday_13th = Crontab(minute="0", hour="0", day_of_month="13", day_of_week="fri")
    assert slots(friday_13th, "UTC", "2026-01-01T00:00+00:00", 2) == [
        "2026-02-13T00:00+00:00",
        "2026-03-13T00:00+00:00",
    ]
    leap_monday = Crontab(minute="0", hour="0", day_of_month="29", month_of_year="feb", day_of_week="mon")
    assert slots(leap_monday, "UTC", "2026-01-01T00:00+00:00", 1) == ["2044-02-29T00:00+00:00"]
    assert leap_monday.latest(ms("2026-01-01T00:00+00:00"), "UTC") == ms("2016-02-29T00:00+00:00")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("minute", "60", "out of range"),
        ("minute", "mon", "is not valid"),
        ("minute", "5/15", "is not valid"),
        ("minute", "1-5x", "is not valid"),
        ("minute", "1,,2", "is not valid"),
        ("minute", "-1", "is not valid"),
        ("minute", "*/0", "step"),
        ("minute", "*/70", "not from 1 to 59"),
        ("hour", "*/24", "not from 1 to 23"),
        ("minute", "10-20/15", "not from 1 to 10"),
        ("hour", "24", "out of range"),
        ("day_of_week", "7", "0 to 6 or sun to sat"),
        ("day_of_month", "0", "out of range"),
        ("month_of_year", "mon", "is not valid"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: str, complaint: str) -> None:
    """The error is at the field, and says what would be right."""
    with pytest.raises(ValidationError) as refused:
        Crontab.model_validate({"minute": "0", field: value})
    (error,) = refused.value.errors()
    assert error["loc"] == (field,)
    assert field in error["msg"]
    assert complaint in error["msg"]


@pytest.mark.parametrize(
    "never", [{"day_of_month": "31", "month_of_year": "feb,apr"}, {"day_of_month": "30-31", "month_of_year": "2"}]
)
def test_a_day_that_never_comes_is_refused(never: dict[str, str]) -> None:
    """The 31st of February has no slot, so nobody waits for it."""
    with pytest.raises(ValidationError, match="never occurs"):
        Crontab.model_validate({"minute": "0", **never})


@pytest.mark.parametrize(
    ("name", "near"),
    [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("new york", "America/New_York"), ("Europe", "")],
)
def test_an_unknown_time_zone_names_near_ones(name: str, near: str) -> None:
    """A slip, a city alone, or a folder of the database."""
    with pytest.raises(ValueError, match=r"There is no time zone .* Use an IANA name such as .*" + near):
        checked_time_zone(name)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/localtime", "\0", "", "Europe/" + "x" * 50, "localtime", "Factory"]
)
def test_a_hostile_time_zone_is_not_used_as_a_path(name: str) -> None:
    """No file outside of the time zone database is opened."""
    with pytest.raises(ValueError, match="There is no time zone"):
        checked_time_zone(name)
