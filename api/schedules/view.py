"""Turn the timetable's records into the schedules that clients see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from api.http.models import at, at_or_none
from api.schedules.schemas import Schedule, ScheduledJob, ScheduleLinks, SkippedSlot
from shared.ledger.states import State
from shared.schedules import terms as schedules
from shared.schedules.timetable import Planned

_SLOTS_SHOWN = 5


def shown(planned: Planned) -> Schedule:
    """Return a schedule with its next slots and its progress."""
    schedule = planned.schedule
    return Schedule(
        **_terms(schedule),
        created_at=at(schedule.created_at_ms),
        updated_at=at(schedule.updated_at_ms),
        next_run_times=[
            at(slot)
            for slot in schedule.next_slots(time.time_ns() // 1_000_000, 0 if schedule.paused else _SLOTS_SHOWN)
        ],
        last_job=_last_job(planned),
        last_slot_at=at_or_none(planned.last_slot_ms),
        waiting_slot_at=at_or_none(planned.buffered_slot_ms),
        skipped_count=planned.skipped,
        last_skipped=_last_skipped(planned),
        trouble=planned.trouble,
        links=_links(schedule.id),
    )


def _terms(schedule: schedules.Schedule) -> Mapping[str, Any]:
    same = Schedule.model_fields.keys() & schedules.Schedule.model_fields.keys()
    return {name: getattr(schedule, name) for name in same} | {
        "options": schedule.options.model_dump(mode="json", exclude_unset=True)
    }


def _last_job(planned: Planned) -> ScheduledJob | None:
    if planned.last_job is None:
        return None
    state = planned.last_job_state
    return ScheduledJob(id=planned.last_job, state=State(state) if state else None, url=f"/jobs/{planned.last_job}")


def _last_skipped(planned: Planned) -> SkippedSlot | None:
    if planned.skipped_slot_ms is None:
        return None
    why: Literal["missed", "overlap"] = "missed" if planned.skipped_why == "missed" else "overlap"
    return SkippedSlot(slot_at=at(planned.skipped_slot_ms), why=why)


def url_of(schedule_id: str) -> str:
    """Return the URL of a schedule."""
    return f"/schedules/{schedule_id}"


def _links(schedule_id: str) -> ScheduleLinks:
    url = url_of(schedule_id)
    return ScheduleLinks(
        self=url,
        pause=f"{url}/pause",
        resume=f"{url}/resume",
        run=f"{url}/run",
        jobs=f"/jobs?schedule={schedule_id}",
    )
