"""Schemas of `/schedules`. The terms in a request are `shared.schedules.terms.Terms`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import AwareDatetime, BaseModel, Field, create_model

from api.http.models import Out
from shared.contract.catalogue import Catalogue
from shared.contract.params import Component
from shared.ledger.states import State
from shared.schedules.crontabs import Crontab
from shared.schedules.terms import Missed, Overlap, Terms


class ScheduleRequest(Terms):
    """A schedule to create. The models of the kinds derive from this one and give `kind` and `params` their types."""

    kind: str = Field(description="Kind of its jobs; see `GET /job-kinds`.")
    params: Any = Field(description="The parameters of the kind.")
    paused: bool | None = Field(
        default=None, description="Whether it is paused; if omitted, unchanged (a new one is not paused)."
    )


def schedule_shape(catalogue: Catalogue) -> type[BaseModel]:
    """Return the model of a schedule to create as the document shows it.

    It says which kinds there are and what their parameters may be; which belong together stands in `JobSubmission`.
    """
    kinds: Any = Literal[tuple(catalogue)]
    params: Any = Annotated[Union[tuple(catalogue.values())], Component("JobParams")]  # noqa: UP007 - known at run time
    return create_model(
        "ScheduleRequest",
        __base__=ScheduleRequest,
        __doc__="A schedule to create.",
        kind=(kinds, Field(description="Kind of its jobs.")),
        params=(params, Field(description="The parameters of the kind, as in `JobSubmission`.")),
    )


class ScheduledJob(Out):
    """The last job of a schedule."""

    id: str = Field(description="Id of the job.")
    state: State | None = Field(description="State of the job; null after its retention.")
    url: str = Field(description="URL of the job.")


class SkippedSlot(Out):
    """A slot without a job."""

    slot_at: AwareDatetime = Field(description="The slot.")
    why: Literal["missed", "overlap"] = Field(description="`missed`: beat was down; `overlap`: a job had not ended.")


class ScheduleLinks(Out):
    """Links of a schedule."""

    self: str = Field(description="The schedule: GET, PUT, DELETE.")
    pause: str = Field(description="POST here to pause it.")
    resume: str = Field(description="POST here to resume it.")
    run: str = Field(description="POST here to submit a job now.")
    jobs: str = Field(description="Its jobs.")


class Schedule(Out):
    """A schedule."""

    id: str = Field(description="Id of the schedule.")
    name: str = Field(description="Name of the schedule.")
    kind: str = Field(description="The kind of its jobs.")
    params: dict[str, Any] = Field(description="The parameters of its jobs that were given.")
    options: dict[str, Any] = Field(description="The given options of its jobs.")
    crontab: Crontab | None = Field(description="Its times by wall clock; alternative to `interval_s`.")
    interval_s: float | None = Field(description="Its interval in seconds; alternative to `crontab`.")
    time_zone: str = Field(description="The crontab's time zone.")
    missed: Missed = Field(description="Policy for missed slots.")
    overlap: Overlap = Field(description="Policy for a slot while an earlier job has not ended.")
    paused: bool = Field(description="Whether it is paused and submits no jobs.")
    note: str | None = Field(description="Why a default schedule is paused at first.")
    created_at: AwareDatetime = Field(description="Time of its creation.")
    updated_at: AwareDatetime = Field(description="Time of its last edit, pause or resumption.")
    next_run_times: list[AwareDatetime] = Field(description="Its next five slots; none while it is paused.")
    last_job: ScheduledJob | None = Field(description="Its last job.")
    last_slot_at: AwareDatetime | None = Field(description="The last slot with a job.")
    waiting_slot_at: AwareDatetime | None = Field(
        description="The slot whose job is submitted when the last one has ended (`overlap: buffer_one`)."
    )
    skipped_count: int = Field(
        ge=0, description="Number of slots without a job. Consecutive missed slots count as one."
    )
    last_skipped: SkippedSlot | None = Field(description="The last skipped slot.")
    trouble: str | None = Field(description="Why its last slot has no job, and what to do.")
    links: ScheduleLinks = Field(description="Links of the schedule.")


class SchedulePage(Out):
    """A page of schedules, newest first."""

    schedules: list[Schedule] = Field(description="The schedules.")
    next_page_token: str | None = Field(description="Send it as `page_token` for the next page; null at the end.")
