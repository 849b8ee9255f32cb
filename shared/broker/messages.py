"""Create Celery messages without publishing them.

A message is the JSON object that kombu puts on a Redis list (`body`, `headers`, `properties`): Celery's protocol 2.
Celery itself creates one for every kind, once; a job's message is that template with the job's id, parameters and
options. A workflow's messages are created by Celery's canvas each time. On other brokers `publish` passes the same
object to kombu. A conformance test compares the result with the messages of `apply_async`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

from celery import Signature
from kombu import Connection, Producer, Queue
from kombu.transport import virtual

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.contract.definition import AnyContract
from shared.contract.options import PRIORITIES
from shared.ledger.backend import LedgerBackend
from shared.ledger.envelopes import composed, envelope_of, has_envelope
from shared.ledger.ids import uuid7

PARAMS_SHOWN = 256  # characters of the parameters that events and Flower show
_EMBED = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'

_PLACE = re.compile(r'"<([a-z]+)>"')
_as_json = json.encoder.encode_basestring_ascii  # what json.dumps does to text

_captured: ContextVar[list[dict[str, Any]]] = ContextVar("captured")


class _CapturingChannel(virtual.Channel):
    """Collects messages instead of publishing them."""

    body_encoding = "base64"
    do_restore = False

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        _captured.get().append(message)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        raise NotImplementedError("this transport delivers no messages")

    def _purge(self, queue: str) -> int:  # noqa: ARG002 - kombu's signature
        return 0


class CapturingTransport(virtual.Transport):
    """A kombu transport that sends nothing."""

    Channel = _CapturingChannel
    driver_type = "capture"
    driver_name = "capture"

    def driver_version(self) -> str:
        """Return the version that kombu logs."""
        return "1"


class SilentBackend(LedgerBackend):
    """The result backend without its pub/sub: the gateway waits on the ledger's channel instead."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe."""

    def add_pending_result(self, result: Any, *_: Any, **__: Any) -> Any:
        """Do not subscribe: no result of a group is awaited here, and the subscriptions would leak."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Do nothing: there is no subscription."""
        return result


@contextmanager
def _capture() -> Iterator[list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []
    token = _captured.set(messages)
    try:
        yield messages
    finally:
        _captured.reset(token)


class MessageOptions(NamedTuple):
    """The properties of a message besides its parameters. `priority` is the job's: 0..9, 9 is most urgent."""

    priority: int
    soft_limit_s: float
    hard_limit_s: float


class Composer:
    """Creates messages for one broker. Templates are created on first use, which blocks for some milliseconds."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._wire_priorities = [settings.wire_priority(priority) for priority in range(PRIORITIES)]
        self.app = make_celery(settings, transport=CapturingTransport, backend="shared.broker.messages:SilentBackend")
        self.app.conf.task_send_sent_event = False  # it would go nowhere, and cost as much as the message
        self._forms: dict[str, str] = {}  # by kind: the text of a message, with places for what differs
        self._envelope = lru_cache(maxsize=1_024)(self._new_envelope)

    def message(self, contract: AnyContract, job_id: str, params: str, options: MessageOptions, *, queue: str) -> str:
        """Return the message of a single job. `params` is JSON text."""
        form = self._forms.get(contract.spec.kind) or self._form(contract)
        return form % {
            "id": f'"{job_id}"',
            "body": f'"{base64.b64encode(f"[[], {params}, {_EMBED}]".encode()).decode()}"',
            "timelimit": f"[{options.hard_limit_s!r}, {options.soft_limit_s!r}]",
            "kwargsrepr": _as_json(params[:PARAMS_SHOWN]),
            "priority": self._wire_priorities[options.priority],
            "queue": _as_json(queue),
        }

    def enveloped(
        self, contract: AnyContract, job_id: str, params: str, options: MessageOptions, *, queue: str
    ) -> tuple[str, str | None]:
        """Return the message of a single job, and its envelope; None if the record keeps the message itself."""
        envelope = self._envelope(contract, options, queue) if has_envelope(params) else None
        if envelope is None:
            return self.message(contract, job_id, params, options, queue=queue), None
        return composed(envelope, job_id=job_id, kind=contract.spec.kind, queue=queue, params=params), envelope

    def _new_envelope(self, contract: AnyContract, options: MessageOptions, queue: str) -> str | None:
        job_id, params = uuid7(), "{}"
        message = self.message(contract, job_id, params, options, queue=queue)
        return envelope_of(message, job_id=job_id, kind=contract.spec.kind, queue=queue, params=params)

    def _form(self, contract: AnyContract) -> str:
        """Return the text of a message of this kind, with a place for each value that differs."""
        with _capture() as messages:
            self.app.send_task(contract.spec.kind, kwargs={}, queue=contract.spec.queue, argsrepr="()", kwargsrepr="")
        (message,) = messages
        for option in ("argsrepr", "kwargsrepr"):  # send_task also puts its own options into the properties
            message["properties"].pop(option)
        message["body"] = "<body>"
        message["headers"] |= {name: f"<{name}>" for name in ("id", "timelimit", "kwargsrepr")} | {"root_id": "<id>"}
        message["properties"] |= {
            "correlation_id": "<id>",
            "delivery_tag": "<id>",
            "priority": "<priority>",
            "delivery_info": {"exchange": "", "routing_key": "<queue>"},
        }
        form = _PLACE.sub(r"%(\1)s", json.dumps(message).replace("%", "%%"))
        return self._forms.setdefault(contract.spec.kind, form)

    def wire_priority(self, priority: int) -> int:
        """Return Celery's priority on this broker for a job's priority (0..9, 9 is most urgent)."""
        return self._wire_priorities[priority]

    def canvas(self, canvas: Signature[Any], job_id: str) -> dict[str, str]:
        """Return the messages, by task id, that start `canvas`. Blocks: Celery writes a chord's size to Redis.

        Celery puts the messages of later steps into the first ones.
        """
        with _capture() as messages:
            canvas.apply_async(root_id=job_id)
        for message in messages:
            message["properties"].pop("kwargsrepr")  # see _template
        return {message["headers"]["id"]: json.dumps(message) for message in messages}


def publish(producer: Producer, queue: Queue, message: str) -> None:
    """Publish a stored message with kombu, on the broker of `producer`.

    The queue is declared first: RabbitMQ drops messages to a queue that no worker has declared yet.
    """
    parts = json.loads(message)
    properties = parts["properties"]
    producer.publish(
        base64.b64decode(parts["body"]),
        exchange="",
        routing_key=queue.name,
        declare=[queue],
        headers=parts["headers"],
        content_type=parts["content-type"],
        content_encoding=parts["content-encoding"],
        **{name: properties.get(name) for name in ("priority", "correlation_id", "reply_to", "delivery_mode")},
    )


def put_back(connection: Connection, queue: Queue, message: bytes) -> None:
    """Put a message that could not be read back at the end of its queue.

    On a Redis list it is again what it was, whatever that is. Other brokers take only what kombu publishes; what one of
    them has delivered is in that form.
    """
    if connection.transport.driver_type == "redis":
        channel: Any = connection.default_channel
        channel.client.lpush(queue.name, message)
    else:
        publish(connection.Producer(), queue, message.decode())
