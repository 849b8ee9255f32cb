"""The timetable: the schedules in the ledger's Redis, and beat's decision about a slot.

The gateway uses `AsyncTimetable`, beat uses `Timetable`. The decisions are in `script/schedules.lua`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

from pydantic import ValidationError

from shared.ledger.aclient import AsyncLedger
from shared.ledger.client import Ledger
from shared.ledger.records import Entry
from shared.schedules.terms import MAX_SCHEDULES, Schedule

logger = logging.getLogger(__name__)

_POLL_MS = 1_000  # interval at which beat checks whether the job before a buffered one has ended
_DUE_AT_ONCE = 100

Written = Literal["ok", "unknown", "changed", "full", "exists"]
Decision = Literal["accepted", "replayed", "skipped", "buffered", "waiting", "troubled", "free", "stale"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule and its progress. Times are milliseconds since 1970."""

    schedule: Schedule
    revision: str
    cursor_ms: int  # slots up to this time are decided
    buffered_slot_ms: int | None = None
    last_job: str | None = None
    last_job_state: str | None = None  # None if the job's retention has passed
    last_slot_ms: int | None = None
    skipped: int = 0
    skipped_slot_ms: int | None = None
    skipped_why: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """The schedules that are due now, and the time of the next check, by the ledger's clock in milliseconds."""

    now_ms: int
    again_at_ms: int | None
    planned: Sequence[Planned]


class Timetable:
    """The client of beat. Redis errors are raised unchanged."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def put(self, schedule: Schedule, *, default: str) -> Written:
        """Write a default schedule, unless that was done before."""
        return cast("Written", self._ledger.call("schedule_put", _new(schedule) | {"default": default}))

    def due(self) -> Due:
        """Return the due schedules, without unreadable ones (for example a time zone missing in this image)."""
        now, again, *hashes = self._ledger.call("schedules_due", {"limit": _DUE_AT_ONCE})
        planned = []
        for flat in hashes:
            try:
                planned.append(_planned(flat))
            except ValidationError as unreadable:
                logger.warning("a schedule cannot be read: %s", unreadable)
        return Due(int(now), int(again) if again else None, planned)

    def tick(
        self,
        planned: Planned,
        slot_ms: int,
        *,
        next_ms: int,
        missed: bool = False,
        trouble: str | None = None,
        job: Entry | None = None,
    ) -> Decision:
        """Decide about one slot. Without `job` the answer may be `free`: create the job and call again."""
        schedule = planned.schedule
        arguments: dict[str, Any] = {
            "id": schedule.id,
            "revision": planned.revision,
            "slot": slot_ms,
            "next": next_ms,
            "job_id": schedule.job_id(slot_ms),
            "overlap": schedule.overlap,
            "poll_ms": _POLL_MS,
            "missed": missed,
        }
        if trouble is not None:
            arguments["trouble"] = trouble
        if schedule.key_id is not None:
            arguments["key_id"] = schedule.key_id
        if job is not None:
            arguments["job"] = job.record()
        return cast("Decision", self._ledger.call("schedule_tick", arguments))


class AsyncTimetable:
    """The client of the gateway. Raises `LedgerUnavailable`."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def add(self, schedule: Schedule) -> Written:
        """Write a new schedule: `ok`, or `full`."""
        return cast("Written", await self._ledger.call("schedule_put", _new(schedule)))

    async def replace(self, before: Planned, schedule: Schedule, *, restart: bool) -> Written:
        """Replace the schedule that was read: `ok`, `unknown` or `changed`.

        `restart`: slots count from now on; earlier ones are not missed.
        """
        counted_from_ms = schedule.updated_at_ms if restart else before.cursor_ms
        arguments = _written(schedule, counted_from_ms) | {"revision": before.revision, "restart": restart}
        return cast("Written", await self._ledger.call("schedule_put", arguments))

    async def remove(self, schedule_id: str) -> bool:
        """Delete a schedule but not its jobs. Returns whether it existed."""
        return bool(await self._ledger.call("schedule_delete", {"id": schedule_id}))

    async def get(self, schedule_id: str) -> Planned | None:
        found = await self._ledger.call("schedule", {"id": schedule_id})
        return _planned(*found) if found else None

    async def list(self, *, limit: int, before: str | None = None) -> list[Planned]:
        """Return at most `limit` schedules, newest first; only those with ids below `before`."""
        arguments: dict[str, Any] = {"limit": limit} | ({"before": before} if before else {})
        return [_planned(*found) for found in await self._ledger.call("schedules", arguments)]


def _new(schedule: Schedule) -> dict[str, Any]:
    return _written(schedule, schedule.updated_at_ms) | {"restart": True, "most": MAX_SCHEDULES}


def _written(schedule: Schedule, counted_from_ms: int) -> dict[str, Any]:
    written: dict[str, Any] = {
        "id": schedule.id,
        "document": schedule.document(),
        "definition": schedule.definition(),
    }
    if not schedule.paused:
        written["look_at"] = schedule.after(counted_from_ms)
    return written


@lru_cache(maxsize=MAX_SCHEDULES)  # checking a crontab takes most of a millisecond
def _schedule(document: str) -> Schedule:
    return Schedule.model_validate_json(document)


def _planned(flat: Sequence[str], last_job_state: str = "") -> Planned:
    values: Mapping[str, str] = dict(zip(flat[::2], flat[1::2], strict=True))

    def ms(name: str) -> int | None:
        return int(values[name]) if name in values else None

    return Planned(
        schedule=_schedule(values["document"]),
        revision=values["revision"],
        cursor_ms=int(values["cursor"]),
        buffered_slot_ms=ms("buffered"),
        last_job=values.get("last_job"),
        last_job_state=last_job_state or None,
        last_slot_ms=ms("last_slot"),
        skipped=int(values.get("skipped", 0)),
        skipped_slot_ms=ms("skipped_slot"),
        skipped_why=values.get("skipped_why"),
        trouble=values.get("trouble"),
    )
