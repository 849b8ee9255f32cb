"""Beat's decisions, one turn of its loop at a time: which slots make a job, and which do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redbeat import RedBeatSchedulerEntry

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.contract.options import RunOptions
from shared.ledger.client import Ledger
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.schedules.terms import Schedule
from shared.schedules.timetable import AsyncTimetable, Planned, Timetable
from tests.support.ledgers import RESULT, claimed, entry, record, with_async
from tests.support.servers.services import free_port
from worker.beat import BeatScheduler

HOUR_S = 3_600.0
EXTRACTION = {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}
PIPELINE = {
    **EXTRACTION,
    "transform": {"steps": [{"op": "drop_missing"}]},
    "destination": {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "replace"},
}


class Hourly:
    """An hourly schedule in the ledger, whose slots a test moves by moving its start."""

    def __init__(self, url: str, client: redis.Redis, **terms: Any) -> None:
        self._url, self._client = url, client
        self._terms = {"kind": "etl.extract_data", "params": EXTRACTION, "interval_s": HOUR_S} | terms
        self.id = uuid7()
        self.key = key("redbeat", self.id)
        self.set_slot(ago_s=HOUR_S)  # none yet
        assert with_async(url, lambda ledger: AsyncTimetable(ledger).add(self.schedule)) == "ok"

    def set_slot(self, *, ago_s: float) -> int:
        """Let the third slot be `ago_s` ago and nothing be dealt with before; return it."""
        now_ms = time.time_ns() // 1_000_000
        slot_ms = now_ms - int(ago_s * 1000)
        start_ms = slot_ms - 3 * int(HOUR_S * 1000)
        times = dict.fromkeys(("created_at_ms", "updated_at_ms", "starts_at_ms"), start_ms)
        self.schedule = Schedule.model_validate(self._terms | times | {"id": self.id, "name": "Hourly"})
        if self._client.exists(self.key):
            self._client.hset(self.key, "document", self.schedule.document())
            self.rewind()
        return slot_ms

    def rewind(self) -> None:
        """Let none of its slots be dealt with, and beat look at it at once."""
        self._client.hset(self.key, "cursor", 0)
        self._client.zadd(key("redbeat_schedule"), {self.key: 1})

    def planned(self) -> Planned:
        """Return it as the gateway reads it."""
        found = with_async(self._url, lambda ledger: AsyncTimetable(ledger).get(self.id))
        assert found is not None
        return found

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that it made."""
        return [str(job_id) for job_id in self._client.zrange(key("schedule", self.id), 0, -1)]


@pytest.fixture
def beat(broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BeatScheduler]:
    """Return what makes a beat; one without a lock does not care for other beats."""
    monkeypatch.setattr("worker.beat.broker_settings", lambda: broker)
    monkeypatch.setattr("worker.beat.default_schedules", lambda _: [])

    def made(*, locks: bool = True) -> BeatScheduler:
        app = make_celery(broker)
        if not locks:
            app.conf.redbeat_lock_key = None
        return BeatScheduler(app)

    return made


@pytest.fixture
def hourly(broker: BrokerSettings, client: redis.Redis) -> Callable[..., Hourly]:
    """Return what makes an hourly schedule."""
    return lambda **terms: Hourly(broker.broker_url, client, **terms)


def test_a_slot_makes_a_job_like_any_other(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], ledger: Ledger, client: redis.Redis
) -> None:
    """Queued with its options, its tags, its message, and a link to its schedule; the next slot is an hour later."""
    schedule = hourly(options=RunOptions(priority=9, tags=["nightly"]))
    slot_ms = schedule.set_slot(ago_s=2)
    wait_s = beat().tick()
    (job_id,) = schedule.jobs()
    job, planned = record(ledger, job_id), schedule.planned()
    assert (job.id, job.schedule, job.state) == (schedule.schedule.job_id(slot_ms), schedule.id, "queued")
    assert (job.priority, job.tags, client.llen("etl")) == (9, ("nightly",), 1)
    assert (planned.last_job, planned.last_job_state, planned.last_slot_ms) == (job_id, "queued", slot_ms)
    assert planned.cursor_ms == slot_ms
    assert client.zscore(key("redbeat_schedule"), schedule.key) == (slot_ms + HOUR_S * 1000) / 1000
    assert wait_s == 2


