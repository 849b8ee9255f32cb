"""Schedules: intervals, job ids, what is kept, and what comes with the service."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redbeat import RedBeatSchedulerEntry

from shared.contract.catalogue import Catalogue, catalogue
from shared.contract.options import RunOptions
from shared.ledger.ids import uuid7
from shared.schedules.crontabs import Crontab
from shared.schedules.defaults import default_schedules
from shared.schedules.terms import Schedule, Terms

START_MS = 1_800_000_000_000


def schedule(**changes: Any) -> Schedule:
    """Return a schedule of a note every ten seconds."""
    terms: dict[str, Any] = {
        "id": uuid7(),
        "name": "Notes",
        "kind": "acme.take_note",
        "params": {"notebook": "n.txt"},
        "created_at_ms": START_MS,
        "updated_at_ms": START_MS,
        "starts_at_ms": START_MS,
    }
    rhythm = {} if "crontab" in changes else {"interval_s": 10.0}
    return Schedule(**terms | rhythm | changes)


@given(every_s=st.floats(1, 100_000), later_ms=st.integers(0, 10**9))
def test_an_intervals_slots_are_its_multiples_since_the_start(every_s: float, later_ms: int) -> None:
    """They do not drift, and the start itself is none."""
    made = schedule(interval_s=every_s)
    every_ms = round(every_s * 1000)
    at_ms = START_MS + later_ms
    assert made.after(at_ms) == START_MS + (later_ms // every_ms + 1) * every_ms
    expected = START_MS + later_ms // every_ms * every_ms
    assert made.latest(at_ms) == (expected if expected > START_MS else None)


def test_before_its_start_an_interval_waits_for_its_first_slot() -> None:
    """A clock that is behind the one that set the start does no harm."""
    made = schedule()
    assert (made.after(START_MS - 60_000), made.latest(START_MS - 60_000)) == (START_MS + 10_000, None)
    assert made.next_slots(START_MS, 3) == [START_MS + 10_000, START_MS + 20_000, START_MS + 30_000]


def test_a_slots_job_id_is_the_same_everywhere_and_sorts_by_time() -> None:
    """It is a version 7 UUID of the slot's time; another slot or schedule has another one."""
    made, other = schedule(), schedule()
    ids = [made.job_id(START_MS + n) for n in range(100)]
    assert ids == [Schedule.model_validate_json(made.document()).job_id(START_MS + n) for n in range(100)]
    assert ids == sorted(set(ids))
    assert {(UUID(job_id).version, UUID(job_id).variant) for job_id in ids} == {(7, "specified in RFC 4122")}
    assert UUID(ids[0]).int >> 80 == START_MS
    assert made.job_id(START_MS) != other.job_id(START_MS)


def test_a_document_comes_back_as_it_was() -> None:
    """Also options that were given, and those that were not."""
    made = schedule(crontab=Crontab(minute="0", hour="9"), options=RunOptions(priority=9, tags=["nightly"]))
    read = Schedule.model_validate_json(made.document())
    assert read == made
    assert read.options.model_fields_set == {"priority", "tags"}


@pytest.mark.parametrize("rhythm", [{}, {"interval_s": 5.0, "crontab": Crontab(minute="0")}])
def test_exactly_one_rhythm(rhythm: dict[str, Any]) -> None:
    """A schedule has a crontab or an interval."""
    with pytest.raises(ValidationError, match="give either 'crontab' or 'interval_s'"):
        Terms(name="x", **rhythm)


@pytest.mark.parametrize("wrong", [{"interval_s": 0.9}, {"interval_s": float("nan")}, {"interval_s": 1e9}])
def test_an_interval_has_bounds(wrong: dict[str, Any]) -> None:
    """A second at least, a year at most."""
    with pytest.raises(ValidationError, match="interval_s"):
        Terms(name="x", **wrong)


def test_redbeats_own_reader_understands_the_definition() -> None:
    """Kind, rhythm and pause, without the parameters: RedBeat's decoder would make objects of some."""
    made = schedule(crontab=Crontab(minute="0", hour="9"), paused=True, params={"__type__": "datetime"})
    read = RedBeatSchedulerEntry.decode_definition(made.definition())
    assert (read["task"], read["enabled"], read["kwargs"]) == ("acme.take_note", False, {})
    assert (read["schedule"].hour, read["schedule"].minute) == ({9}, {0})
    every = RedBeatSchedulerEntry.decode_definition(schedule().definition())["schedule"]
    assert every.run_every.total_seconds() == 10


def test_the_missions_schedules_come_with_the_service() -> None:
    """Daily report 09:00, hourly sync, weekly clean-up on Sunday 02:00, all UTC, with parameters their kinds take."""
    rhythms = {
        "report.generate_daily_report": Crontab(minute="0", hour="9"),
        "maintenance.sync_data": Crontab(minute="0"),
        "maintenance.cleanup_old_data": Crontab(minute="0", hour="2", day_of_week="sun"),
    }
    made = {default.kind: default for default in default_schedules(START_MS)}
    assert {kind: default.crontab for kind, default in made.items()} == {
        kind: rhythm for kind, rhythm in rhythms.items() if kind in catalogue()
    }
    missed = {kind: default.missed for kind, default in made.items()}
    assert missed == {kind: "skip" if kind == "maintenance.sync_data" else "run_once" for kind in made}
    for default in made.values():
        assert (type(default.job()), default.time_zone) == (catalogue()[default.kind], "UTC")


def test_the_sync_comes_paused_and_says_why() -> None:
    """Only the user knows its connections."""
    (sync,) = [made for made in default_schedules(START_MS) if made.kind == "maintenance.sync_data"]
    assert sync.paused
    assert "connections" in str(sync.note)


def test_kinds_that_are_not_here_have_no_default_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation with contracts of its own only gets none."""
    monkeypatch.setattr("shared.schedules.defaults.catalogue", lambda: Catalogue([]))
    assert default_schedules(START_MS) == []
