"""Schedules: a job's kind and parameters, and the slots (exact times) at which it runs.

The slot of a crontab's tick is the scheduled minute in the schedule's time zone; an interval's slots are the
multiples of it since the schedule's start. A tick's job id is made from schedule and slot, so a tick makes one job
even with several beats.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.contract.catalogue import catalogue
from shared.contract.definition import AnyContract, Contract
from shared.contract.names import printable
from shared.contract.options import YEAR_S, RunOptions
from shared.ledger.ids import uuid7_of
from shared.schedules.crontabs import Crontab, TimeZone

#: A tick that beat handles later than this is missed: see `Terms.missed`. It is longer than the 25 s after which
#: another beat takes the lock of a killed one, so that a takeover misses no tick.
ON_TIME_S = 30.0
MAX_SCHEDULES = 1_000
Missed = Literal["skip", "run_once"]
Overlap = Literal["skip", "allow", "buffer_one"]
_MS = 1_000


class Terms(BaseModel):
    """When a schedule runs, and its rules for missed and overlapping slots."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    name: Annotated[str, AfterValidator(printable)] = Field(
        min_length=1, max_length=100, description="Name of the schedule.", examples=["Nightly sales"]
    )
    crontab: Crontab | None = Field(
        default=None, description="Run by wall clock and calendar; alternative to `interval_s`."
    )
    interval_s: Annotated[float, Field(ge=1, le=YEAR_S)] | None = Field(
        default=None, description="Seconds between runs, counted from the schedule's start; alternative to `crontab`."
    )
    time_zone: TimeZone = Field(
        default="UTC",
        description="The crontab's time zone. A time that a clock change skips moves by the length of the jump; "
        "a time that exists twice runs once, the first time, unless the hour is `*`.",
        examples=["Europe/Berlin"],
    )
    missed: Missed = Field(
        default="skip",
        description=f"What to do about missed slots, which are more than {ON_TIME_S:g} s old when beat handles them "
        "(because it was down): nothing, or one job for the latest of them.",
    )
    overlap: Overlap = Field(
        default="skip",
        description="What to do at a slot while an earlier job of the schedule has not ended: skip it, submit a job "
        "anyway, or submit one as soon as that job has ended (at most one slot waits, others are skipped).",
    )
    options: RunOptions = Field(default_factory=RunOptions, description="Options of each of its jobs.")

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if (self.crontab is None) == (self.interval_s is None):
            raise ValueError("give either 'crontab' or 'interval_s'")
        return self


class Schedule(Terms):
    """A stored schedule. Times are milliseconds since 1970."""

    id: str
    kind: str
    params: dict[str, Any]  # as the contract serialises them, those that were given
    key_id: str | None = None  # of who made, changed or resumed it last: its jobs need that key to stand
    paused: bool = False
    note: str | None = None  # for people: why it is paused at first
    created_at_ms: int
    updated_at_ms: int
    starts_at_ms: int  # slots of an interval are counted from here

    def after(self, at_ms: int) -> int:
        """Return the first slot after `at_ms`."""
        if self.crontab is not None:
            return next(self.crontab.after(at_ms, self.time_zone))
        return self.starts_at_ms + max(1, (at_ms - self.starts_at_ms) // self._every_ms + 1) * self._every_ms

    def latest(self, at_ms: int) -> int | None:
        """Return the last slot at or before `at_ms`, if there is one."""
        if self.crontab is not None:
            return self.crontab.latest(at_ms, self.time_zone)
        count = (at_ms - self.starts_at_ms) // self._every_ms
        return self.starts_at_ms + count * self._every_ms if count >= 1 else None

    def next_slots(self, at_ms: int, count: int) -> list[int]:
        """Return the `count` slots after `at_ms`."""
        if self.crontab is not None:
            return list(islice(self.crontab.after(at_ms, self.time_zone), count))
        first_ms = self.after(at_ms)
        return [first_ms + n * self._every_ms for n in range(count)]

    @property
    def _every_ms(self) -> int:
        return round((self.interval_s or 0) * _MS)

    @property
    def contract(self) -> AnyContract | None:
        """The contract of its kind, if it is in this process's catalogue."""
        return catalogue().get(self.kind)

    def job(self) -> Contract[Any]:
        """Return the job of a tick. Raises `KeyError` or `ValidationError` if the kind has changed."""
        return catalogue()[self.kind].model_validate_json(json.dumps(self.params))

    def job_id(self, slot_ms: int) -> str:
        """Return the id of the job of one slot; it sorts by the time of the slot."""
        return uuid7_of(slot_ms, self.id)

    def has_rhythm_of(self, other: Terms) -> bool:
        """Return whether both have the same slots."""
        mine, others = ((s.crontab, s.interval_s, s.time_zone) for s in (self, other))
        return mine == others

    def document(self) -> str:
        """Return the schedule as JSON text; `model_validate_json` reads it."""
        return self.model_dump_json(exclude_unset=True)

    def definition(self) -> str:
        """Return its entry for RedBeat's readers, in RedBeat's JSON. The parameters are in the document."""
        if self.crontab is not None:
            rhythm = {"__type__": "crontab", **self.crontab.model_dump()}
        else:
            rhythm = {"__type__": "interval", "every": self.interval_s, "relative": False}
        return json.dumps(
            {
                "name": self.id,
                "task": self.kind,
                "args": [],
                "kwargs": {},
                "options": {},
                "schedule": rhythm,
                "enabled": not self.paused,
            }
        )
