"""A subscription to a channel of the ledger, with a client that never reconnects by itself: a gap must be noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.ledger.server import SOCKET_TIMEOUT_S

_FIRST_PAUSE_S = 0.05  # before the next attempt to subscribe; it doubles each time
_LONGEST_PAUSE_S = 2.0
_log = structlog.get_logger(__name__)


class Subscription:
    """The messages of one channel, from one connection."""

    def __init__(self, channel: Any, quiet_s: float) -> None:
        self._channel = channel
        self._quiet_s = quiet_s
        self._is_asked = False

    async def next(self) -> str | None:
        """Return the next message; None after `quiet_s` without one.

        Raises `redis.ConnectionError` if the server does not respond meanwhile.
        """
        while True:
            message = await self._channel.get_message(timeout=self._quiet_s)
            if message is None:
                if self._is_asked:
                    raise redis.ConnectionError("the subscription does not respond")
                await self._channel.ping()
                self._is_asked = True
                return None
            self._is_asked = False
            if message["type"] == "message":
                return str(message["data"])


async def stay_subscribed(
    url: str, channel: str, follow: Callable[[Subscription], Awaitable[None]], *, quiet_s: float
) -> None:
    """Let `follow` have a subscription to `channel`, and another one whenever that is lost, until it returns.

    What is published from the beginning of `follow` on comes; what was published before it may never have come.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            async with _subscribed(url, channel, quiet_s) as subscription:
                pause_s = _FIRST_PAUSE_S
                await follow(subscription)
                return
        except (redis.RedisError, OSError) as failure:
            _log.warning("subscription lost", channel=channel, cause=type(failure).__name__, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@asynccontextmanager
async def _subscribed(url: str, channel: str, quiet_s: float) -> AsyncIterator[Subscription]:
    async with (
        redis.asyncio.Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            socket_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client,
        client.pubsub() as listening,
    ):
        await listening.subscribe(channel)
        if await listening.get_message(timeout=SOCKET_TIMEOUT_S) is None:
            raise redis.ConnectionError("the server does not confirm the subscription")
        yield Subscription(listening, quiet_s)
