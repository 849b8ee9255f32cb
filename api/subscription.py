"""A subscription to a channel of the ledger, with a client that never reconnects by itself: a gap must be noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.ledger.server import SOCKET_TIMEOUT_S


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
            if message is None and self._is_asked:
                raise redis.ConnectionError("the subscription does not respond")
            if message is None:
                await self._channel.ping()
            self._is_asked = message is None
            if message is None:
                return None
            if message["type"] == "message":
                return str(message["data"])


@asynccontextmanager
async def subscribed(url: str, channel: str, *, quiet_s: float) -> AsyncIterator[Subscription]:
    """Subscribe to `channel` as long as the block lasts: what is published from its beginning on comes.

    Raises `redis.RedisError` and `OSError`.
    """
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
