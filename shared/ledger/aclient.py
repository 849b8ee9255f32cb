"""The ledger calls of the gateway, on the event loop. They run the same script as those of workers (`client.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio
from redis.exceptions import ResponseError

from shared.errors import DamagedRecord
from shared.ledger.calling.accepting import Accepting
from shared.ledger.calling.calls import NO_ANSWER, Call, Script, late_at_ms, note_change, noted, unavailable
from shared.ledger.calling.clock import ServerClock, milliseconds
from shared.ledger.calling.filters import Filter
from shared.ledger.calling.headroom import Headroom
from shared.ledger.history import Event, event_place, first_event, parse_event
from shared.ledger.keys import Keys
from shared.ledger.records import (
    EVENTS_KEPT,
    Accepted,
    Damaged,
    Gone,
    Record,
    Submission,
    Unknown,
    parse_listed,
    parse_read,
)
from shared.ledger.script import library


@dataclass
class AsyncLedger:
    """Accept, read, list, cancel, events: each ends within `timeout_s` with an exact outcome.

    Raises `LedgerUnavailable` if the ledger does not respond and nothing was changed; `OutcomeUnknown` if a change was
    sent but has no reply; `LedgerFull` if the ledger has no room for a change.
    """

    client: redis.asyncio.Redis
    timeout_s: float = 2.0
    keys: Keys = field(default_factory=Keys)
    reserve_ratio: float = 0.1  # of maxmemory that submissions must leave free
    _reading: dict[str, asyncio.Task[Record | Gone | Unknown]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._script = Script(self.client, library(self.keys))
        self._clock = clock = ServerClock()
        self.headroom = Headroom(self.client, clock, reserve_ratio=self.reserve_ratio, keys=self.keys)
        self._accepting = Accepting(self.client, self._script, self.keys, self.timeout_s, clock, self.headroom)

    async def call(self, transition: str, arguments: Any) -> Any:
        """Run a transition, also for typed callers in other modules, such as `shared.schedules.timetable`."""
        call = Call(transition, arguments)
        if not call.changes:
            return await self._answer(call)
        with noted(call):
            reply = await self._answer(call)
        note_change()
        return reply

    async def _answer(self, call: Call) -> Any:
        try:
            async with asyncio.timeout(self.timeout_s) as bound:
                if not call.changes:
                    return await self._script.run(call)
                return await self._in_time(call, bound.when() or 0)
        except NO_ANSWER as failure:
            raise call.told(failure) from failure

    async def _in_time(self, call: Call, deadline: float) -> Any:
        """Run a change so that the server does it until `deadline` or not at all."""
        if not self._clock.is_known:
            self._clock.heard(milliseconds(await self.client.time()))
        call.until_ms = self._clock.at(deadline)
        try:
            return await self._script.run(call)
        except ResponseError as failure:
            now_ms = late_at_ms(failure)
            if now_ms is None:
                raise
            self._clock.heard(now_ms)  # there is time left here, so one of the clocks was set
        call.until_ms = self._clock.at(deadline)
        return await self._script.run(call)

    async def _asked(self, reply: Awaitable[Any]) -> Any:
        """Return the reply to a command that only reads."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await reply
        except NO_ANSWER as failure:
            if isinstance(failure, ResponseError) and "WRONGTYPE" in str(failure):
                raise
            raise unavailable(failure) from failure

    async def accept(self, submission: Submission) -> Accepted:
        """Write jobs and their messages atomically. Concurrent submissions share one round trip."""
        return await self._accepting.accept(submission)

    async def ping(self) -> None:
        """Check that the ledger responds. Raises `LedgerUnavailable` within `timeout_s` if it does not."""
        await self._asked(self.client.ping())

    async def published(self, job_ids: Sequence[str]) -> None:
        """Record that the messages of these jobs, which have just been accepted, have been published."""
        await self.call("published", {"ids": list(job_ids), "publications": [1] * len(job_ids)})

    async def read(self, job_id: str) -> Record | Gone | Unknown:
        """Return a job with its steps in one round trip, which concurrent readers of the same job share."""
        reading = self._reading.get(job_id)
        if reading is None:
            reading = self._reading[job_id] = asyncio.create_task(self._read(job_id))
        return await asyncio.shield(reading)

    async def _read(self, job_id: str) -> Record | Gone | Unknown:
        await asyncio.sleep(0)  # lets all readers that the same change has woken join
        del self._reading[job_id]  # later readers may have seen a later change
        return parse_read(await self.call("read", {"id": job_id}))

    async def state(self, job_id: str) -> str | None:
        """Return only the state of a job, or None if it does not exist; this is much cheaper than `read`."""
        try:
            return cast("str | None", await self._asked(self.client.hget(self.keys("job", job_id), "state")))
        except ResponseError as wrong:
            raise DamagedRecord(job_id, wrong) from wrong

    async def revision(self, job_id: str) -> tuple[str | None, str | None]:
        """Return state and revision of a job, None where there is none; this reads nothing else."""
        try:
            state, revision = await self._asked(self.client.hmget(self.keys("job", job_id), "state", "revision"))
        except ResponseError as wrong:
            raise DamagedRecord(job_id, wrong) from wrong
        return state, revision

    async def list(
        self, wanted: Filter, *, limit: int, scan: int = 10_000
    ) -> tuple[Sequence[Record | Damaged], str | None]:
        """Return at most `limit` jobs, newest first, and the place where the next page continues (None: last page).

        A page may be shorter, because at most about `scan` entries of indexes are looked up.
        """
        next_id, *found = await self.call("list", wanted.arguments(limit, scan, self.keys))
        return [parse_listed(flat) for flat in found], next_id or None

    async def upload(self, upload_id: str, *, retention_s: float) -> None:
        """Record that an upload begins; the keeper removes its files after `retention_s`, even if it fails."""
        await self.call("upload", {"id": upload_id, "retention_ms": int(retention_s * 1000)})

    async def cancel(self, job_id: str, *, reason: str) -> tuple[str, str]:
        """Cancel a job.

        Returns `ended` with its state; `cancelled` or `requested` (it is running), with `started` or an empty text; or
        `unknown`.
        """
        what, *rest = await self.call("cancel", {"id": job_id, "reason": reason})
        return what, rest[0] if rest else ""

    async def known(self, job_ids: Sequence[str]) -> set[str]:
        """Return those of the ids of which there is, or was, a job."""
        return set(await self.call("known", {"ids": list(job_ids)}))

    async def cancel_ahead(self, job_ids: Sequence[str], *, reason: str, keep_s: float) -> set[str]:
        """Cancel jobs that the ledger does not know, for when their messages come; return the ids that it knows now."""
        arguments = {"ids": list(job_ids), "reason": reason, "keep_ms": int(keep_s * 1000)}
        return set(await self.call("cancel_ahead", arguments))

    async def events(self, job_id: str, *, after: str = "-", count: int = 500) -> Sequence[Event]:
        """Return the events of a job after the event id `after`, oldest first."""
        start, stream = "-" if after == "-" else f"({after}", self.keys("events", job_id)
        calls: Any
        async with self.client.pipeline(transaction=False) as calls:
            calls.hmget(self.keys("job", job_id), "created_at", "begins")
            calls.xlen(stream)
            calls.xrange(stream, start, "+", count=count)
            try:
                (created_at, begins), length, entries = await self._asked(calls.execute())
            except ResponseError as wrong:
                raise DamagedRecord(job_id, f"Its events: {wrong}") from wrong
        events = [parse_event(event_id, values) for event_id, values in entries]
        if begins and created_at and length < EVENTS_KEPT:  # else it would be trimmed by now
            first = first_event(int(created_at), begins)
            if after == "-" or event_place(after) < event_place(first.id):
                return [first, *events][:count]
        return events
