"""Beat: submits the jobs of schedules when they are due. `celery -A worker.app beat` runs it, with RedBeat.

RedBeat's lock, which one of several beats holds, only saves work. The ledger decides about each slot, so a tick makes
one job even if several beats run without a common lock.
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
from shared.collector import set_aside_what_is_loaded
from shared.ledger.calling.headroom import Room
from shared.ledger.client import Ledger
from shared.ledger.keys import Keys
from shared.ledger.records import Entry
from shared.schedules.defaults import default_schedules
from shared.schedules.terms import ON_TIME_S
from shared.schedules.timetable import Decision, Due, Planned, Timetable
from shared.texts import redact
from shared.workflows.nodes import PlanRefused
from shared.workflows.planning import Planner, prepare

logger = logging.getLogger(__name__)

_RETRY_S = 1.0  # delay after an error of the ledger
_MS = 1_000

# RedBeat takes the lock once, at the start, and exits without it; this beat stands by instead: see `tick`.
beat_init.disconnect(redbeat.schedulers.acquire_distributed_beat_lock)


class BeatScheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """A Celery scheduler: one `tick` per turn of beat's loop."""

    lock: Any = None  # redis.lock.Lock while this beat has it

    def __init__(self, app: Celery, **options: Any) -> None:
        super().__init__(app, **options)
        settings = broker_settings()
        self._client = redbeat.schedulers.get_redis(app)
        self._timetable = Timetable(Ledger(self._client))
        self._planner = Planner(settings, Composer(settings))
        set_aside_what_is_loaded()
        self._room = Room(reserve_ratio=settings.ledger_reserve_ratio, keys=Keys())
        self._is_set_up = False
        self._is_away = False

    def setup_schedule(self) -> None:
        """Do nothing: the ledger may be unreachable while beat starts."""

    def tick(self, *_: Any, **__: Any) -> float:
        """Submit the jobs that are due; return the seconds until the next tick."""
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
            logger.warning("beat: the ledger works again")
            self._is_away = False
        return wait_s

    def close(self) -> None:
        """Release the lock, if the ledger is reachable."""
        lock, self.lock = self.lock, None
        if lock is not None:
            with suppress(RedisError, OSError):
                lock.release()

    def _holds_lock(self) -> bool:
        """Take or extend the lock; return whether this beat has it. Without a `lock_key` there is no lock."""
        if not self.lock_key:
            return True
        if self.lock is not None:
            with suppress(LockError):  # it has expired, and another beat may have it
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
                logger.info("beat: created the schedule %r", schedule.name)
        self._is_set_up = True

    def _run_due(self) -> float:
        broken: set[str] = set()
        while True:
            due = self._timetable.due()
            ready = [planned for planned in due.planned if planned.schedule.id not in broken]
            if not ready:
                return self._wait_s(due)
            if not self._has_room():
                return _RETRY_S
            broken |= {planned.schedule.id for planned in ready if not self._ran(planned, due.now_ms)}

    def _has_room(self) -> bool:
        """Return whether the ledger has room for jobs. Until then slots wait; what was missed follows its policy."""
        before = self._room.problem
        with self._client.pipeline(transaction=False) as pipeline:
            self._room.ask(pipeline)
            self._room.told(*pipeline.execute())
        if self._room.problem != before:
            what = (
                f"the ledger is full ({self._room.problem}): no jobs" if self._room.problem else "there is room again"
            )
            logger.warning("beat: %s", what)
        return self._room.problem is None

    def _wait_s(self, due: Due) -> float:
        longest = float(self.max_interval)
        return longest if due.again_at_ms is None else min((due.again_at_ms - due.now_ms) / _MS, longest)

    def _ran(self, planned: Planned, now_ms: int) -> bool:
        try:
            self._run(planned, now_ms)
        except (RedisError, OSError):
            raise
        except Exception:  # an error in one schedule must not stop the others; it stays due
            logger.exception("beat: the schedule %s", planned.schedule.id)
            return False
        return True

    def _run(self, planned: Planned, now_ms: int) -> None:
        """Decide about the slot that waits for the last job's end, and about the latest one that is due."""
        schedule = planned.schedule
        next_ms = schedule.after(now_ms)
        slot_ms = schedule.latest(now_ms)
        if planned.buffered_slot_ms is not None:
            self._decide(planned, planned.buffered_slot_ms, next_ms)
        if slot_ms is None or slot_ms <= planned.cursor_ms:
            if planned.buffered_slot_ms is None:  # nothing is due yet
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
        return (
            f"The kind {planned.schedule.kind!r} is unknown to beat: set its CELERIAC_CONTRACTS to that of the gateway."
        )
    if isinstance(changed, PlanRefused):
        where, what = ".".join(map(str, changed.problems[0][0])), changed.problems[0][1]
        return f"The workflow is no longer valid: {where}: {what} Edit the schedule."
    first = changed.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"The kind no longer takes these parameters: {where}: {first['msg']}. Edit the schedule."
