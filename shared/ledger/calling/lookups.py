"""Look up whether jobs are in the ledger: one round trip for all that are looked up at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

import redis.asyncio

from shared.ledger.calling.calls import NO_ANSWER
from shared.ledger.calling.clock import milliseconds
from shared.ledger.keys import Keys

LOOK_UP_S = 0.5


class Found(NamedTuple):
    """When a job was created (None: it is not there) and when this was read, in milliseconds by the server's clock."""

    now_ms: int
    created_at_ms: int | None


@dataclass
class Lookups:
    """Looks jobs up on one connection, because hundreds of requests may do so while the server does not respond."""

    client: redis.asyncio.Redis
    keys: Keys
    _asked: list[tuple[str, asyncio.Future[Found]]] = field(default_factory=list)
    _looking: asyncio.Task[None] | None = None

    async def look(self, job_id: str) -> Found:
        """Look a job up. Redis errors are raised as they are; `TimeoutError` after `LOOK_UP_S`."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asked.append((job_id, future))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        async with asyncio.timeout(LOOK_UP_S):
            return await future

    async def _look(self) -> None:
        await asyncio.sleep(0)  # so that all requests whose time limit ended now share the round trip
        while batch := [(job_id, future) for job_id, future in self._asked if not future.done()]:
            self._asked = []
            try:
                async with asyncio.timeout(LOOK_UP_S), self.client.pipeline(transaction=False) as calls:
                    calls.time()  # first: a job that is not found was not written before this time
                    for job_id, _ in batch:
                        calls.hget(self.keys("job", job_id), "created_at")
                    now, *times = await calls.execute()
            except NO_ANSWER as failure:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failure)
                continue
            for (_, future), created_at in zip(batch, times, strict=True):
                if not future.done():
                    future.set_result(Found(milliseconds(now), None if created_at is None else int(created_at)))
