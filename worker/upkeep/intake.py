"""Celery's consumer, made to survive every message: what it cannot read or run does not end the process.

A message that cannot be read is kept as a dead letter and acknowledged. One of a kind that this worker does not have
is put back for another worker, until its job has ended.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import time
from collections.abc import Callable
from typing import Any

import redis
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.message import Message

from shared.broker.reading import Reason, Unreadable, check_task
from shared.broker.settings import broker_settings
from shared.broker.wrapping import Unread, unwrapped
from shared.ledger.dead_letters import DeadLetter, bury
from shared.ledger.ids import uuid7
from shared.ledger.keys import key
from shared.ledger.server import bounded
from shared.ledger.states import FINAL_STATES, State
from worker.settings import worker_settings
from worker.upkeep.outage import PAUSE_MAX_S, STEADY_S, Outage

logger = logging.getLogger(__name__)

_AGAIN_S = 5.0  # before the next attempt to store a dead letter in the ledger
# Before a message of an unknown kind is put back; the keeper must not take it for lost. It varies, because kombu waits
# for messages for 1 s at a time: with as long a pause, the same worker got its message back twelve times in a row.
_PAUSE_S = (0.5, 1.5)
_LOOK_EVERY_S = 0.2  # how often a pause checks whether the worker is to stop
_HELD_AT_ONCE = 20  # of those messages, which do not count against the prefetch
_RETURNED_SINCE = "celeriac_returned_since"  # header: seconds since 1970
_KEPT_PROPERTIES = ("priority", "correlation_id", "reply_to", "delivery_mode")


class Intake(Consumer):
    """The consumer of a worker; Celery takes it from `worker_consumer`."""

    qos: Any  # Celery sets these three; its types lack them
    connection_errors: Any
    controller: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = broker_settings()
        self._ledger = redis.Redis.from_url(settings.ledger_url, **bounded())
        self._retention_s = settings.retention_s
        self._held = 0
        self._outage = Outage()
        self._outage.quiet()
        super().__init__(*args, **kwargs)

    def connect(self) -> Any:
        """Connect to the broker, after a pause if the last connections broke early."""
        until = time.monotonic() + self._outage.pause_s
        while (left_s := until - time.monotonic()) > 0:
            maybe_shutdown()
            time.sleep(min(left_s, _LOOK_EVERY_S))
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until there is a connection, with shorter pauses than kombu's."""

        def missed(failure: BaseException, _: float) -> None:
            self._outage.missed(conn.as_uri(), failure)

        ready = conn.ensure_connection(missed, interval_start=1, interval_max=PAUSE_MAX_S, callback=maybe_shutdown)
        self.first_connection_attempt = False
        return ready

    def on_ready(self) -> None:
        """End the outage once the connection has held for a while; if it breaks before, Celery clears this timer."""
        super().on_ready()
        self.timer.call_after(STEADY_S, self._outage.over, (self._outage.losses,))

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Count a connection that broke before the worker could consume from it."""
        self._outage.missed(self.app.connection_for_read().as_uri(), exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Count the loss; the pause before the next attempt depends on it."""
        self._outage.lost()
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        """Return the handler of messages, which checks each one before Celery gets it."""
        receive = super().create_task_handler(*args, **kwargs)

        def look_and_receive(message: Message) -> None:
            try:
                if unread := unwrapped(message.headers):
                    self._set_aside(message, unread)
                    return
                check_task(message.headers, _payload(message))
                receive(message)
            except Unreadable as why:
                self._set_aside(message, _unread(message, why))
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as failure:
                if message.acknowledged:
                    raise
                logger.exception("Celery failed on a message, which becomes a dead letter")
                self._free_place_of(message)
                self._set_aside(message, _unread(message, Unreadable(Reason.REFUSED, repr(failure))))

        return look_and_receive

    def on_close(self) -> None:
        """Forget the held messages: the connection is lost, so the broker delivers them again."""
        self._held = 0
        super().on_close()

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Keep a message whose body cannot be decompressed or decoded."""
        self._set_aside(message, _unread(message, Unreadable(Reason.BAD_BODY, repr(exc))))

    def on_unknown_message(self, body: Any, message: Message) -> None:  # noqa: ARG002 - Celery's signature
        """Keep a message that is not for a task."""
        self._set_aside(message, _unread(message, Unreadable(Reason.BAD_HEADERS, "It is not a message for a task.")))

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ARG002 - likewise
        """Keep a message that Celery refuses."""
        self._set_aside(message, _unread(message, Unreadable(Reason.REFUSED, repr(exc))))

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Put a message of an unknown kind back at the end of its queue, for a bounded time.

        During a deployment some workers have new kinds before others. When the time is over, the job fails.
        """
        returned: Any = message.headers.get(_RETURNED_SINCE)
        since = returned if isinstance(returned, int) else int(time.time())
        if time.time() - since >= worker_settings().unknown_kind_s:
            super().on_unknown_task(body, message, exc)
            return
        logger.info("this worker does not have the kind of a message, which is put back: %s", exc)
        beside = self._held < _HELD_AT_ONCE
        if beside:  # so that it does not keep this worker from its own jobs
            self._held += 1
            self.qos.increment_eventually()
        pause_s = random.uniform(*_PAUSE_S)  # noqa: S311 - not a secret
        self.timer.call_after(pause_s, self._put_back, (message, since, beside))

    def _put_back(self, message: Message, since: int, beside: bool) -> None:  # noqa: FBT001 - called by the timer
        if beside:
            self._held -= 1
            self.qos.decrement_eventually()
        queue = message.delivery_info["routing_key"]
        if self._starts_nothing(message):
            logger.info("a message is dropped, because its job has ended: %s", message.headers.get("id"))
            self._acknowledge(message)
            return
        try:
            with self.app.producer_or_acquire() as producer:
                producer.publish(
                    message.body,
                    exchange="",
                    routing_key=queue,
                    headers={**_headers(message), _RETURNED_SINCE: since},
                    content_type=message.content_type,
                    content_encoding=message.content_encoding,
                    **{name: message.properties.get(name) for name in _KEPT_PROPERTIES},
                )
            self._acknowledge(message)
        except Exception as failure:  # noqa: BLE001 - whatever the transport raises: the broker still has it
            logger.warning("a message could not be put back and is still on %s: %r", queue, failure)

    def _starts_nothing(self, message: Message) -> bool:
        """Return whether the job of a message has ended, and nothing that follows it in a workflow waits for that."""
        try:
            found = self._ledger.hget(key("job", str(message.headers.get("id"))), "state")
        except redis.RedisError as failure:
            logger.warning("the job of a message cannot be read, which is put back: %r", failure)
            return False
        return found in FINAL_STATES and not (found == State.SUCCEEDED and _goes_on(message))

    def _acknowledge(self, message: Message) -> None:
        """Acknowledge a message from the main loop: if the broker refuses it there, the worker connects again.

        From a timer it would only be logged, and the message would keep its place among those that are worked on.
        """
        self.call_soon(message.ack_log_error, logger, self.connection_errors)

    def _free_place_of(self, message: Message) -> None:
        """Free the place in the pool that a message got before Celery failed on it; Celery does not."""
        for request in [one for one in worker_state.reserved_requests if one.message is message]:
            worker_state.task_ready(request)
            self.controller._quick_release()  # noqa: SLF001 - as Celery itself does for a revoked task

    def _set_aside(self, message: Message, unread: Unread) -> None:
        """Keep a message as a dead letter, then acknowledge it. Retry while the ledger does not answer."""
        why, raw, size_bytes = unread
        letter = DeadLetter(
            id=uuid7(),
            at=time.time_ns() // 1_000_000,
            queue=str(message.delivery_info.get("routing_key", "")),
            reason=why.reason,
            detail=why.detail,
            worker=self.hostname,
            message=raw,
            size_bytes=size_bytes,
        )
        self._bury(message, letter)

    def _bury(self, message: Message, letter: DeadLetter) -> None:
        try:
            bury(self._ledger, letter, retention_s=self._retention_s)
        except redis.RedisError as failure:
            logger.warning("dead letter %s cannot be stored, trying again in %g s: %r", letter.id, _AGAIN_S, failure)
            self.timer.call_after(_AGAIN_S, self._bury, (message, letter))
            return
        logger.warning("dead letter %s from %s: %s, %s", letter.id, letter.queue, letter.reason, letter.detail)
        self._acknowledge(message)


