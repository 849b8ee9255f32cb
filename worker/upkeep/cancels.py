"""Hear at once which running jobs are cancelled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis
from redis.exceptions import RedisError

from shared.ledger.keys import key

logger = logging.getLogger(__name__)


class Cancels:
    """The channel of cancels. It only saves time: the next renewal of a claim reports a missed cancel."""

    def __init__(self, client: redis.Redis) -> None:
        """Use a client of the ledger's Redis that decodes replies to text."""
        self._channel = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # of redis-py

    def wait(self, timeout_s: float, *, concerns: Callable[[str], bool]) -> bool:
        """Wait until a job that `concerns` the caller is cancelled; return False after `timeout_s` without one.

        After a lost connection the next call connects again.
        """
        until = time.monotonic() + timeout_s
        try:
            if not self._channel.subscribed:
                self._channel.subscribe(key("cancels"))
            while (left_s := until - time.monotonic()) > 0:
                message = self._channel.get_message(timeout=left_s)
                if message is not None and concerns(str(message["data"])):
                    return True
        except (RedisError, OSError) as failure:
            logger.debug("the channel of cancels: %r", failure)
            self._channel.reset()
            time.sleep(max(until - time.monotonic(), 0))
        return False
