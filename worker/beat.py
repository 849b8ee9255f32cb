"""Beat: makes the jobs of schedules when they are due. `celery -A worker.app beat` runs it, through RedBeat.

RedBeat's lock, which one of several beats holds, saves work; it is not what keeps a tick to one job. That is the
ledger's decision over each slot, so beats that know nothing of each other do no harm.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

import redbeat.schedulers
from celery import Celery
from celery.signals import beat_init
from pydantic import ValidationError
from redbeat import RedBeatScheduler
from redis.exceptions import LockError, RedisError

from shared.broker.messages import Composer
from shared.broker.settings import broker_settings
from shared.errors import redact
from shared.ledger.client import Ledger
from shared.ledger.records import Entry
from shared.schedules.defaults import default_schedules
from shared.schedules.terms import ON_TIME_S
from shared.schedules.timetable import Decision, Due, Planned, Timetable
from shared.workflows.nodes import PlanRefused
from shared.workflows.planning import Planner, prepare

logger = logging.getLogger(__name__)

_RETRY_S = 1.0  # after the ledger did not answer
_MS = 1_000

# RedBeat takes the lock once, at the start, and dies without it; here a beat without it stands by: see `tick`.
beat_init.disconnect(redbeat.schedulers.acquire_distributed_beat_lock)


class BeatScheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """Celery's scheduler: one `tick` a turn of beat's loop."""

    lock: Any = None  # redis.lock.Lock while this beat has it

    def __init__(self, app: Celery, **options: Any) -> None:
        """Take Celery's arguments."""
        super().__init__(app, **options)
        settings = broker_settings()
        self._client = redbeat.schedulers.get_redis(app)
        self._timetable = Timetable(Ledger(self._client))
        self._planner = Planner(settings, Composer(settings))
        self._is_set_up = False
        self._is_away = False

    def setup_schedule(self) -> None:
        """Do nothing yet: the ledger may be away while beat starts."""

    def tick(self, *_: Any, **__: Any) -> float:
        """Make the jobs that are due; return after how many seconds to do so again."""
        try:
            if not self._holds_lock():
                return _RETRY_S
            if not self._is_set_up:
                self._install_defaults()
            wait_s = self._run_due()
        except (RedisError, OSError) as failure:
            logger.log(logging.DEBUG if self._is_away else logging.WARNING, "beat: %s", redact(repr(failure)))
            self._is_away = True
            return _RETRY_S
        if self._is_away:
            logger.warning("beat: the ledger answers again")
            self._is_away = False
        return wait_s

    def close(self) -> None:
        """Give the lock back, if the ledger is there to take it."""
        lock, self.lock = self.lock, None
        if lock is not None:
            with suppress(RedisError, OSError):
                lock.release()

    def _holds_lock(self) -> bool:
        """Take or prolong the lock; return whether this beat has it. Without a `lock_key` there is none to have."""
        if not self.lock_key:
            return True
        if self.lock is not None:
            with suppress(LockError):  # it has lapsed, and may be another's by now
                return bool(self.lock.reacquire())
            self.lock = None
        lock = self._client.lock(self.lock_key, timeout=self.lock_timeout, blocking=False)
        if lock.acquire():
            logger.info("beat: took the lock")
            self.lock = lock
        return self.lock is not None

    def _install_defaults(self) -> None:
        for schedule in default_schedules(time.time_ns() // 1_000_000):
            if self._timetable.put(schedule, default=schedule.kind) == "ok":
                logger.info("beat: made the schedule %r", schedule.name)
        self._is_set_up = True

    def _run_due(self) -> float:
        broken: set[str] = set()
        while True:
            due = self._timetable.due()
            ready = [planned for planned in due.planned if planned.schedule.id not in broken]
            if not ready:
                return self._wait_s(due)
            broken |= {planned.schedule.id for planned in ready if not self._ran(planned, due.now_ms)}

    def _wait_s(self, due: Due) -> float:
        longest = float(self.max_interval)
        return longest if due.again_at_ms is None else min((due.again_at_ms - due.now_ms) / _MS, longest)

    def _ran(self, planned: Planned, now_ms: int) -> bool:
        try:
            self._run(planned, now_ms)
        except (RedisError, OSError):
            raise
        except Exception:  # one broken schedule must not stop the others; it stays due
            logger.exception("beat: the schedule %s", planned.schedule.id)
            return False
        return True

    def _run(self, planned: Planned, now_ms: int) -> None:
        """Deal with the slot that waits for the last job's end, and with the latest one that is due."""
        schedule = planned.schedule
        next_ms = schedule.after(now_ms)
        slot_ms = schedule.latest(now_ms)
        if planned.buffered_slot_ms is not None:
            self._decide(planned, planned.buffered_slot_ms, next_ms)
        if slot_ms is None or slot_ms <= planned.cursor_ms:
            if planned.buffered_slot_ms is None:  # nothing yet: looked too early
                self._timetable.tick(planned, planned.cursor_ms, next_ms=next_ms)
            return
        missed = now_ms - slot_ms > ON_TIME_S * _MS and schedule.missed == "skip"
        self._decide(planned, slot_ms, next_ms, missed=missed)

    def _decide(self, planned: Planned, slot_ms: int, next_ms: int, *, missed: bool = False) -> None:
        decision = self._timetable.tick(planned, slot_ms, next_ms=next_ms, missed=missed)
        if decision == "free":
            decision = self._make(planned, slot_ms, next_ms)
        if decision not in {"waiting", "stale"}:
            logger.info("beat: schedule %s, slot %d: %s", planned.schedule.id, slot_ms, decision)

    def _make(self, planned: Planned, slot_ms: int, next_ms: int) -> Decision:
        try:
            job = self._entry(planned, slot_ms)
        except (KeyError, ValidationError, PlanRefused) as changed:
            trouble = _trouble(planned, changed)
            logger.warning("beat: schedule %s: %s", planned.schedule.id, trouble)
            return self._timetable.tick(planned, slot_ms, next_ms=next_ms, trouble=trouble)
        return self._timetable.tick(planned, slot_ms, next_ms=next_ms, job=job)

    def _entry(self, planned: Planned, slot_ms: int) -> Entry:
        schedule = planned.schedule
        job_id = schedule.job_id(slot_ms)
        return self._planner.entry(prepare(schedule.job(), schedule.options), job_id=job_id, schedule=schedule.id)


def _trouble(planned: Planned, changed: KeyError | ValidationError | PlanRefused) -> str:
    if isinstance(changed, KeyError):
        return f"The kind {planned.schedule.kind!r} is not known to beat: give it the same CELERIAC_CONTRACTS."
    if isinstance(changed, PlanRefused):
        where, what = ".".join(map(str, changed.problems[0][0])), changed.problems[0][1]
        return f"The workflow cannot be made any more: {where}: {what} Edit the schedule."
    first = changed.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"The kind takes these parameters no more: {where}: {first['msg']}. Edit the schedule."
