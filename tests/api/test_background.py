"""Loops beside the requests end with their block, at whatever moment it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api.app import ledger_client
from api.background import in_background
from api.jobs.changes import Changes
from api.settings import GatewaySettings
from shared.ledger.aclient import AsyncLedger
from tests.support.servers.services import BOUND_S

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.support.servers.services import Server

_MOMENTS = 12  # turns of the event loop, in which a look at the ledger sends its commands and begins to read


def test_a_loop_that_swallows_a_cancellation_ends() -> None:
    """It is cancelled again."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    asyncio.run(_ended_after(1, stubborn()))
    assert swallowed == 3


@pytest.mark.parametrize("moment", range(_MOMENTS))
def test_looking_at_the_ledger_ends_at_any_moment(valkey: Server, moment: int) -> None:
    """Also while a command is sent: on Python 3.11 redis-py then goes on as if nothing had happened."""

    async def main() -> None:
        async with ledger_client(GatewaySettings(broker_url=valkey.redis_url)) as client:
            headroom = AsyncLedger(client).headroom
            await headroom.look()  # so that the connection is there
            await _ended_after(moment, headroom.watch())

    asyncio.run(main())


@pytest.mark.parametrize("moment", range(0, 60, 5))
def test_a_subscription_ends_at_any_moment(valkey: Server, moment: int) -> None:
    """Also while it connects and subscribes."""

    async def main() -> None:
        changes = Changes(valkey.redis_url)
        with changes.watch("any"):
            await _ended_after(moment, changes.listen())

    asyncio.run(main())


async def _ended_after(turns: int, loop: Coroutine[Any, Any, None]) -> None:
    """Run `loop` for some turns of the event loop; `TimeoutError` where it does not end then."""
    async with asyncio.timeout(BOUND_S):
        async with in_background(loop):
            for _ in range(turns):
                await asyncio.sleep(0)
