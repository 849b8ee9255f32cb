"""Run a loop beside the requests, as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

_AGAIN_AFTER_S = 0.1


@asynccontextmanager
async def in_background(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loop` as a task while the block runs; afterwards cancel it, and return when it has ended.

    It is cancelled again until then: before Python 3.12, `asyncio.wait_for` returns as if nothing had happened where a
    cancellation comes just when what it waits for is done, and redis-py sends every command by it. A loop that had
    been cancelled once there went on for ever, and with it the process.
    """
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN_AFTER_S)
