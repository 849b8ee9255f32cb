"""Publish on brokers other than the ledger's Redis: with kombu, in one thread, with confirms.

The ledger already has the jobs. Messages that cannot be published stay in its outbox for the keeper.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import structlog
from celery import Celery

from api.background import in_background
from shared.broker.celery import make_celery
from shared.broker.messages import publish
from shared.broker.settings import BrokerSettings
from shared.ledger.aclient import AsyncLedger
from shared.ledger.records import Entry
from shared.ledger.server import SOCKET_TIMEOUT_S
from shared.texts import redact

_AT_ONCE = 100  # messages published in one turn of the thread
_log = structlog.get_logger(__name__)


class Outbox:
    """The messages waiting to be published."""

    def __init__(self, app: Celery, ledger: AsyncLedger) -> None:
        """Take the Celery application whose broker it is."""
        self._app = app
        self._ledger = ledger
        self._waiting: asyncio.Queue[Entry] = asyncio.Queue()

    def put(self, jobs: Iterable[Entry]) -> None:
        """Enqueue the messages of accepted jobs that may start now."""
        for job in jobs:
            for entry in (job, *job.steps):
                if entry.message is not None and entry.due_at is None:
                    self._waiting.put_nowait(entry)

    async def run(self) -> None:
        """Publish enqueued messages until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < _AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await asyncio.to_thread(self._publish, batch)
                await self._ledger.published([entry.id for entry in batch])
            except Exception as failure:  # noqa: BLE001 - every transport has errors of its own; the keeper publishes
                _log.warning("left to the keeper", jobs=len(batch), cause=redact(repr(failure)))

    def _publish(self, batch: Sequence[Entry]) -> None:
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=int(SOCKET_TIMEOUT_S))
            producer = connection.Producer()
            for entry in batch:
                publish(producer, self._app.amqp.queues[entry.queue], entry.message or "")


@asynccontextmanager
async def publishing(settings: BrokerSettings, ledger: AsyncLedger) -> AsyncIterator[Outbox | None]:
    """Yield the outbox while the block runs; None if accepting a job already publishes it."""
    if settings.shares_redis:
        yield None
        return
    outbox = Outbox(make_celery(settings), ledger)
    async with in_background(outbox.run()):
        yield outbox
