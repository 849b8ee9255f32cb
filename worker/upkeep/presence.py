"""Heartbeats of a worker in the ledger: identity, consumed queues, running jobs.

`/workers`, `/queues` and `waiting_reason` use them. The thread of the custodian sends them, so they continue while a
task blocks the interpreter of a child, and during a long warm shutdown.
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
from shared.contract.catalogue import catalogue
from shared.contract.installed import named_in
from shared.ledger.client import Ledger
from shared.ledger.operations import AboutWorker, Presence
from shared.workflows.definition import is_only_planned
from worker.upkeep.pulse import Pulse

logger = logging.getLogger(__name__)

_STANDS_S = 5.0  # an iteration of the loop takes at most about a second


class Heartbeat:
    """Sends the heartbeats of this worker, and its departure."""

    def __init__(self, ledger: Ledger, settings: BrokerSettings, *, owner: str, consumer: Any) -> None:
        self._presence = Presence(ledger, owner=owner, lease_s=settings.lease_s)
        self._queues = consumer.app.amqp.queues
        self._kinds = sorted(filter(is_run, consumer.app.tasks))
        self._pulse: Pulse = consumer.pulse
        self._pool = consumer.pool
        self._about = AboutWorker(
            name=consumer.hostname,
            host=socket.gethostname(),
            pid=os.getpid(),
            families=tuple(sorted(named_in("WORKER_FAMILIES"))),
            concurrency=self._pool.num_processes,
            started_at=time.time_ns() // 1_000_000,
            versions={"celeriac": __version__, "celery": version("celery"), "python": platform.python_version()},
        )

    def begin(self) -> None:
        """Send the first heartbeat, so that waiting jobs see a consumer from the start."""
        try:
            self.give([])
        except RedisError as failure:  # the rounds of the custodian send the next one
            logger.warning("the first heartbeat of this worker failed: %r", failure)

    def give(self, jobs: Iterable[str]) -> None:
        """Send a heartbeat with the running `jobs`, unless the main loop hangs and the worker takes no jobs."""
        if self._pulse.stands_for_s > _STANDS_S:
            return
        self._about = replace(self._about, concurrency=self._pool.num_processes)  # --autoscale changes it
        self._presence.heartbeat(self._about, queues=self._consumed(), kinds=self._kinds, jobs=jobs)

    def begin_shutdown(self) -> None:
        """Mark this worker as stopping in the next heartbeat: it takes no new jobs."""
        self._about = replace(self._about, is_stopping=True)

    def end(self) -> None:
        """Remove this worker from the ledger."""
        try:
            self._presence.leave()
        except RedisError as failure:  # it counts as lost after a lease
            logger.warning("this worker could not be removed from the ledger: %r", failure)

    def _consumed(self) -> list[str]:
        """Return the queues consumed now; Celery's control commands can change them."""
        if self._about.is_stopping or not self._pulse.is_consuming:
            return []
        return sorted(self._queues.consume_from)


def is_run(task: str) -> bool:
    """Return whether a task runs jobs: Celery's own do not, nor those that only refuse the messages of workflows."""
    return not task.startswith("celery.") and not (task in catalogue() and is_only_planned(catalogue()[task]))
