"""A worker's heartbeats in the ledger: who it is, what it consumes, what it runs.

They tell `/workers`, `/queues` and why a job waits. Given by the custodian's thread, so a body that holds the
interpreter of a child, or a long warm shutdown, does not silence them.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from redis.exceptions import RedisError

from shared import __version__
from shared.broker.settings import BrokerSettings
from shared.ledger.client import Ledger
from shared.ledger.operations import AboutWorker, Presence
from worker.upkeep.pulse import Pulse

logger = logging.getLogger(__name__)

_STANDS_S = 5.0  # a turn of the loop takes about a second at most


class Heartbeat:
    """Says who this worker is, again and again, and that it is going."""

    def __init__(self, ledger: Ledger, settings: BrokerSettings, *, owner: str, consumer: Any) -> None:
        self._presence = Presence(ledger, owner=owner, lease_s=settings.lease_s)
        self._queues = consumer.app.amqp.queues
        self._pulse: Pulse = consumer.pulse
        self._pool = consumer.pool
        families = (name.strip() for name in os.environ.get("WORKER_FAMILIES", "").split(","))
        self._about = AboutWorker(
            name=consumer.hostname,
            host=socket.gethostname(),
            pid=os.getpid(),
            families=tuple(sorted(name for name in families if name)),
            concurrency=self._pool.num_processes,
            started_at=time.time_ns() // 1_000_000,
            versions={"celeriac": __version__, "celery": version("celery"), "python": platform.python_version()},
        )

    def begin(self) -> None:
        """Give the first sign, so that what it is about to take does not seem to wait for a worker."""
        try:
            self.give([])
        except RedisError as failure:  # the custodian's rounds will
            logger.warning("the ledger does not know that this worker has begun: %r", failure)

    def give(self, jobs: Iterable[str]) -> None:
        """Say that this worker lives and has `jobs`. A worker whose main loop stands says nothing: it takes no jobs."""
        if self._pulse.stands_for_s > _STANDS_S:
            return
        self._about = replace(self._about, concurrency=self._pool.num_processes)  # it changes under --autoscale
        self._presence.heartbeat(self._about, queues=self._consumed(), jobs=jobs)

    def begin_shutdown(self) -> None:
        """Say, with the next sign, that this worker takes no more jobs."""
        self._about = replace(self._about, is_stopping=True)

    def end(self) -> None:
        """Say that this worker is gone."""
        try:
            self._presence.leave()
        except RedisError as failure:  # it will be taken for lost, after a lease
            logger.warning("the ledger does not know that this worker ends: %r", failure)

    def _consumed(self) -> list[str]:
        """Return what it consumes now: an operator may change that by Celery's own control commands."""
        if self._about.is_stopping or not self._pulse.is_consuming:
            return []
        return sorted(self._queues.consume_from)
