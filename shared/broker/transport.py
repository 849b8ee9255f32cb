"""Kombu's Redis transport, extended to survive broken connections and messages that cannot be read.

A job outlives the connection that its message came through. When the job ends, or the worker closes the channel, kombu
uses a transport that is already detached, and the resulting `AttributeError` would end the worker's main process.

Nothing is lost by leaving such a message with the broker. A job that runs keeps its claim; a message that nobody
claimed is published again by the keeper; a finished job's message comes back after the visibility timeout, and its
claim is answered with the stored result.

A Redis list can contain anything, and kombu ends the process on unexpected content. So a message that cannot be read is
delivered inside a valid message, and the consumer of the queue keeps it as a dead letter: see `worker.upkeep.intake`.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis, virtual

from shared.broker.reading import Unreadable, check_envelope
from shared.broker.wrapping import wrapped

logger = logging.getLogger(__name__)


class QoS(redis.QoS):
    """The record of delivered messages; without a connection it changes nothing on the broker."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        if self._is_detached():
            logger.info("not acknowledged, its connection is gone: %s", delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject a message; with `requeue` it goes back to the head of its queue."""
        if self._is_detached():
            logger.info("not rejected, its connection is gone: %s", delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue=requeue)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put unacknowledged messages back into their queues, once, if the broker still answers."""
        account: Any = self  # kombu's types lack what follows
        try:
            if not self._is_detached():
                super().restore_unacked_once(stderr)
                return
        except account.channel.connection_errors as failure:
            logger.warning("unacknowledged messages stay with the broker: %r", failure)
        account._on_collect.cancel()  # noqa: SLF001 - its own
        account._delivered.clear()  # noqa: SLF001 - likewise
        account._delivered.restored = True  # noqa: SLF001 - likewise

    def _is_detached(self) -> bool:
        transport: Any = self.channel.connection
        return transport is None or transport.client is None


class Channel(redis.Channel):
    """A channel with that record, which passes only readable messages to kombu."""

    QoS = QoS

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        client: Any = super()._create_client(asynchronous=asynchronous)  # type: ignore[misc]  # types-kombu lacks it
        client.set_response_callback("BRPOP", self._readable)
        return client

    def _readable(self, reply: Any, **_: Any) -> Any:
        """Return a reply of BRPOP (None, or list and message), its message wrapped where it cannot be read."""
        if not reply:
            return None
        name, raw = reply
        try:
            check_envelope(raw)
        except Unreadable as wrong:
            queue = name.decode().removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
            logger.warning("a message on %s cannot be read: %s", queue, wrong)
            raw = wrapped(raw, wrong, queue=queue).encode()
        return name, raw


class Transport(redis.Transport):
    """Kombu's Redis transport with that channel."""

    Channel = Channel
