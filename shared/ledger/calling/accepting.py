"""Accept jobs on the event loop: many submissions per round trip, each with its own time limit and a true answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import redis.asyncio

from shared.errors import LedgerFull, OutcomeUnknown
from shared.ledger.calling.calls import NO_ANSWER, Call, Script, asked, note_change, noted, unavailable
from shared.ledger.calling.clock import ServerClock, milliseconds
from shared.ledger.calling.headroom import Headroom
from shared.ledger.calling.lookups import Lookups
from shared.ledger.keys import Keys
from shared.ledger.records import Accepted, Submission, parse_accepted

_MAX_BATCH = 256  # records per round trip, unless a single submission has more; one takes about 0.1 ms
_LEAST_SHARE = 0.25  # of the time limit that the ledger gets, however long the request has taken before


@dataclass(eq=False)
class _Waiting:
    submission: Submission
    deadline: float  # the loop's time
    future: asyncio.Future[Accepted]
    until_ms: int = 0  # the same by the server's clock
    call: Call | None = None  # that carries it, once it is sent

    @property
    def size(self) -> int:
        return sum(1 + len(job.steps) for job in self.submission.jobs)

    @property
    def may_be_done(self) -> bool:
        return self.call is not None and self.call.may_be_done


@dataclass
class Accepting:
    """Accepts submissions. Those that arrive during a call share the next one, so batches need no timer."""

    client: redis.asyncio.Redis
    script: Script
    keys: Keys
    timeout_s: float
    clock: ServerClock
    headroom: Headroom
    _waiting: list[_Waiting] = field(default_factory=list)
    _flushing: asyncio.Task[None] | None = None
    _silent_since: float | None = None  # when the current call began, in the loop's time

    def __post_init__(self) -> None:
        self._lookups = Lookups(self.client, self.keys)

    async def accept(self, submission: Submission) -> Accepted:
        """Write jobs and their messages, atomically.

        A submission fails when the ledger has been silent for `timeout_s`, whatever happened to the calls before it. If
        it was sent, up to half a second more is spent on looking it up. Raises `LedgerUnavailable` if nothing was and
        nothing will be accepted, `OutcomeUnknown` if that is not known, and `LedgerFull`.
        """
        if (problem := self.headroom.problem) and not await self._is_known(submission):
            raise LedgerFull(problem)
        waiting = self._joined(submission)
        with noted(waiting):
            accepted = await self._answered(waiting)
        if accepted.outcome == "accepted":
            note_change()
        return accepted

    async def _answered(self, waiting: _Waiting) -> Accepted:
        try:
            async with asyncio.timeout_at(waiting.deadline):
                return await waiting.future
        except (TimeoutError, OutcomeUnknown) as failure:
            if not waiting.may_be_done:
                raise unavailable(failure) from failure
            return await self._looked_up(waiting)

    async def _is_known(self, submission: Submission) -> bool:
        """Return whether its key was used before. Then the first response is repeated, which needs no room."""
        key = submission.idempotency_key
        try:
            async with asyncio.timeout(self.timeout_s):
                return key is not None and bool(await self.client.exists(self.keys("idempotency", key)))
        except NO_ANSWER as failure:
            raise unavailable(failure) from failure

    def _joined(self, submission: Submission) -> _Waiting:
        loop = asyncio.get_running_loop()
        now = loop.time()
        current = asked.get()
        since = min(current.arrived_at if current else now, self._silent_since or now)
        deadline = max(since + self.timeout_s, now + _LEAST_SHARE * self.timeout_s)
        waiting = _Waiting(submission, deadline, loop.create_future())
        self._waiting.append(waiting)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return waiting

    async def _flush(self) -> None:
        while self._drop_abandoned():
            self._silent_since = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self.timeout_s):
                    if not self.clock.is_known:
                        self.clock.heard(milliseconds(await self.client.time()))
                    connection = await self.script.connected()
            except TimeoutError:
                continue  # submissions that waited as long have failed and were not sent
            except Exception as failure:  # noqa: BLE001 - those who wait get it, whatever it is
                batch, self._waiting = self._waiting, []
                _fail(batch, unavailable(failure) if isinstance(failure, NO_ANSWER) else failure)
                continue
            try:
                await self._send(connection)
            finally:
                await self.script.release(connection)
        self._silent_since = None

    async def _send(self, connection: object) -> None:
        batch = self._next_batch()
        if not batch:
            return
        for waiting in batch:
            waiting.until_ms = self.clock.at(waiting.deadline)
        written = [waiting.submission.arguments(waiting.until_ms) for waiting in batch]
        columns = [text for _, texts in written for text in texts]
        call = Call("accept", [arguments for arguments, _ in written], columns)
        for waiting in batch:
            waiting.call = call
        try:
            async with asyncio.timeout_at(max(waiting.deadline for waiting in batch)):
                replies = await self.script.run_on(connection, call)
        except NO_ANSWER as failure:
            _fail(batch, call.told(failure))
        except Exception as failure:  # noqa: BLE001 - see _flush
            _fail(batch, failure)
        else:
            self.headroom.wrote(sum(waiting.size for waiting in batch), call.size_bytes)
            for waiting, reply in zip(batch, replies, strict=True):
                self._answer(waiting, reply)

    def _answer(self, waiting: _Waiting, reply: list[str]) -> None:
        if waiting.future.done():  # the client has gone; its job is accepted nevertheless
            return
        if reply[0] != "late":
            waiting.future.set_result(parse_accepted(waiting.submission, reply))
            return
        self.clock.heard(int(reply[1]))  # its time limit has not passed here, so one of the clocks was set
        waiting.call = None
        self._waiting.append(waiting)

    def _drop_abandoned(self) -> list[_Waiting]:
        """Return those who still wait. The others have failed (nothing was accepted), so they must not be sent."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.future.done()]
        return self._waiting

    def _next_batch(self) -> list[_Waiting]:
        count = size = 0
        for waiting in self._drop_abandoned():
            size += waiting.size
            if count and size > _MAX_BATCH:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _looked_up(self, waiting: _Waiting) -> Accepted:
        """Look up a submission that was sent and got no reply: either all of it was written, or nothing."""
        jobs = waiting.submission.jobs
        try:
            found = await self._lookups.look(jobs[0].id)
        except NO_ANSWER as failure:
            raise OutcomeUnknown("the ledger did not answer in time, nor when it was asked about the job") from failure
        if found.created_at_ms is not None:
            return Accepted("accepted", tuple(job.id for job in jobs), found.created_at_ms)
        if found.now_ms <= waiting.until_ms:
            raise OutcomeUnknown("the ledger did not answer in time, and may still accept the jobs")
        waiting.call = None
        raise unavailable(TimeoutError())


def _fail(batch: list[_Waiting], failure: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(failure)