def test_beat_sleeps_until_the_next_slot(beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]) -> None:
    """A slot that is to come sooner than the longest nap ends it."""
    hourly().set_slot(ago_s=HOUR_S - 2)
    assert 1 < beat().tick() <= 2


def test_two_beats_make_one_job_of_a_slot(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], client: redis.Redis, ledger: Ledger
) -> None:
    """A second beat that has not seen the first one's work is answered that the job exists; also once it is gone."""
    schedule = hourly(overlap="allow")
    slot_ms = schedule.set_slot(ago_s=2)
    job_id = schedule.schedule.job_id(slot_ms)
    beat(locks=False).tick()
    schedule.rewind()
    beat(locks=False).tick()
    assert (schedule.jobs(), record(ledger, job_id).publishes) == ([job_id], 1)
    client.delete(key("job", job_id))
    client.zadd(key("gone"), {job_id: 1})
    schedule.rewind()
    beat(locks=False).tick()
    assert (schedule.planned().cursor_ms, client.exists(key("job", job_id))) == (slot_ms, 0)


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("run_once", 1)])
def test_missed_slots_follow_the_policy(
    missed: str, expected: int, beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]
) -> None:
    """Beat was down for hours: none, or one for the latest slot; either way the next one is the next."""
    schedule = hourly(missed=missed)
    slot_ms = schedule.set_slot(ago_s=600)
    beat().tick()
    beat(locks=False).tick()
    planned = schedule.planned()
    assert schedule.jobs() == [schedule.schedule.job_id(slot_ms)][:expected]
    assert (planned.cursor_ms, planned.skipped) == (slot_ms, 1 - expected)
    assert planned.skipped_why == (None if expected else "missed")


def test_a_slot_that_beat_comes_to_within_half_a_minute_is_not_missed(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]
) -> None:
    """A beat that was killed and replaced takes as long as its lock lasts."""
    schedule = hourly(missed="skip")
    slot_ms = schedule.set_slot(ago_s=26)
    beat().tick()
    assert schedule.jobs() == [schedule.schedule.job_id(slot_ms)]


@pytest.mark.parametrize(("overlap", "jobs", "skipped"), [("skip", 1, 1), ("allow", 2, 0), ("buffer_one", 1, 0)])
def test_a_slot_while_the_last_job_is_live(
    overlap: str, jobs: int, skipped: int, beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]
) -> None:
    """None, another one nevertheless, or one that waits."""
    schedule, scheduler = hourly(overlap=overlap), beat()
    schedule.set_slot(ago_s=4)
    scheduler.tick()
    slot_ms = schedule.set_slot(ago_s=1)
    scheduler.tick()
    planned = schedule.planned()
    assert (len(schedule.jobs()), planned.skipped) == (jobs, skipped)
    assert planned.skipped_why == ("overlap" if skipped else None)
    assert planned.buffered_slot_ms == (slot_ms if overlap == "buffer_one" else None)


def test_a_buffered_slot_runs_right_after_the_last_job(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], ledger: Ledger, client: redis.Redis
) -> None:
    """One waits at most, a further one is skipped; beat looks every second whether the job has ended."""
    schedule, scheduler = hourly(overlap="buffer_one"), beat()
    schedule.set_slot(ago_s=5)
    scheduler.tick()
    (first,) = schedule.jobs()
    buffered_ms = schedule.set_slot(ago_s=3)
    assert scheduler.tick() <= 1
    schedule.set_slot(ago_s=1)
    assert scheduler.tick() <= 1
    assert (schedule.planned().buffered_slot_ms, schedule.planned().skipped) == (buffered_ms, 1)

    ledger.succeed(first, token=claimed(ledger, first).token, result=RESULT)
    client.zadd(key("redbeat_schedule"), {schedule.key: 1})  # a second has passed
    scheduler.tick()
    assert schedule.jobs() == [first, schedule.schedule.job_id(buffered_ms)]
    assert schedule.planned().buffered_slot_ms is None


def test_a_job_run_by_hand_counts_for_the_overlap(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], accept: Callable[..., Any]
) -> None:
    """What looks at a live job looks at every job of the schedule, not only at those of its slots."""
    schedule = hourly(overlap="skip")
    by_hand = entry(schedule=schedule.id)
    accept(by_hand)
    schedule.set_slot(ago_s=1)
    beat().tick()
    assert schedule.jobs() == [by_hand.id]
    assert (schedule.planned().last_job, schedule.planned().skipped) == (by_hand.id, 1)


