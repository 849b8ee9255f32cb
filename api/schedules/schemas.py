"""What goes in and out of `/schedules`. A schedule's own part of a request is its `Terms`; see `shared.schedules`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.http.models import Out
from shared.ledger.states import State
from shared.schedules.crontabs import Crontab
from shared.schedules.terms import Missed, Overlap, Terms


class ScheduleRequest(Terms):
    """A schedule to be. The models of the kinds derive from this one and give `kind` and `params` their types."""

    kind: str = Field(description="What kind of job it makes; see `GET /job-kinds`.")
    params: Any = Field(description="The parameters of the kind.")
    paused: bool | None = Field(
        default=None, description="Whether it is paused; left out: as it is, and a new one is not."
    )


class ScheduledJob(Out):
    """The job that a schedule made last."""

    id: str = Field(description="Its id.")
    state: State | None = Field(description="Its state; null once it is past its retention.")
    url: str = Field(description="Where to read it.")


class SkippedSlot(Out):
    """A slot for which no job was made."""

    slot_at: AwareDatetime = Field(description="The slot.")
    why: Literal["missed", "overlap"] = Field(description="`missed`: beat was down; `overlap`: a job was under way.")


class ScheduleLinks(Out):
    """Where to go on."""

    self: str = Field(description="The schedule: GET, PUT, DELETE.")
    pause: str = Field(description="POST here to pause it.")
    resume: str = Field(description="POST here to let it go on.")
    run: str = Field(description="POST here to make a job now.")
    jobs: str = Field(description="The jobs that it made.")


class Schedule(Out):
    """A schedule."""

    id: str = Field(description="Its id.")
    name: str = Field(description="What it is called.")
    kind: str = Field(description="The kind of its jobs.")
    params: dict[str, Any] = Field(description="The parameters of its jobs, with their defaults.")
    options: dict[str, Any] = Field(description="The options that were given.")
    crontab: Crontab | None = Field(description="When it runs, by wall clock; or `interval_s`.")
    interval_s: float | None = Field(description="How often it runs, in seconds; or `crontab`.")
    time_zone: str = Field(description="The crontab's time zone.")
    missed: Missed = Field(description="What becomes of missed slots.")
    overlap: Overlap = Field(description="What becomes of a slot while a job has not ended.")
    paused: bool = Field(description="Whether it makes no jobs.")
    note: str | None = Field(description="Why it comes paused, if it came with the service.")
    created_at: AwareDatetime = Field(description="When it was made.")
    updated_at: AwareDatetime = Field(description="When it was edited, paused or resumed last.")
    next_run_times: list[AwareDatetime] = Field(description="Its next five slots; none while it is paused.")
    last_job: ScheduledJob | None = Field(description="The job that it made last.")
    last_slot_at: AwareDatetime | None = Field(description="The last slot for which it made a job.")
    waiting_slot_at: AwareDatetime | None = Field(
        description="The slot whose job is made as soon as the last one has ended (`overlap: buffer_one`)."
    )
    skipped_count: int = Field(
        ge=0, description="Slots for which no job was made. All that beat missed in one go are one."
    )
    last_skipped: SkippedSlot | None = Field(description="The last of them.")
    trouble: str | None = Field(description="Why its last slot could make no job, and what to do.")
    links: ScheduleLinks = Field(description="Where to go on.")


class SchedulePages(BaseModel):
    """Which part of the list is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    page_size: int = Field(default=50, ge=1, le=200, description="Schedules a page, at most.")
    page_token: str | None = Field(default=None, max_length=200, description="`next_page_token` of the page before.")


class SchedulePage(Out):
    """Some schedules, newest first."""

    schedules: list[Schedule] = Field(description="The schedules.")
    next_page_token: str | None = Field(description="Give it as `page_token` for the next page; null at the end.")