def _headers(message: Message) -> dict[str, Any]:
    """Return the headers without the compression, because kombu has decompressed the body."""
    return {name: value for name, value in message.headers.items() if name != "compression"}


def _goes_on(message: Message) -> bool:
    """Return whether the message says what follows its task: the claim of a succeeded one lets that go on."""
    body = _payload(message)
    follows = body[2] if isinstance(body, list | tuple) else body
    return any(follows.get(name) for name in ("callbacks", "chain", "chord"))


def _payload(message: Message) -> Any:
    """Return the decoded body; the message keeps it, so Celery does not decode it again. Raises `Unreadable`."""
    try:
        return message.payload
    except Exception as failure:  # each serializer raises its own
        raise Unreadable(Reason.BAD_BODY, repr(failure)) from failure


def _unread(message: Message, why: Unreadable) -> Unread:
    """Return the delivered message in the form that it has on a Redis list."""
    body = message.body or b""
    content = body.encode() if isinstance(body, str) else bytes(body)
    delivery = {"exchange": "", "routing_key": message.delivery_info.get("routing_key", "")}
    kept = {name: message.properties[name] for name in _KEPT_PROPERTIES if name in message.properties}
    raw = json.dumps(
        {
            "body": base64.b64encode(content).decode(),
            "content-type": message.content_type,
            "content-encoding": message.content_encoding,
            "headers": _headers(message),
            "properties": {
                **kept,
                "body_encoding": "base64",
                "delivery_info": delivery,
                "delivery_tag": str(message.delivery_tag),
            },
        },
        default=repr,
        skipkeys=True,
    ).encode()
    return Unread(why, raw, len(raw))