def test_a_slot_is_skipped_while_another_job_has_its_unique_key(
    hourly: Callable[..., Hourly], client: redis.Redis, accept: Callable[..., Any]
) -> None:
    """Whatever the policy for overlaps is, and whoever submitted the other job."""
    schedule = hourly(overlap="allow")
    slot_ms, other = schedule.set_slot(ago_s=1), entry(unique_key=".acme.audit")
    accept(other)
    due = entry(id=schedule.schedule.job_id(slot_ms), schedule=schedule.id, unique_key=other.unique_key)
    timetable, seen = Timetable(Ledger(client)), schedule.planned()
    assert timetable.tick(seen, slot_ms, next_ms=slot_ms + 1, job=due) == "skipped"
    assert (schedule.jobs(), schedule.planned().skipped_why) == ([], "overlap")


def test_what_was_edited_meanwhile_is_not_run(
    hourly: Callable[..., Hourly], client: redis.Redis, broker: BrokerSettings
) -> None:
    """Beat had read the schedule before it was paused: the ledger refuses the tick."""
    schedule = hourly()
    slot_ms = schedule.set_slot(ago_s=1)
    seen = schedule.planned()
    paused = schedule.schedule.model_copy(update={"paused": True})
    with_async(broker.broker_url, lambda ledger: AsyncTimetable(ledger).replace(seen, paused, restart=True))
    assert Timetable(Ledger(client)).tick(seen, slot_ms, next_ms=slot_ms + 1) == "stale"
    assert client.zscore(key("redbeat_schedule"), schedule.key) == -1


def test_of_two_edits_at_once_one_is_told(hourly: Callable[..., Hourly], broker: BrokerSettings) -> None:
    """The second writes over what it has not seen, so it is refused."""
    schedule = hourly()
    seen = schedule.planned()

    def edit() -> str:
        return with_async(
            broker.broker_url, lambda ledger: AsyncTimetable(ledger).replace(seen, schedule.schedule, restart=False)
        )

    assert [edit(), edit()] == ["ok", "changed"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "acme.forgotten_kind"}, "is unknown to beat"),
        ({"params": {"source": {"kind": "http", "url": "gopher://x"}}}, "no longer takes these parameters"),
        ({"kind": "workflow.chain", "params": {"steps": [{"kind": "acme.gone"}]}}, "is no longer valid: steps.0"),
    ],
)
def test_a_schedule_that_can_make_no_job_says_why(
    change: dict[str, Any], complaint: str, beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]
) -> None:
    """A kind was taken away, or takes other parameters now; the other schedules go on."""
    broken, sound = hourly(**change), hourly()
    slot_ms = broken.set_slot(ago_s=2)
    sound.set_slot(ago_s=1)
    beat().tick()
    assert (len(broken.jobs()), len(sound.jobs())) == (0, 1)
    assert complaint in str(broken.planned().trouble)
    assert broken.planned().cursor_ms == slot_ms


def test_a_workflow_is_scheduled_with_its_steps(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], ledger: Ledger
) -> None:
    """Its job and steps are in the ledger, the first step is queued."""
    schedule = hourly(kind="etl.run_pipeline", params=PIPELINE)
    schedule.set_slot(ago_s=2)
    beat().tick()
    job = record(ledger, schedule.jobs()[0])
    assert (job.schedule, job.steps[0].state, job.steps[-1].state) == (schedule.id, "queued", "waiting")


def test_a_second_beat_stands_by(beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly]) -> None:
    """It does nothing while the first one ticks, and goes on when that has given the lock back."""
    schedule, first, second = hourly(), beat(), beat()
    first.tick()
    slot_ms = schedule.set_slot(ago_s=1)
    assert second.tick() == 1
    assert schedule.jobs() == []
    first.close()
    second.tick()
    assert schedule.jobs() == [schedule.schedule.job_id(slot_ms)]


def test_a_lock_that_lapsed_is_taken_again(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], client: redis.Redis
) -> None:
    """RedBeat's own scheduler ends there."""
    schedule, scheduler = hourly(), beat()
    scheduler.tick()
    client.delete(key("redbeat_lock"))
    schedule.set_slot(ago_s=1)
    scheduler.tick()
    assert len(schedule.jobs()) == 1
    assert 4 < float(client.pttl(key("redbeat_lock"))) / 1000 <= 6


