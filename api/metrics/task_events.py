"""A process that reads Celery's events and adds their sums to the ledger once per second.

It belongs to one gateway, which is elected by a lock in the ledger and starts it (`api/metrics/election.py`): reading
an event takes 0.3 ms of Python, in which a gateway could accept no jobs. Events are broadcast and may be lost, so exact
metrics do not use them; they show which worker did what. The sums are written only while the lock is held, so that a
process that was suspended and continues counts nothing twice.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import redis
import structlog
from celery import Celery
from celery.events.receiver import EventReceiver
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.metrics.event_tally import EventTally
from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.keys import key
from shared.ledger.server import SOCKET_TIMEOUT_S, bounded
from shared.texts import redact

_LOCK_S = 10.0
_WRITE_EVERY_S = 1.0
_DRAIN_S = 0.25  # maximum wait of a read, and so the delay of a stop
_SILENCE_S = 60.0  # workers send a heartbeat every 2 s, so the connection may be half-open
_NICENESS = 5  # an accepted job is more urgent than the count of another

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
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

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
    """Reads events as long as `owner` holds the lock."""

    def __init__(self, app: Celery, client: redis.Redis, *, owner: str, kinds: Collection[str]) -> None:
        """Take the application of the events' broker, the ledger's Redis, and the kinds that have counters."""
        self._app = app
        self._client = client
        self._owner = owner
        self._write_script = client.register_script(_WRITE)
        self._tally = EventTally(client, kinds=kinds)
        self._written_at = 0.0
        self._is_replaced = False
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let `run` write what it has, release the lock and return; callable from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Read events until stopped or replaced. Raises the errors of the broker's transport and of Redis."""
        self._tally.restart()
        self._written_at = time.monotonic()
        try:
            while self._goes_on():
                with suppress(TimeoutError):  # no events: connect again
                    self._read()
            self._write()
        finally:
            self._client.eval(RELEASE, 1, key("event_consumer"), self._owner)

    def _read(self) -> None:
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=int(SOCKET_TIMEOUT_S))
            receiver = _Receiver(connection, handlers={"*": self._tally.take}, app=self._app, before_read=self._goes_on)
            consume: Any = receiver.consume  # a generator, which celery-types does not declare
            for _ in consume(timeout=_SILENCE_S, safety_interval=_DRAIN_S, wakeup=True):
                pass

    def _goes_on(self) -> bool:
        """Write the sums if that is due; return False once stopped or replaced."""
        if time.monotonic() - self._written_at >= _WRITE_EVERY_S or self._tally.is_full:
            self._is_replaced = not self._write()
        return not (self._is_replaced or self._stopping.is_set())

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


def main() -> None:
    """Read events until standard input ends, as it does with the gateway, which says in a line what it is to know.

    The kinds are in that line, too: importing them would be half of what this process costs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the gateway, too, and its end this process
    os.nice(_NICENESS)
    given = json.loads(sys.stdin.readline())
    settings = BrokerSettings.model_validate(given["settings"])
    client = redis.Redis.from_url(settings.ledger_url, **bounded(), retry=Retry(NoBackoff(), 0))
    consumer = EventConsumer(make_celery(settings), client, owner=given["owner"], kinds=given["kinds"])
    threading.Thread(target=_stop_with_input, args=[consumer], name="stop", daemon=True).start()
    try:
        consumer.run()
    except Exception as failure:  # noqa: BLE001 - every transport has errors of its own; the gateway starts another
        _log.warning("no task events", cause=redact(repr(failure)))
        sys.exit(1)


def _stop_with_input(consumer: EventConsumer) -> None:
    while os.read(sys.stdin.fileno(), 1):  # not `sys.stdin`, whose lock the end of the process would wait for
        pass
    consumer.stop()


if __name__ == "__main__":
    main()
