"""The single consumer of Celery's events among all gateways, elected by a lock in the ledger.

Events are broadcast and may be lost, so exact metrics do not use them; they show which worker did what. The elected
gateway writes the sums to Redis once per second, only while it holds the lock, so that a gateway that was suspended
and continues counts nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis
import structlog
from celery import Celery
from celery.events.receiver import EventReceiver

from api.metrics.event_tally import EventTally
from api.settings import GatewaySettings
from shared.broker.celery import make_celery
from shared.ledger.keys import key
from shared.ledger.server import SOCKET_TIMEOUT_S
from shared.texts import redact

_LOCK_S = 10.0
_CANDIDATE_EVERY_S = 2.0  # interval at which the others try to become the consumer
_WRITE_EVERY_S = 1.0
_DRAIN_S = 0.25  # maximum wait of a read, and so the delay of a stop
_SILENCE_S = 60.0  # workers send a heartbeat every 2 s, so the connection may be half-open
_LONGEST_PAUSE_S = 10.0  # between attempts, if the broker is unreachable or has no events

# KEYS: lock, counters, hosts. ARGV: owner, lock_ms, {field: n}, {host: seen_ms}, [host], [field].
_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for field, n in pairs(cjson.decode(ARGV[3])) do redis.call('HINCRBY', KEYS[2], field, string.format('%.0f', n)) end
for host, at in pairs(cjson.decode(ARGV[4])) do redis.call('HSET', KEYS[3], host, string.format('%.0f', at)) end
for _, host in ipairs(cjson.decode(ARGV[5])) do redis.call('HDEL', KEYS[3], host) end
for _, field in ipairs(cjson.decode(ARGV[6])) do redis.call('HDEL', KEYS[2], field) end
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

_log = structlog.get_logger(__name__)


class _Receiver(EventReceiver):
    """Celery's receiver, with a callback before every read; it stops when that returns False."""

    connect_max_retries = 1

    def __init__(self, *args: Any, before_read: Callable[[], bool], **options: Any) -> None:
        super().__init__(*args, **options)
        self._before_read = before_read

    def on_iteration(self) -> None:
        """Stop if requested; called by kombu."""
        self.should_stop = not self._before_read()


class EventConsumer:
    """Takes part in the election and, while elected, reads events, in a separate thread."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        """Take the application of the events' broker, and the ledger's Redis."""
        self._app = app
        self._client = client
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._write_script = client.register_script(_WRITE)
        self._tally = EventTally(client)
        self._written_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="task-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        """Write pending sums, release the lock, and wait up to `timeout_s` for the thread to end."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        pause_s, failing = 0.0, False
        while not self._stopping.wait(pause_s):
            pause_s = _CANDIDATE_EVERY_S
            try:
                if self._client.set(key("event_consumer"), self._owner, nx=True, px=int(_LOCK_S * 1000)):
                    self._consume()
                failing = False
            except Exception as failure:  # noqa: BLE001 - every transport has errors of its own; the next round tries again
                _log.log(logging.DEBUG if failing else logging.WARNING, "no task events", cause=redact(repr(failure)))
                pause_s, failing = (_LONGEST_PAUSE_S if failing else _CANDIDATE_EVERY_S), True

    def _consume(self) -> None:
        """Read events until stopped, replaced or disconnected. Raises the errors of the broker's transport."""
        try:
            self._tally.restart()
            self._written_at = time.monotonic()
            with self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=int(SOCKET_TIMEOUT_S))
                receiver = _Receiver(
                    connection, handlers={"*": self._tally.take}, app=self._app, before_read=self._before_read
                )
                consume: Any = receiver.consume  # a generator, which celery-types does not declare
                with suppress(TimeoutError):  # no events: connect again
                    for _ in consume(timeout=_SILENCE_S, safety_interval=_DRAIN_S, wakeup=True):
                        pass
            self._write()
        finally:
            self._client.eval(_RELEASE, 1, key("event_consumer"), self._owner)

    def _before_read(self) -> bool:
        due = time.monotonic() - self._written_at >= _WRITE_EVERY_S or self._tally.is_full
        return (not due or self._write()) and not self._stopping.is_set()

    def _write(self) -> bool:
        """Write the sums and extend the lock; False if another has it.

        A failed write is not repeated, because it may have succeeded.
        """
        batch = self._tally.batch()
        self._written_at = time.monotonic()
        return bool(
            self._write_script(
                keys=[key("event_consumer"), key("event_counters"), key("event_hosts")],
                args=[self._owner, int(_LOCK_S * 1000), *(json.dumps(part) for part in batch)],
            )
        )


@asynccontextmanager
async def consuming(settings: GatewaySettings, client: redis.Redis) -> AsyncIterator[None]:
    """Take part in the election, and consume events if elected, while the block runs."""
    if not settings.task_events:
        yield
        return
    consumer = EventConsumer(make_celery(settings), client)
    consumer.start()
    try:
        yield
    finally:
        await asyncio.to_thread(consumer.stop)