def test_a_ledger_that_is_away_ends_no_beat(beat: Callable[..., BeatScheduler], broker: BrokerSettings) -> None:
    """It starts, ticks and closes without a ledger, and looks again every second."""
    broker.broker_url = broker.ledger_url = f"redis://127.0.0.1:{free_port()}/0"
    scheduler = beat()
    assert [scheduler.tick(), scheduler.tick()] == [1, 1]
    scheduler.close()


def test_a_full_ledger_gets_no_jobs_of_schedules_until_it_has_room(
    beat: Callable[..., BeatScheduler],
    hourly: Callable[..., Hourly],
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They count as submissions. Beat says so once, leaves the reserve alone, and then follows what missed slots do."""
    late, skipping = hourly(missed="run_once"), hourly(missed="skip")
    for schedule in (late, skipping):
        schedule.set_slot(ago_s=60)
    scheduler = beat()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
    try:
        assert [scheduler.tick(), scheduler.tick()] == [1, 1]
        assert (late.jobs(), late.planned().cursor_ms) == ([], 0)
    finally:
        client.config_set("maxmemory", 0)
    scheduler.tick()
    assert (len(late.jobs()), skipping.jobs(), skipping.planned().skipped_why) == (1, [], "missed")
    why = "its memory is used up, except for 10% of maxmemory and what its jobs need"
    assert [message for message in caplog.messages if "full" in message or "room" in message] == [
        f"beat: the ledger is full ({why}): no jobs",
        "beat: there is room again",
    ]


def test_redbeats_own_reader_finds_the_entry(
    hourly: Callable[..., Hourly], client: redis.Redis, broker: BrokerSettings
) -> None:
    """Under RedBeat's key and in its index, as configured; a paused one where it is never looked at."""
    app: Any = make_celery(broker)
    schedule = hourly()
    entry_read = RedBeatSchedulerEntry.from_key(schedule.key, app=app)
    assert (entry_read.name, entry_read.task, entry_read.key) == (schedule.id, "etl.extract_data", schedule.key)
    assert client.zscore(app.redbeat_conf.schedule_key, entry_read.key) is not None


def test_a_schedule_that_cannot_be_read_stops_no_other(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], client: redis.Redis
) -> None:
    """Its time zone is not in the image that beat runs in, for example."""
    strange, sound = hourly(), hourly()
    document = strange.schedule.document().replace('"name"', '"time_zone":"Mars/Olympus","name"')
    strange.set_slot(ago_s=1)
    client.hset(strange.key, "document", document)
    sound.set_slot(ago_s=1)
    beat().tick()
    assert (strange.jobs(), len(sound.jobs())) == ([], 1)


def test_entries_that_are_not_ours_are_left_alone(
    beat: Callable[..., BeatScheduler], hourly: Callable[..., Hourly], client: redis.Redis
) -> None:
    """Somebody's own RedBeat entry under the prefix makes no job and does no harm."""
    client.hset(key("redbeat", "theirs"), "definition", json.dumps({"name": "theirs", "task": "x"}))
    client.zadd(key("redbeat_schedule"), {key("redbeat", "theirs"): 1})
    schedule = hourly()
    schedule.set_slot(ago_s=1)
    beat().tick()
    assert len(schedule.jobs()) == 1
    assert client.exists(key("redbeat", "theirs")) == 1


def test_what_comes_with_the_service_is_made_once(
    beat: Callable[..., BeatScheduler], broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first start of beat; one that was deleted does not come back."""
    monkeypatch.undo()
    monkeypatch.setattr("worker.beat.broker_settings", lambda: broker)

    def kinds() -> list[str]:
        found = with_async(broker.broker_url, lambda ledger: AsyncTimetable(ledger).list(limit=10))
        return sorted(planned.schedule.kind for planned in found)

    beat(locks=False).tick()
    beat(locks=False).tick()
    first = with_async(broker.broker_url, lambda ledger: AsyncTimetable(ledger).list(limit=1))
    made = kinds()
    assert made == sorted(set(made))
    assert "report.generate_daily_report" in made
    with_async(broker.broker_url, lambda ledger: AsyncTimetable(ledger).remove(first[0].schedule.id))
    beat(locks=False).tick()
    assert len(kinds()) == len(made) - 1
