"""How much room the ledger has: read once a second in the background, so that submissions need not wait for it.

Submissions are refused before the memory is full, because claims, ends and cancels need memory, too: without them the
queues would never drain.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import structlog

from shared.ledger.calling.calls import NO_ANSWER
from shared.ledger.calling.clock import ServerClock
from shared.ledger.keys import Keys
from shared.ledger.states import State

_WAITING = (State.SCHEDULED, State.QUEUED)
_EVERY_S = 1.0
_BOUND_S = 2.0
# Bytes that a waiting job, or a step, adds until it has ended: attempts, events, a small result. Measured: 5,400 to
# 5,600 with one attempt, 6,000 with a retry. The few with more retries (9,400 with three) take from the reserve.
_MEMORY_TO_END = 6_100
_MEMORY_PER_JOB = 2_000 + _MEMORY_TO_END  # of a job or step, without what grows with its parameters
_MEMORY_PER_BYTE = 2  # of JSON in its submission
_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Room:
    """How much memory the ledger has left for submissions, and whether it can write to its disk."""

    reserve_ratio: float  # of maxmemory; submissions leave this free, beside what accepted jobs will need
    keys: Keys
    _left_bytes: float = math.inf
    _disk_fails: bool = False

    @property
    def problem(self) -> str | None:
        """Why no jobs are accepted; None if there is room."""
        if self._disk_fails:
            return "its append-only file cannot be written"
        if self._left_bytes <= 0:
            return f"its memory is used up, except for {self.reserve_ratio:.0%} of maxmemory and what its jobs need"
        return None

    def ask(self, pipeline: Any) -> None:
        """Put the commands into a pipeline of either client whose replies `told` takes."""
        pipeline.info("server", "memory", "persistence")
        for state in _WAITING:
            pipeline.zcard(self.keys("state", state))
        pipeline.zcard(self.keys("open_steps"))

    def told(self, info: Mapping[str, Any], *to_end: int) -> None:
        """Take the replies."""
        self._disk_fails = info.get("aof_last_write_status") == "err"
        used = info["used_memory"] - info.get("mem_not_counted_for_evict", 0)
        most = info["maxmemory"]
        needed = used + sum(to_end) * _MEMORY_TO_END
        self._left_bytes = most * (1 - self.reserve_ratio) - needed if most else math.inf

    def wrote(self, jobs: int, size_bytes: int) -> None:
        """Subtract what was accepted since the last look: jobs and steps, and the size of their submissions as JSON."""
        self._left_bytes -= jobs * _MEMORY_PER_JOB + size_bytes * _MEMORY_PER_BYTE


@dataclass
class Headroom(Room):
    """The same for the event loop, which looks once a second."""

    client: redis.asyncio.Redis
    clock: ServerClock  # gets the server's time with each look
    _tried: asyncio.Event = field(default_factory=asyncio.Event)

    async def first_look(self) -> None:
        """Return when `watch` has looked once, or has found that the ledger does not answer."""
        await self._tried.wait()

    async def look(self) -> None:
        """Read how much room there is. Redis errors are raised as they are; `TimeoutError` after 2 s."""
        async with asyncio.timeout(_BOUND_S):
            async with self.client.pipeline(transaction=False) as pipeline:
                self.ask(pipeline)
                info, *to_end = await pipeline.execute()
        self.clock.heard(info["server_time_usec"] // 1000)
        self.told(info, *to_end)

    async def watch(self) -> None:
        """Look once a second until cancelled."""
        problem = None
        while True:
            try:
                await self.look()
            except NO_ANSWER as failure:
                _log.debug("the ledger's memory could not be read", cause=type(failure).__name__)
            self._tried.set()
            if problem != self.problem:
                problem = self.problem
                _log.warning("ledger has no room" if problem else "ledger has room again", why=problem)
            await asyncio.sleep(_EVERY_S)
