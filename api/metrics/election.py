"""The election of the one gateway whose process reads Celery's events, by a lock in the ledger."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import cast

import redis.asyncio
import structlog

from api.background import in_background
from api.metrics.task_events import RELEASE
from celeriac import start
from shared.broker.settings import BrokerSettings
from shared.contract.catalogue import catalogue
from shared.ledger.calling.calls import NO_ANSWER
from shared.ledger.ids import new_owner
from shared.ledger.keys import key
from shared.ledger.server import SOCKET_TIMEOUT_S

_START_S = 60.0  # the lock of the elected one lasts this long until its process has begun, and then 10 s at a time
_EVERY_S = 2.0  # interval at which the others try to be elected
_LONGEST_PAUSE_S = 30.0  # between processes that fail because the broker is unreachable or has no events
_log = structlog.get_logger(__name__)


class _Candidate:
    def __init__(self, settings: BrokerSettings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._client = client
        self._owner = new_owner()
        self._process: Process | None = None

    async def run(self) -> None:
        """Stand for election until cancelled. The first time is after an interval: a start has enough to do."""
        pause_s = _EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                is_elected = await self._client.set(
                    key("event_consumer"), self._owner, nx=True, px=int(_START_S * 1000)
                )
            except NO_ANSWER as failure:
                _log.debug("no election of a reader of task events", cause=type(failure).__name__)
                continue
            has_failed = is_elected and await self._consumed() != 0
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if has_failed else _EVERY_S

    async def _consumed(self) -> int:
        """Run the process that reads events, and return its exit status."""
        self._process = process = await asyncio.create_subprocess_exec(
            *start.command("api.metrics.task_events"), stdin=PIPE
        )
        settings = self._settings.model_dump(mode="json", include=set(BrokerSettings.model_fields))
        told = {"owner": self._owner, "settings": settings, "kinds": list(catalogue())}
        _input(process).write(json.dumps(told).encode() + b"\n")
        return await self._ended(process)

    async def stop(self) -> None:
        """Let the process write its sums and release the lock; kill it if that takes too long."""
        if self._process is None or self._process.returncode is not None:
            return
        _input(self._process).close()
        with suppress(TimeoutError):
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
        await self._ended(self._process)

    async def _ended(self, process: Process) -> int:
        """Return the exit status of `process`, once it has one. If it failed, release the lock in its place."""
        status = await process.wait()
        if status:
            with suppress(*NO_ANSWER):
                await cast("Awaitable[int]", self._client.eval(RELEASE, 1, key("event_consumer"), self._owner))
        return status


def _input(process: Process) -> asyncio.StreamWriter:
    return cast("asyncio.StreamWriter", process.stdin)  # which it has, because it was started with a pipe


@asynccontextmanager
async def consuming(settings: BrokerSettings, client: redis.asyncio.Redis) -> AsyncIterator[None]:
    """Stand for election while the block runs, and have events read if elected."""
    candidate = _Candidate(settings, client)
    try:
        async with in_background(candidate.run()):
            yield
    finally:
        await candidate.stop()
