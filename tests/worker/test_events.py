"""Events of tasks are published together, and none is lost, with a real dispatcher on a real Valkey."""

from __future__ import annotations

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu.asynchronous.timer import Timer

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from tests.support.servers.services import BOUND_S, Server
from worker.events import EventsTogether


@pytest.mark.parametrize("how", ["the time is over", "the worker stops"])
def test_events_of_a_moment_are_one_message(broker: BrokerSettings, valkey: Server, how: str) -> None:
    """Whichever comes first: a fifth of a second, or the end of the connection."""
    app, flushed = make_celery(broker), []
    with app.connection_for_write() as connection, redis.Redis(port=valkey.port) as client, client.pubsub() as heard:
        heard.psubscribe("*celeryev/task.multi")
        assert heard.get_message(timeout=BOUND_S)
        dispatcher = app.events.Dispatcher(
            connection, hostname="w@h", buffer_group=["task"], on_send_buffered=lambda: flushed.append("at once")
        )
        consumer: Any = SimpleNamespace(
            event_dispatcher=dispatcher, timer=Timer(), on_send_event_buffered=dispatcher.on_send_buffered
        )
        step = EventsTogether(consumer)
        step.start(consumer)
        for n in range(10):
            dispatcher.send("task-started", uuid=str(n))
        assert heard.get_message(timeout=0) is None
        if how == "the worker stops":
            step.stop(consumer)
            dispatcher.send("task-succeeded", uuid="9")  # as Celery does it
            assert flushed == ["at once"]
        else:
            (entry,) = consumer.timer.queue
            entry.entry()
            dispatcher.send("task-succeeded", uuid="9")
            assert len(consumer.timer.queue) == 2  # the next moment
        message: Any = heard.get_message(timeout=BOUND_S)
        body = json.loads(b64decode(json.loads(message["data"])["body"]))
        assert [event["uuid"] for event in body] == [str(n) for n in range(10)]
        assert not flushed or how == "the worker stops"
